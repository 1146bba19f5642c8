"""`effrec show`: one run, in whatever state it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effrec_cli import result
from effrec_cli.arguments import Parser
from effrec_cli.report.curves import curve_lines, read_curve
from effrec_cli.report.deciles import deciles_table
from effrec_cli.report.figures import memory
from effrec_cli.report.layout import Column, Table, print_table, say
from effrec_cli.report.runs import Run, open_run
from effrec_cli.report.tables import cost_table, kept_words, metrics_table
from effrec_cli.runfolder import DONE, RUNNING


def main(argv: list[str]) -> int:
    """Prints a run's state, metrics, protocol, cost, learning curves and files.

    Raises:
        ConfigError: there is no run at the path.
    """
    parser = Parser(prog="effrec show", description="One run, finished or not.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/mine")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options = parser.parse_args(argv)
    result.require_run(options.run)
    run = open_run(options.run)
    if options.json:
        print(json.dumps(as_record(run), indent=2))
    else:
        _print(run)
    return 0


def as_record(run: Run) -> dict[str, Any]:
    """Returns what `effrec show --json` prints."""
    return {
        "run": str(run.folder),
        "status": asdict(run.status),
        "problem": run.problem or None,
        "next": next_command(run),
        "result": None if run.result is None else asdict(run.result),
        "curves": {kind: read_curve(run.folder, kind) for kind in ("train", "valid")},
        "files": dict(_files(run.folder)),
    }


def next_command(run: Run) -> str:
    """Returns the command that follows from the run's state."""
    if run.status.state == DONE and run.result is not None:
        return f"effrec compare {run.folder.parent}"
    if run.status.state == RUNNING:
        return f"tail -f {run.folder / 'log.txt'}"
    return f"effrec resume {run.folder}"


def _print(run: Run) -> None:
    step = f" at step {run.status.step}" if run.status.step else ""
    say(f"{run.folder}: {run.status.state}{step}")
    if run.why:
        say(f"  {run.why}")
    if run.result is not None:
        _print_result(run.result)
    curves = curve_lines(run.folder, _monitor(run))
    if curves:
        say("\n" + "\n".join(curves))
    say("")
    rows = [[name, memory(size)] for name, size in _files(run.folder)]
    print_table(Table("files", [Column("", right=False), Column("")], rows))
    say(f"\n{next_command(run)}")


def _monitor(run: Run) -> str | None:
    """Returns the metric that the run selects by; None where neither its result nor its settings say so."""
    config = _kept_settings(run.folder) if run.result is None else run.result.config
    evaluation = config.get("evaluation")
    return evaluation.get("monitor") if isinstance(evaluation, dict) else None


def _kept_settings(folder: Path) -> dict[str, Any]:
    """Returns config.yaml unchecked, empty where it is damaged: a run is shown whatever its settings are."""
    import yaml

    try:
        kept = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _print_result(found: result.Result) -> None:
    deciles = [] if found.by_frequency is None else [deciles_table(found.by_frequency)]
    for table in (metrics_table(found), *deciles, cost_table(found)):
        say("")
        print_table(table)
    say(f"\nprotocol  {protocol_words(found.protocol)}")
    say(f"dataset   {found.dataset.get('name')} {found.dataset.get('hash')}")
    say(f"code      {found.commit}, kernel {found.kernel}")
    if kept_words(found):
        say(f"weights   {kept_words(found)}")
    for setting, choice in found.choices.items():
        say(f"chosen    {setting}: {choice}")


def protocol_words(protocol: dict[str, Any]) -> str:
    """Returns the stamp in one line, without the lists of what was measured."""
    said = (key for key, value in protocol.items() if key != "split" and not isinstance(value, list))
    split = protocol.get("split", {})
    inside = split if isinstance(split, dict) else {"kind": split}
    kind = [str(inside["kind"])] if "kind" in inside else []
    words = [*kind, *(f"{key} {inside[key]}" for key in inside if key != "kind")]
    return ", ".join([*words, *(f"{key}: {_plain(protocol[key])}" for key in said)])


def _plain(value: Any) -> str:
    """Returns a value of a stamp in words, settings inside it in brackets."""
    if not isinstance(value, dict):
        return str(value)
    inner = ((key, _plain(each), isinstance(each, dict)) for key, each in value.items())
    return ", ".join(f"{key} ({words})" if nested else f"{key} {words}" for key, words, nested in inner)


def _files(folder: Path) -> list[tuple[str, int]]:
    """Returns the names in the folder with their sizes in bytes, a folder with all that it holds."""
    return [
        (path.name + "/" * path.is_dir(), _size(path))
        for path in sorted(folder.iterdir())
        if path.name[0] != "."
    ]


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(_size(inner) for inner in path.iterdir())
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a running run may have moved it meanwhile
        return 0
