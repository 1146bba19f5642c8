"""`result.json`: the one writer and the one reader of what a run ended with.

The file's keys are a promise to scripts of ours and of others. A change that removes or renames one raises
`SCHEMA_VERSION`; a new key does not.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from effrec_cli.durable import write_json
from effrec_cli.errors import ConfigError, nearest_name
from effrec_cli.evaluation.cost_record import Cost, Parameters
from effrec_cli.runfolder import DONE, RUNNING, read_state

SCHEMA_VERSION = 1
FILE_NAME = "result.json"


class LostResult(ConfigError):
    """A finished run's result.json is missing, or damaged."""


@dataclass(frozen=True)
class Result:
    """What `result.json` holds.

    Attributes:
        metrics: scores by part (`valid`, `test`) and name, such as `ndcg@10`.
        protocol: how they were measured; equal protocols may be compared.
        cost: what the run cost.
        dataset: at least `name` and `hash`, the digest of its prepared content.
        method: name of the method.
        model: name of the backbone; `none` where there is none.
        kernel: who computed the loss, such as `torch`; None where nothing had a choice.
        seed: of the run.
        commit: of the code; None outside a repository.
        versions: of Python and the libraries.
        device: what was trained on: `kind` (`cpu` or `cuda`), `name`, and `count`, one a rank.
        config: every setting, resolved.
        precision: what `auto` became: `fp32`, `bf16` or `fp16`.
        ceiling: the best possible ranker's scores on the test cases, on synthetic data.
        by_frequency: of the test part by deciles of training rows, `users` and `items`, where a catalogue
            was ranked.
        choices: settings that were left to the method, each with what it chose and why.
        sparsity: of a model with sparse tables, what is live of them, and what each update has moved.
        best_step: the step whose weights were kept, by validation; 0 are those that training began with,
            None without a loop.
        schema_version: of the file's layout.
    """

    metrics: dict[str, dict[str, float]]
    protocol: dict[str, Any]
    cost: Cost
    dataset: dict[str, Any]
    method: str
    model: str
    kernel: str | None
    seed: int
    commit: str | None
    versions: dict[str, str]
    device: dict[str, Any]
    config: dict[str, Any]
    precision: str = "fp32"
    ceiling: dict[str, float] | None = None
    by_frequency: dict[str, list[dict[str, Any]]] | None = None
    choices: dict[str, str] = field(default_factory=dict)
    sparsity: dict[str, Any] | None = None
    best_step: int | None = None
    schema_version: int = SCHEMA_VERSION


def write(path: Path, result: Result) -> None:
    """Writes `result` to `path` (a run folder or the file itself), whole or not at all.

    A number that is not finite becomes null, since JSON has none.

    Raises:
        EnvironmentFault: the disk is full, read-only or broken; what was there before is untouched.
    """
    target = _file_of(path)
    record = _finite(asdict(result))
    left_out: dict[str, Any] = {"choices": {}}
    left_out |= dict.fromkeys(("ceiling", "by_frequency", "sparsity", "best_step"))
    record = {
        name: value for name, value in record.items() if name not in left_out or value != left_out[name]
    }
    write_json(target, record)


def read(path: Path) -> Result:
    """Returns the result of a run.

    Args:
        path: a run folder or its `result.json`.

    Raises:
        ConfigError: there is no such folder, it is no run, the run has not finished, or the file was written
            by a newer effrec.
        LostResult: the file is damaged, or lost from a finished run.
    """
    target = _file_of(path)
    if not target.is_file():
        require_run(target.parent)
        raise _unfinished(target.parent)
    return _from_json(_parsed(target), target)


@dataclass(frozen=True)
class Status:
    """How far a run got.

    Attributes:
        state: `running`, `done`, `failed`, `interrupted`, `killed` (it says running, but no process holds its
            lock) or `starting`.
        step: optimizer steps at the last word.
        reason: why it ended.
    """

    state: str
    step: int | None = None
    reason: str | None = None


def read_status(folder: Path) -> Status:
    """Returns how far the run in `folder` got."""
    try:
        record = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    return Status(read_state(folder) or "unknown", record.get("step"), record.get("reason"))


def is_run(folder: Path) -> bool:
    """Returns whether a run was ever started in `folder`."""
    return (folder / FILE_NAME).is_file() or read_state(folder) is not None


def require_run(folder: Path) -> None:
    """Does nothing where `folder` holds a run, finished or not.

    Raises:
        ConfigError: there is no such folder, or it is no run; with the nearest one beside it.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"There is no run folder '{folder}'.", nearest=_sibling(folder), fix="effrec compare outputs/"
        )
    if not is_run(folder):
        raise ConfigError(
            f"'{folder}' is no run folder: it holds neither {FILE_NAME} nor status.json.",
            nearest=_sibling(folder),
            fix=f"effrec compare {folder} lists the runs inside it, if there are any",
        )


def require_finished(folder: Path) -> None:
    """Does nothing where `folder` holds a finished run, also one that has lost its result.json.

    Raises:
        ConfigError: there is no such folder, it is no run, or the run has not finished.
    """
    if read_state(folder) != DONE:
        read(folder)


def _file_of(path: Path) -> Path:
    return path if path.name == FILE_NAME else path / FILE_NAME


def _unfinished(folder: Path) -> ConfigError:
    status = read_status(folder)
    if status.state == DONE:
        return LostResult(
            f"The run in '{folder}' is done, but its {FILE_NAME} is lost.",
            where=str(folder / FILE_NAME),
            fix=f"effrec resume {folder} writes it anew",
        )
    at_step = f" at step {status.step}" if status.step else ""
    return ConfigError(
        f"The run in '{folder}' has no result: it is {status.state}{at_step}.",
        where=status.reason,
        fix=f"effrec show {folder}" if status.state == RUNNING else f"effrec resume {folder}",
    )


def _sibling(folder: Path) -> str | None:
    """Returns the run folder beside `folder` whose name is most like it."""
    parent = folder.parent
    if not parent.is_dir():
        return None
    runs = [other.name for other in parent.iterdir() if other != folder and is_run(other)]
    near = nearest_name(folder.name, runs)
    return str(parent / near) if near else None


def _parsed(target: Path) -> dict[str, Any]:
    """Returns the file's object, or raises ConfigError where it is damaged or not to be read."""
    try:
        record = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise _damaged(target, str(problem)) from problem
    version = record.get("schema_version") if isinstance(record, dict) else None
    if not isinstance(version, int):
        raise _damaged(target, "it has no schema_version")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"'{target}' was written by a newer effrec: its layout is version {version}, "
            f"this effrec reads up to {SCHEMA_VERSION}.",
            fix="pip install --upgrade effrec",
        )
    return record


def _damaged(target: Path, why: str) -> LostResult:
    return LostResult(
        f"'{target}' cannot be read as a result: {why}.",
        where=str(target),
        fix=f"effrec resume {target.parent} writes it anew",
    )


def _from_json(record: dict[str, Any], target: Path) -> Result:
    """Returns the dataclass of a parsed file; keys of later additions are passed over."""
    try:
        cost = _known(Cost, record["cost"])
        cost["parameters"] = Parameters(**_known(Parameters, cost["parameters"]))
        return Result(**{**_known(Result, record), "cost": Cost(**cost)})
    except (KeyError, TypeError) as problem:
        raise _damaged(target, f"a key is missing ({problem})") from problem


def _known(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}


def _finite(value: Any) -> Any:
    """Returns `value` with numbers that are not finite replaced by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
