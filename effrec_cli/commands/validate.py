"""`effrec validate`: whether a run can start, its size and the memory it needs; trains nothing."""

from __future__ import annotations

import argparse
import json
from typing import Any

from effrec_cli import failures
from effrec_cli.arguments import Parser
from effrec_cli.compose import compose, resolved
from effrec_cli.errors import OutOfMemoryError
from effrec_cli.screen import size, table

PARTS = ("weights", "gradients", "optimizer", "activations")


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
        if not options.json:
            raise
        return _refuse(error)
    fits = found["memory"] is None or found["memory"]["fits"]
    print(json.dumps({"ok": fits, **found}, indent=1) if options.json else _text(found, options.overrides))
    return 0 if fits else OutOfMemoryError.exit_code


def _look(options: argparse.Namespace) -> dict[str, Any]:
    config = compose(options.overrides, options.config_dir)

    from effrec_cli.dryrun import look

    return {**look(config, options.items), "config": resolved(config)}


def _refuse(error: Exception) -> int:
    known = failures.as_effrec(error)
    parts = {name: getattr(known, name) for name in ("what", "where", "nearest", "fix", "exit_code")}
    print(json.dumps({"ok": False, "error": parts}, indent=1))
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
    if memory is None or memory["fits"]:
        return f"The settings are valid. next: {command}"
    most = max((part for part in PARTS if memory[part]), key=lambda part: memory[part])
    halves = (
        "run.accumulate=2, or half of method.batch_size" if most == "activations" else "a smaller model.dim"
    )
    return f"The settings are valid, but the run will not fit. Most goes to {most}; less is: {halves}"


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
        tried = (f"{part} {size(memory[part])}" for part in PARTS if memory[part] is not None)
        fits = "fits" if memory["fits"] else "does NOT fit"
        lines.append(("memory", f"about {size(memory['total'])}: {', '.join(tried)}"))
        lines.append(("free memory", f"{size(memory['free'])}: {fits}"))
    return lines
