"""`effrec evaluate`: scores a finished run again, by its own protocol or another."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effrec_cli import result
from effrec_cli.arguments import Parser
from effrec_cli.errors import ConfigError

if TYPE_CHECKING:
    from effrec_cli.artifacts import OpenRun
    from effrec_cli.schema import EvaluationConfig

_SAME = 1e-9
"""Metrics that differ by less are called equal: the last bits of scores may depend on the device."""


def main(argv: list[str]) -> int:
    """Judges the run's weights again on the cases of a split, and prints metrics and protocol.

    Raises:
        ConfigError: there is no finished run at the path, or a setting is wrong.
        DataError: the run's dataset is not on this machine.
        EnvironmentFault: no such device.
    """
    options = _parser().parse_args(argv)
    _check(options)
    # Not before: what is wrong with the words is said at once.
    from effrec_cli import artifacts, env

    opened = artifacts.open_run(options.run, env.resolve_device(options.device))
    _refuse_rankings_words(opened, options)
    if opened.data is None:
        raise artifacts.no_data(opened.config, opened.dataset)
    same_rule = options.seen in (None, opened.config.evaluation.seen)
    opened.config.evaluation = settings_of(opened, options)
    found = opened.method.judge(options.split)
    record = {
        "run": str(options.run),
        "split": options.split,
        "metrics": found,
        "by_frequency": opened.method.by_frequency,
        "protocol": opened.method.protocol(),
        "same_as_result": _agreement(opened, options.split, found) if same_rule else None,
    }
    if options.json:
        print(json.dumps(record, indent=2))
    else:
        _print(opened, record, same_rule)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses what can be told without the weights."""
    result.require_finished(options.run)
    if options.ks is not None:
        cut_offs(options.ks)


def _refuse_rankings_words(opened: OpenRun, options: argparse.Namespace) -> None:
    """Refuses words of the ranking protocol for a run whose task has another."""
    from effrec_cli.schema.protocols import is_own, task_of

    given = [f"--{word} {value}" for word in ("ks", "seen") if (value := getattr(options, word)) is not None]
    if given and is_own(opened.config):
        raise ConfigError(
            f"This run ranks no catalogue: it is judged by the protocol of task {task_of(opened.config)}.",
            where=" ".join(given),
            fix=f"effrec evaluate {options.run}",
        )


def settings_of(opened: OpenRun, options: argparse.Namespace) -> EvaluationConfig:
    """Returns the run's evaluation settings with what the command line changes."""
    settings: EvaluationConfig = opened.config.evaluation
    ks = cut_offs(options.ks) if options.ks is not None else list(settings.ks)
    return replace(settings, ks=ks, seen=options.seen or settings.seen, block_rows=None)


def cut_offs(text: str) -> list[int]:
    """Returns the cut-offs of a text such as `10,20`.

    Raises:
        ConfigError: one is no whole number above 0.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError("Cut-offs are whole numbers above 0.", where=f"--ks {text}", fix="--ks 10,20")
    return sorted({int(word) for word in words})


def _agreement(opened: OpenRun, split: str, found: dict[str, float]) -> bool | None:
    """Returns whether the metrics are those of result.json; None where that is lost or tells of others."""
    kept = opened.result.metrics.get(split, {}) if opened.result is not None else {}
    shared = found.keys() & kept.keys()
    return all(abs(found[name] - kept[name]) < _SAME for name in shared) if shared else None


def _print(opened: OpenRun, record: dict[str, Any], same_rule: bool) -> None:
    from effrec_cli.commands.show import protocol_words
    from effrec_cli.report.deciles import deciles_table
    from effrec_cli.report.layout import print_table, say
    from effrec_cli.report.tables import metrics_table, scores_table

    part, scores = record["split"], record["metrics"]
    if opened.result is None:
        print_table(scores_table(f"{opened.config.method.name} · {opened.dataset['name']}", part, scores))
    else:
        ceiling = opened.result.ceiling if same_rule else None
        print_table(metrics_table(replace(opened.result, metrics={part: scores}, ceiling=ceiling), part))
    if record["by_frequency"] is not None:
        say("")
        print_table(deciles_table(record["by_frequency"]))
    say(f"\nprotocol  {protocol_words(record['protocol'])}")
    if opened.result is None:
        say(f"          its result.json is lost or damaged; effrec resume {record['run']} writes it anew")
        return
    verdicts = {True: "the same as", False: "NOT the same as", None: "measured in another way than"}
    say(f"          {verdicts[record['same_as_result']]} {Path(record['run']) / 'result.json'}")


def _parser() -> Parser:
    parser = Parser(
        prog="effrec evaluate",
        description="Scores a finished run again on its dataset; what is not said stays as the run had it.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/mine")
    parser.add_argument(
        "--split", choices=("valid", "test"), default="test", help="which cases (default: test)"
    )
    parser.add_argument("--ks", metavar="K,K", help="other cut-offs, such as 10,20")
    parser.add_argument(
        "--seen",
        choices=("exclude", "exclude_but_target", "keep"),
        help="whether items of the history may be listed",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser
