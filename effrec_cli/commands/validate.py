"""`effrec validate`: whether a run can start, its size and the memory it needs; trains nothing."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from typing import Any

from effrec_cli import failures
from effrec_cli.arguments import Parser
from effrec_cli.compose import compose, resolved
from effrec_cli.errors import EffrecError, OutOfMemoryError
from effrec_cli.screen import size, table

PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "temporaries",
    "validation",
    "best",
    "data",
    "factorising",
)
"""Of the memory, as `dryrun.Memory` has them."""

_OF_A_STEP = ("activations", "temporaries")
"""Those that the method knows settings for."""
_SMALLER_MODEL = "half of model.dim halves it"
_LESS = {
    "weights": _SMALLER_MODEL,
    "gradients": _SMALLER_MODEL,
    "optimizer": _SMALLER_MODEL,
    "best": _SMALLER_MODEL,
    "validation": "evaluation.block_rows=16 bounds it, or half of what it is set to",
    "data": "a larger dataset.filter.min_user_count keeps fewer rows",
    "factorising": "half of method.factors.dim halves its vectors",
}
_LESS_FITTED = "a larger dataset.filter.min_item_count: half of the items take a quarter; or method=pop"


def main(argv: list[str]) -> int:
    """Looks at the run that `argv` describes; returns 0, or the code that the run would end with.

    Raises:
        EffrecError: the run could not start; with `--json` it is printed as JSON instead.
    """
    parser = Parser(prog="effrec validate", description="Checks a run without training.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for effrec train")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="with YAML groups of your own")
    parser.add_argument(
        "--items", type=int, metavar="N", help="size the model for N items, before data are here"
    )
    options = parser.parse_intermixed_args(argv)
    try:
        found = _look(options)
    except Exception as error:
        counts = _counts_alone(options)
        if options.json:
            return _refuse(error, counts)
        if counts:
            lines = [
                *_parameter_lines({"parameters": counts, "memory": None}),
                ("data", "not looked at: see below"),
            ]
            print(table(("what", "found"), lines))
        raise
    fits = found["memory"] is None or found["memory"]["verdict"] != "does not fit"
    print(json.dumps({"ok": fits, **found}, indent=1) if options.json else _text(found, options.overrides))
    return 0 if fits else OutOfMemoryError.exit_code


def _look(options: argparse.Namespace) -> dict[str, Any]:
    config = compose(options.overrides, options.config_dir)

    from effrec_cli.dryrun import look

    return {**look(config, options.items), "config": resolved(config)}


def _counts_alone(options: argparse.Namespace) -> dict[str, int] | None:
    """Returns the parameters that a run has with any data, where it is the data that it lacks."""
    from effrec_cli.dryrun import counts_alone

    with suppress(EffrecError):
        return counts_alone(compose(options.overrides, options.config_dir))
    return None


def _refuse(error: Exception, counts: dict[str, int] | None) -> int:
    known = failures.as_effrec(error)
    parts = {name: getattr(known, name) for name in ("what", "where", "nearest", "fix", "exit_code")}
    sized = {"parameters": counts} if counts else {}
    print(json.dumps({"ok": False, "error": parts, **sized}, indent=1))
    return known.exit_code


def _text(found: dict[str, Any], overrides: list[str]) -> str:
    command = " ".join(["effrec train", *overrides])
    chosen = list(found.get("choices", {}).items())
    lines = [*_run_lines(found), *chosen, *_parameter_lines(found)]
    notes = [f"\nnote: {found['note']}"] if "note" in found else []
    notes += [f"\nmemory: {found['memory']['how']}."] if found["memory"] else []
    return "\n".join([table(("what", "found"), lines), *notes, f"\n{_verdict(found, command)}"])


def _verdict(found: dict[str, Any], command: str) -> str:
    memory = found["memory"]
    valid = "The settings are valid"
    if memory is None or memory["fits"]:
        return f"{valid}. next: {command}"
    if memory["verdict"] == "unknown":
        return f"{valid}; whether the run fits is not known. next: {command}"
    most = max((part for part in PARTS if memory[part]), key=lambda part: memory[part])
    less = "; or ".join(found["relief"]) if most in _OF_A_STEP and memory["gradients"] else _LESS.get(most)
    less = less if memory["gradients"] else _LESS_FITTED
    advice = f"Most goes to {most}: {less}"
    if memory["verdict"] == "tight":
        return f"{valid}, but memory is tight. {advice}. next: {command}"
    return f"{valid}, but the run will not fit. {advice}"


def _run_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    data = found["dataset"]
    state = {
        "prepared": f"prepared, {size(data['bytes'])} in {data['folder']}",
        "raw": f"to be prepared, {size(data['bytes'])} raw",
        "generated": "to be drawn by the simulator",
        "absent": f"not here: train fetches it{_download(data)}, or: effrec data fetch {data['name']}",
    }[data["state"]]
    counts = [
        f"{data[f'num_{what}']:,} {what}"
        for what in ("users", "items", "interactions")
        if data[f"num_{what}"]
    ]
    return [
        ("method", found["method"]),
        ("model", found["model"]),
        ("dataset", ", ".join([data["name"], *counts])),
        ("data", state),
        ("device", found["device"]),
        ("disk free", size(found["disk_free_bytes"])),
    ]


def _download(data: dict[str, Any]) -> str:
    return f" ({size(data['download_bytes'])})" if data["download_bytes"] else ""


def _parameter_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    parameters, memory = found["parameters"], found["memory"]
    lines = []
    if parameters:
        lines.append(("parameters", f"{parameters['all']:,} in all, {parameters['trainable']:,} trainable"))
    if memory:
        parts = (f"{part} {size(memory[part])}" for part in PARTS if memory[part])
        about = "at least" if memory["validation"] is None else "about"
        words = {"does not fit": "does NOT fit", "unknown": "whether it fits is not known"}
        lines.append(("memory", f"{about} {size(memory['total'])}: {', '.join(parts)}"))
        verdict = words.get(memory["verdict"], memory["verdict"])
        lines.append(("free memory", f"{size(memory['free'])}: {verdict}"))
    return lines
