"""`effrec compare`: the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

from effrec_cli.arguments import Parser
from effrec_cli.report.board import board_table, copies_line, unfinished_line
from effrec_cli.report.compare import compare
from effrec_cli.report.layout import Table, as_markdown, print_table, say
from effrec_cli.report.records import as_csv, as_records


def main(argv: list[str]) -> int:
    """Prints the runs side by side, one table for each dataset and protocol.

    Raises:
        ConfigError: a path is not there, or there is no run.
    """
    options = _parser().parse_args(argv)
    found = compare(options.paths, options.metric, per_run=options.per_run)
    tables = [board_table(board) for board in found.boards]
    lines = [line for line in (copies_line(found), unfinished_line(found)) if line]
    if options.json:
        print(json.dumps(as_records(found), indent=2))
    elif options.csv:
        print(as_csv(found), end="")
    elif options.md:
        say("\n\n".join([*map(as_markdown, tables), *lines]))
    else:
        _print(tables, lines)
    return 0


def _print(tables: list[Table], lines: list[str]) -> None:
    """Prints the tables, and under them what else there is to say."""
    for at, table in enumerate(tables):
        if at:
            print()
        print_table(table)
    if tables and lines:
        print()
    for line in lines:
        say(line)


def _parser() -> Parser:
    parser = Parser(
        prog="effrec compare",
        description="Runs side by side: quality, and what it cost. One table for each dataset and protocol; "
        "runs that differ only in the seed share a line (mean ± standard deviation).",
        epilog="TPME puts time, trainable parameters and memory into one number, lower is better; it depends "
        "on the runs compared.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="RUN", help="a run, or a folder with runs in it"
    )
    parser.add_argument("--metric", metavar="NAME", help="sort by this test metric, such as ndcg@10")
    parser.add_argument("--per-run", action="store_true", help="a line for every run")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything, for programs")
    form.add_argument("--csv", action="store_true", help="one line an entry, with all metrics and costs")
    form.add_argument("--md", action="store_true", help="Markdown tables")
    return parser
