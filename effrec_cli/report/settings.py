"""Which settings tell runs apart: the ones that differ, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effrec_cli.result import Result

# What does not change what is trained or measured, or has a column of its own; the device and the precision
# enter as what `auto` became.
_NO_MATTER = (
    "seed", "name", "method.name", "model.name", "data_root", "run.dir", "run.resume", "run.log_every",
    "run.checkpoint_every_steps", "run.checkpoint_every_minutes", "run.device", "run.precision",
    "evaluation.block_rows", "evaluation.ks", "evaluation.metrics",
)  # fmt: skip

HEADLINE = ("method.loss", "method.mode")
"""What tells a method's variants apart: always shown, and without their names."""


def settings_of(result: Result) -> dict[str, Any]:
    """Returns the settings that a run's outcome may depend on, by dotted name, its seed left out.

    The dataset's are left out too: its content hash says the same, and separates the tables already. Of a
    sample, which stands in the table of its parent, rate, mode and seed are told.
    """
    flat = {
        key: value
        for key, value in _flat(result.config).items()
        if key not in _NO_MATTER and not key.startswith("dataset.")
    }
    if result.model == "none":
        flat = {key: value for key, value in flat.items() if key.startswith("method.")}
    kernel = {} if result.kernel is None else {"kernel": result.kernel}
    return {**flat, **_sample(result), "device": device_name(result), "precision": result.precision, **kernel}


def _sample(result: Result) -> dict[str, Any]:
    sample = result.dataset.get("sample") or {"rate": 1.0}
    return {f"sample_{name}": sample[name] for name in ("rate", "mode", "seed") if name in sample}


def device_name(result: Result) -> str:
    """Returns the device trained on, with how many of it where that is more than one."""
    name, count = str(result.device.get("name")), result.device.get("count", 1)
    return name if count == 1 else f"{count} x {name}"


def differing(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns for each result its loss or mode and those of its settings on which the results disagree.

    A method's own settings are compared among its runs, a model's among the runs with that model, since
    `method.batch_size` of one method has nothing to do with that of another.
    """
    settings = [settings_of(result) for result in results]
    values: dict[tuple[str, str], set[str]] = {}
    for result, own in zip(results, settings, strict=True):
        for key, value in own.items():
            values.setdefault((_scope(key, result), key), set()).add(repr(value))
    return [
        {
            key: value
            for key, value in own.items()
            if key in HEADLINE or len(values[_scope(key, result), key]) > 1
        }
        for result, own in zip(results, settings, strict=True)
    ]


def as_words(settings: dict[str, Any]) -> str:
    """Returns settings as `key=value` words with the shortest names that are clear; a loss is named bare.

    The name of something is written as what it is the name of: `optimizer=adam`.
    """
    leaves = [_leaf(key) for key in settings]
    words = []
    for key, value in settings.items():
        leaf = _leaf(key)
        short = leaf if leaves.count(leaf) == 1 else key
        words.append(str(value) if key in HEADLINE else f"{short}={_word(value)}")
    return " ".join(words)


def _leaf(key: str) -> str:
    return key.removesuffix(".name").rsplit(".", 1)[-1]


def _word(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _scope(key: str, result: Result) -> str:
    """Returns whom a setting concerns: a method's name, a model's, or everybody."""
    group = key.split(".", 1)[0]
    return {"method": result.method, "model": result.model}.get(group, "")


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
