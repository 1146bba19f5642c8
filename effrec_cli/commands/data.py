"""`effrec data`: the datasets that can be named, and what of them is on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from effrec_cli.arguments import Parser
from effrec_cli.commands import data_sample
from effrec_cli.compose import CONFIG_NAME, Folders, checked, compose, opened
from effrec_cli.data.describe import describe
from effrec_cli.data.fetch import megabytes
from effrec_cli.data.load import load, open_source
from effrec_cli.data.store import holding
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.report.description import tables
from effrec_cli.report.layout import Column, Table, print_table
from effrec_cli.schema import Config

_FACTS = ("family", "state", "bytes", "download_bytes", "license")


def main(argv: list[str]) -> int:
    """Runs `effrec data ARGV` and returns the exit code.

    Raises:
        ConfigError: no such dataset, path or setting.
        DataError: data that cannot be had, are malformed or damaged.
    """
    if argv[:1] == ["sample"]:  # its options and settings may mix, which no verb's verb can
        return data_sample.main(argv[1:])
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser() -> Parser:
    parser = Parser(prog="effrec data", description="The datasets on this machine.")
    verbs = parser.add_subparsers(required=True, metavar="ls|fetch|import|describe|sample|verify")

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
        added = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(run=run)
        added.add_argument("--config-dir", "-cd", metavar="DIR", help="with YAML groups of your own")
        return added

    _with_json(verb("ls", _ls, "list the datasets that a run can name, and their state"))
    _with_name(verb("fetch", _fetch, "download a dataset, without training on it"))
    given = verb("import", _import, "take a dataset from a folder or archive that you have")
    given.add_argument("name", metavar="NAME", help="the dataset it is, such as ml-20m")
    given.add_argument("path", metavar="PATH", type=Path, help="folder, .zip or .tar.gz")
    given.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    _with_json(_with_name(verb("describe", _describe, "prepare a dataset and show its statistics")))
    verbs.add_parser("sample", help=data_sample.SUMMARY)
    _with_json(_with_name(verb("verify", _verify, "hash all files of a dataset and compare")))
    return parser


def _with_name(parser: Parser) -> Parser:
    parser.add_argument("name", metavar="NAME", help="as in dataset=NAME")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="such as dataset.split.kind=global_time"
    )
    return parser


def _with_json(parser: Parser) -> Parser:
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _say(line: str) -> None:
    """Tells how the work goes, beside the result on standard output."""
    print(line, file=sys.stderr, flush=True)


def _composed(options: argparse.Namespace) -> Config:
    return compose([f"dataset={options.name}", *options.overrides], options.config_dir)


def _ls(options: argparse.Namespace) -> int:
    found = list(_entries(options.config_dir))
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    headers = {
        "name": "name",
        "state": "state",
        "bytes": "on disk",
        "download_bytes": "to fetch",
        "license": "licence",
    }
    columns = [Column(header, right=key.endswith("bytes")) for key, header in headers.items()]
    rows = [[_shown(entry[key]) for key in headers] for entry in found]
    print_table(Table("Datasets", columns, rows, notes=["use: effrec train dataset=NAME"]))
    return 0


def _entries(config_dir: str | None) -> Iterator[dict[str, Any]]:
    """Yields what is known of every dataset, effrec's own and those of a user's folder."""
    from hydra.types import RunMode

    with opened(Folders(extra=config_dir), []) as hydra:
        for name in sorted(hydra.config_loader.get_group_options("dataset")):
            try:
                config = checked(hydra.compose_config(CONFIG_NAME, [f"dataset={name}"], RunMode.RUN))
                yield {"name": name, **_facts(config)}
            except Exception as error:  # one broken file of the user's must not hide the others
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                yield {"name": name, **dict.fromkeys(_FACTS), "state": f"broken: {reason}"}


def _facts(config: Config) -> dict[str, Any]:
    found = holding(config.dataset, Path(config.data_root))
    absent = found.state == "absent"
    facts = (
        config.dataset.family,
        found.state,
        found.bytes or None,
        getattr(config.dataset, "archive_bytes", None) if absent else None,
        getattr(config.dataset, "license", "") or None,
    )
    return dict(zip(_FACTS, facts, strict=True))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return megabytes(value) if isinstance(value, int) else str(value)


def _fetch(options: argparse.Namespace) -> int:
    config = _composed(options)
    open_source(config.dataset, Path(config.data_root)).ensure(_say)
    print(f"{options.name} is here; next: effrec data describe {options.name}")
    return 0


def _import(options: argparse.Namespace) -> int:
    config = _composed(options)
    source = open_source(config.dataset, Path(config.data_root))
    take = getattr(source, "import_from", None)
    if take is None:
        raise ConfigError(
            f"The dataset {options.name} is not imported.",
            where=f"family {config.dataset.family}",
            fix="train on your own file where it is: dataset=table dataset.path=FILE",
        )
    take(options.path.expanduser(), _say)
    print(f"next: effrec train dataset={options.name}")
    return 0


def _describe(options: argparse.Namespace) -> int:
    config = _composed(options)
    found = describe(load(config.dataset, Path(config.data_root), _say))
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for table in tables(found):
        print_table(table)
        print()
    return 0


def _verify(options: argparse.Namespace) -> int:
    config = _composed(options)
    found = holding(config.dataset, Path(config.data_root))
    if found.state not in ("raw", "prepared"):
        raise DataError(
            f"Nothing of {options.name} is on this machine.",
            where=config.data_root,
            fix=f"effrec data import {options.name} PATH, or effrec data describe {options.name}",
        )
    wrong = found.verify()
    folders = [str(path) for path in ([found.raw.folder] if found.raw else []) + found.prepared]
    if options.json:
        print(json.dumps({"sound": not wrong, "folders": folders, "wrong": wrong}, indent=1))
        return DataError.exit_code if wrong else 0
    if wrong:
        raise DataError(
            f"{len(wrong)} of the files of {options.name} are not as they were written.",
            where="; ".join(wrong),
            fix="delete the folder; it is fetched or prepared again when it is needed",
        )
    print("\n".join([*folders, "all files are as they were written"]))
    return 0
