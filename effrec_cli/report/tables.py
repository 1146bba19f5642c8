"""What the screen shows when a run ends: how good, at what cost, and what to do next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from effrec_cli.evaluation.cost_record import state_bytes
from effrec_cli.report import figures
from effrec_cli.report.layout import Column, Table, print_table, say
from effrec_cli.report.settings import HEADLINE, as_words, device_name, settings_of
from effrec_cli.result import Result
from effrec_cli.schema.protocols import FULL


def print_result(result: Result, folder: Path) -> None:
    """Prints the metrics, the cost and the next commands to try of a run that has ended in `folder`."""
    print_table(metrics_table(result))
    say("")
    print_table(cost_table(result))
    if result.best_step == 0:
        say(f"\nweights {kept_words(result)}")
    say("\n" + "\n".join(next_commands(result, folder)))


def kept_words(result: Result) -> str:
    """Returns which weights a run has kept, such as `of step 120, by validation`; empty without a loop."""
    if result.best_step is None:
        return ""
    if result.best_step == 0:
        return "of step 0, before training: no validation after it was better"
    return f"of step {result.best_step:,}, by validation"


def metrics_table(result: Result, part: str = "test") -> Table:
    """Returns the metrics of a part: a line for each, a column for each cut-off.

    A metric without a cut-off, such as `auc`, stands in the first column. Under the metric that the run was
    selected by stands its share of the best possible ranker's, where that is known.
    """
    ceilings = (result.ceiling or {}) if part == "test" else {}
    headline = named(str(result.config.get("evaluation", {}).get("monitor", "")))[0]
    return scores_table(title(result), part, result.metrics.get(part, {}), headline, ceilings)


def scores_table(
    heading: str,
    part: str,
    scores: dict[str, float],
    headline: str = "",
    ceilings: dict[str, float] | None = None,
) -> Table:
    """Returns scores as a table.

    Args:
        heading: above it.
        part: `valid` or `test`.
        scores: by name, such as `ndcg@10`.
        headline: the metric whose share of the best possible ranker's is shown.
        ceilings: that ranker's scores.
    """
    by_place = {named(name): name for name in scores}
    cut_offs = sorted({k for _, k in by_place})
    columns = [Column(part, right=False), *(Column(f"@{k}" if k else "value") for k in cut_offs)]
    rows = []
    for metric in dict.fromkeys(metric for metric, _ in by_place):
        names = [by_place.get((metric, k), "") for k in cut_offs]
        rows.append([metric, *(_shown(name, scores.get(name)) for name in names)])
        if metric == headline and ceilings:
            rows.append(["  of ceiling", *(_share(scores.get(name), ceilings.get(name)) for name in names)])
    return Table(heading, columns, rows)


def cost_table(result: Result) -> Table:
    """Returns the figures of cost, one a line, with what each means."""
    cost, sample = result.cost, result.dataset.get("sample") or {}
    rows = [
        [
            "time in all",
            figures.seconds(cost.seconds_total),
            _all_of(result),
        ],
        ["time of an epoch", figures.seconds(cost.seconds_per_epoch), _epochs(result)],
        [
            "time to 95 %",
            figures.seconds(cost.seconds_to_95),
            "of the best validation score; training alone",
        ],
        ["beside it: data", figures.seconds(cost.seconds_data), "fetching, preparing, opening"],
        ["beside it: factors", figures.seconds(cost.seconds_factorise), _factors(result)],
        ["beside it: sample", figures.seconds(cost.seconds_sample), "drawing the rows to train on"],
        ["beside it: build", figures.seconds(cost.seconds_build), "getting ready to train"],
        ["beside it: test", figures.seconds(cost.seconds_test), "judging the test cases"],
        ["beside it: save", figures.seconds(cost.seconds_save), "writing weights and ids"],
        ["whole run", figures.seconds(cost.seconds_wall), "all of these together"],
        ["cache", figures.seconds(cost.seconds_cache), "made once, for every run that reads it"],
        ["energy", figures.joules(cost.joules), ""],
        ["peak memory", figures.memory(cost.peak_memory_bytes), cost.memory_kind],
        ["training state", figures.memory(_held(result)), _parts_held(result)],
        ["parameters", figures.count(cost.parameters.all), _parameters(result)],
        ["saved model", figures.memory(cost.model_bytes), ""],
        ["training rows", figures.count(cost.training_rows), ""],
        ["kept rows", figures.memory(sample.get("bytes_kept")), _of_all_rows(sample)],
        ["kept factors", figures.memory(cost.factor_bytes), "vectors of users and items"],
        ["forward pass", figures.MISSING, "of one sample"],
    ]
    if cost.flops_per_sample is not None:
        rows[-1][1] = f"{figures.count(cost.flops_per_sample)}FLOP"
    there = [row for row in rows if row[1] != figures.MISSING]
    return Table("cost", [Column("", right=False), Column(""), Column("", right=False)], there)


def _factors(result: Result) -> str:
    """Returns what fitting cost, and whom."""
    return "fitting them" if result.cost.seconds_factorise else "found, fitted by an earlier run"


def _held(result: Result) -> int | None:
    """Returns the bytes of all that a run trains with; None where it was not measured."""
    parts = state_bytes(result.cost, result.sparsity).values()
    return None if None in parts else sum(part for part in parts if part is not None)


def _parts_held(result: Result) -> str:
    parts = state_bytes(result.cost, result.sparsity)
    return ", ".join(f"{name} {figures.memory(part)}" for name, part in parts.items()) + ", as allocated"


def _of_all_rows(sample: dict[str, Any]) -> str:
    """Returns what the rows that a sample keeps are a part of."""
    kept, rows = (figures.count(sample.get(name)) for name in ("rows_kept", "rows"))
    return f"{kept} of {rows} rows; all of them {figures.memory(sample.get('bytes'))}"


def title(result: Result) -> str:
    """Returns one line that says what was run on what."""
    variant = as_words({key: value for key, value in settings_of(result).items() if key in HEADLINE})
    model = "" if result.model == "none" else f" · {result.model}"
    where = f"seed {result.seed} · {device_name(result)} · {result.precision}"
    return f"{result.method} {variant}".rstrip() + f"{model} · {result.dataset.get('name')} · {where}"


def next_commands(result: Result, folder: Path) -> list[str]:
    """Returns the commands that follow a finished run; only one that ranks the catalogue can recommend."""
    ranks = result.protocol.get("candidates") == FULL
    return [
        f"effrec compare {folder.parent}",
        f"effrec show {folder}",
        *([f"effrec recommend {folder} --user ID"] if ranks else []),
    ]


def named(name: str) -> tuple[str, int]:
    """Returns a metric's name without its cut-off, and that; 0 where it has none.

    `ndcg@10_cold`, of the cases with new items, is `ndcg_cold` at 10.
    """
    found = _CUT_OFF.search(name)
    return (name, 0) if found is None else (name[: found.start()] + name[found.end() :], int(found.group(1)))


_CUT_OFF = re.compile(r"@(\d+)")


def _shown(name: str, score: float | None) -> str:
    """Returns a score as text; numbers of cases are whole."""
    return figures.score(score) if score is None or not name.startswith("cases") else f"{score:,.0f}"


def _share(score: float | None, ceiling: float | None) -> str:
    return figures.share(score / ceiling if ceiling and score is not None else None)


def _epochs(result: Result) -> str:
    if result.cost.first_epoch_counted:
        return "the only one, warm-up included"
    return f"median of {result.cost.epochs - 1}, the first left out"


def _all_of(result: Result) -> str:
    """Returns what the time in all was spent on."""
    lost = f", {figures.seconds(result.cost.seconds_lost)} lost to a kill" if result.cost.seconds_lost else ""
    return (
        f"training and validating, {figures.seconds(result.cost.seconds_validation)} of it validating{lost}"
    )


def _parameters(result: Result) -> str:
    found = result.cost.parameters
    return f"{figures.count(found.trainable)} trainable, {figures.count(found.nonzero)} not zero"
