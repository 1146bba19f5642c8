"""`effrec bench`: measures, and keeps what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from effrec_cli.arguments import Parser
from effrec_cli.errors import ConfigError
from effrec_cli.paths import PACKAGE
from effrec_cli.report.layout import say

_TREE = PACKAGE.parent
_RESULTS = _TREE / "benchmarks" / "results"


def main(argv: list[str]) -> int:
    """Runs a suite, or lists the suites, or renews the tables in the documents.

    Raises:
        ConfigError: no such suite, or `--tables` outside a source tree.
        EnvironmentFault: no such device, or the results cannot be written.
    """
    options = _parser().parse_args(argv)
    if options.tables:
        return renew_tables()
    if options.list or options.suite is None:
        return _list(options)
    return _run(options)


def renew_tables() -> int:
    """Makes the tables of README and docs anew from the kept records, and says which files changed."""
    from effrec_cli.bench.tables import documents, renewed

    if not _RESULTS.is_dir():
        raise ConfigError("Tables are made in effrec's source tree.", where=str(_RESULTS))
    changed = False
    for page in documents(_TREE):
        text = renewed(page, _RESULTS)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            say(f"renewed {page.relative_to(_TREE)}")
            changed = True
    if not changed:
        say("all tables are as the kept records make them: nothing to renew")
    return 0


def _run(options: argparse.Namespace) -> int:
    """Measures cell after cell, keeping each as it ends; exit code 1 where every peer of the suite failed."""
    from effrec_cli.bench import suites

    suites.check_name(options.suite)
    from effrec_cli.bench import records
    from effrec_cli.env import resolve_device

    device = resolve_device(options.device)
    folder = options.out or default_folder(options.quick)
    records.check_folder(folder)
    wanted = suites.Options(device, options.quick, options.minutes, options.only)
    path, good = folder, False
    for record in suites.measure(options.suite, wanted, say):
        say(f"  {line(record)}")
        path = records.keep(folder, records.stamped(record, device))
        good |= "error" not in record
    say(f"kept in {path}")
    return 0 if good else 1


def line(record: dict[str, Any]) -> str:
    """Returns a record as one line for the screen."""
    from effrec_cli.report.figures import significant

    figures = [
        f"{name} {significant(one['median'])} {one['unit']}".rstrip()
        for name, one in record["figures"].items()
    ]
    return f"{record['peer']:<28} {', '.join([*figures, *filter(None, [record.get('error')])])}"


def default_folder(quick: bool) -> Path:
    """Returns where records go: the source tree's results, but quick ones, which prove nothing, elsewhere."""
    return _RESULTS if _RESULTS.is_dir() and not quick else Path("outputs") / "bench"


def _list(options: argparse.Namespace) -> int:
    from effrec_cli.bench import suites
    from effrec_cli.env import resolve_device

    wanted = suites.Options(resolve_device(options.device), options.quick)
    for name, summary in suites.SUITES.items():
        say(f"{name:<12}{summary}")
        if name not in suites.SCRIPTS:
            for cell in suites.module(name).cells(wanted):
                say(f"    {cell.name}: {' | '.join(cell.peers)}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="effrec bench",
        description="Measures a suite, each peer in a process of its own, taking turns, and keeps one record "
        "for each cell and peer as JSON.",
    )
    parser.add_argument("suite", nargs="?", metavar="SUITE", help="without one, the suites are listed")
    parser.add_argument("--list", action="store_true", help="list the suites and their cells")
    parser.add_argument("--quick", action="store_true", help="tiny cells, to see that all works")
    parser.add_argument("--only", default="", metavar="TEXT", help="the cells whose names hold this text")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--minutes", type=float, default=5.0, help="start no further cell after so many (5)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to keep the records")
    parser.add_argument("--tables", action="store_true", help="renew the tables in README and docs")
    return parser
