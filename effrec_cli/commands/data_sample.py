"""`effrec data sample`: a dataset with fewer training rows in a folder, or a parquet file with fewer."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from effrec_cli.arguments import Parser
from effrec_cli.compose import compose
from effrec_cli.data.load import load
from effrec_cli.data.sampling.export import ROWS, export
from effrec_cli.data.sampling.stream import Names, stream
from effrec_cli.errors import ConfigError
from effrec_cli.schema import Config
from effrec_cli.schema.sample import SampleConfig, is_sampled, sample_settings

SUMMARY = "write a dataset with fewer training rows, or a parquet file with fewer rows"
_SETTING = "dataset.sample."


def main(argv: list[str]) -> int:
    """Runs `effrec data sample ARGV` and returns the exit code.

    Raises:
        ConfigError: no such dataset, file or setting, or nothing would be sampled.
        DataError: data that cannot be had, are malformed or damaged, or of which nothing is kept.
    """
    options = _parser().parse_intermixed_args(argv)
    told = _from_parquet(options) if options.parquet is not None else _from_dataset(options)
    print(json.dumps(told, indent=1, ensure_ascii=False) if options.json else _words(told))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="effrec data sample", description=SUMMARY[0].upper() + SUMMARY[1:] + ".")
    parser.add_argument(
        "words", nargs="*", metavar="NAME KEY=VALUE", help="dataset and dataset.sample.rate=0.1"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER|FILE", help="where it goes")
    parser.add_argument(
        "--parquet", type=Path, metavar="FILE", help="of training rows, in place of a dataset"
    )
    parser.add_argument("--user", metavar="COLUMN", help="of the file's user ids", default="user")
    parser.add_argument("--item", metavar="COLUMN", help="of the file's item ids", default="item")
    parser.add_argument("--time", metavar="COLUMN", help="of the file's times")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="with YAML groups of your own")
    return parser


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _sampled(overrides: list[str], config_dir: str | None) -> Config:
    """Returns settings under which something is sampled."""
    config = compose(overrides, config_dir)
    if not is_sampled(config.dataset.sample):
        raise ConfigError(
            "All rows would be kept.", where="dataset.sample.rate=1", fix="dataset.sample.rate=0.1"
        )
    return config


def _from_dataset(options: argparse.Namespace) -> dict[str, Any]:
    names = [word for word in options.words if "=" not in word]
    if len(names) != 1:
        raise ConfigError(
            "It takes one dataset, or --parquet FILE.",
            where=f"effrec data sample {' '.join(names)}".rstrip(),
            fix="effrec data sample NAME --out FOLDER dataset.sample.rate=0.1",
        )
    overrides = [word for word in options.words if "=" in word]
    config = _sampled([f"dataset={names[0]}", *overrides], options.config_dir)
    root, folder = Path(config.data_root), options.out.expanduser()
    parent = load(replace(config.dataset, sample=SampleConfig()), root, _say)
    data = export(parent, config.dataset.sample, folder, root, _say)
    assert data.sample is not None
    return {
        **data.sample,
        "content_hash": data.content_hash,
        "out": str(folder),
        "parquet": str(folder / ROWS),
    }


def _from_parquet(options: argparse.Namespace) -> dict[str, Any]:
    strange = [word for word in options.words if not word.startswith(_SETTING)]
    if strange:
        raise ConfigError(
            f"A file is sampled by {_SETTING}* alone.",
            where=f"'{strange[0]}' beside --parquet {options.parquet}",
            fix=f"{_SETTING}rate=0.1, {_SETTING}seed=1, or {_SETTING}mode=user",
        )
    config = _sampled(options.words, options.config_dir).dataset.sample
    source, out = options.parquet.expanduser(), options.out.expanduser()
    done = stream(source, out, Names(options.user, options.item, options.time), config, _say)
    return {**sample_settings(config), **asdict(done), "out": str(out)}


def _words(told: dict[str, Any]) -> str:
    """Returns what was kept, and what to do next."""
    kept = f"{told['rows_kept']:,} of {told['rows']:,} training rows kept in {told['out']}"
    if "users_kept" not in told:
        return f"{kept} ({told['bytes']:,} bytes)"
    shares = ", ".join(f"{told[f'{name}_kept']:,} of {told[name]:,} {name}" for name in ("users", "items"))
    return f"{kept}\n{shares} still have one\nnext: effrec train dataset=sample dataset.path={told['out']}"
