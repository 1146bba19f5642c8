"""The leaderboard as data for programs: JSON and csv."""

from __future__ import annotations

import csv
import io
from operator import attrgetter
from typing import Any

from effrec_cli.report import figures
from effrec_cli.report.compare import Board, Comparison, Entry
from effrec_cli.report.settings import as_words


def as_records(comparison: Comparison) -> dict[str, Any]:
    """Returns everything as JSON-able data: what `effrec compare --json` prints."""
    return {
        "tables": [_board(board) for board in comparison.boards],
        "unfinished": [
            {"run": str(run.folder), "state": run.status.state, "step": run.status.step, "why": run.why}
            for run in comparison.unfinished
        ],
        "copies": [{"run": str(copy), "of": str(original)} for copy, original in comparison.copies],
    }


def as_csv(comparison: Comparison) -> str:
    """Returns one csv line for each entry of all boards, with every metric's mean and standard deviation."""
    lines = [_line(board, row) for board in as_records(comparison)["tables"] for row in board["rows"]]
    text = io.StringIO()
    columns = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _board(board: Board) -> dict[str, Any]:
    return {
        "dataset": board.dataset,
        "content_hash": board.content_hash,
        "protocol": board.protocol,
        "metric": board.metric,
        "rows": [_row(entry, board.metric) for entry in board.entries],
        "notes": board.notes,
    }


def _row(entry: Entry, metric: str) -> dict[str, Any]:
    names = dict.fromkeys(name for result in entry.results for name in result.metrics.get("test", {}))
    scores = {name: entry.scores(name) for name in names}
    return {
        "method": entry.first.method,
        "model": entry.first.model,
        "settings": entry.settings,
        "seeds": entry.seeds,
        "runs": [str(run.folder) for run in entry.runs],
        "metrics": {
            name: {"mean": figures.mean(values), "std": figures.deviation(values)}
            for name, values in scores.items()
        },
        "ceiling_share": entry.ceiling_share(metric),
        "cost": _cost(entry),
        "tpme": entry.tpme,
        "tpme_with_cache": entry.tpme_with_cache,
        "seconds_with_factors": entry.seconds_with_factors,
    }


def _cost(entry: Entry) -> dict[str, Any]:
    """Returns the mean of every figure of cost over the entry's runs, under the names of result.json."""
    found = {name: entry.cost(attrgetter(f"cost.{name}")) for name in _FIGURES}
    parameters = {
        f"parameters_{name}": entry.cost(attrgetter(f"cost.parameters.{name}"))
        for name in ("all", "trainable", "nonzero")
    }
    return {**found, **parameters, "memory_kind": entry.first.cost.memory_kind}


_FIGURES = (
    "seconds_total",
    "seconds_per_epoch",
    "seconds_to_95",
    "seconds_validation",
    "seconds_data",
    "seconds_factorise",
    "seconds_sample",
    "seconds_build",
    "seconds_test",
    "seconds_save",
    "seconds_wall",
    "seconds_cache",
    "factor_bytes",
    "joules",
    "peak_memory_bytes",
    "model_bytes",
    "weights_bytes",
    "gradient_bytes",
    "optimizer_bytes",
    "training_rows",
    "flops_per_sample",
)


def _line(board: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    line = {
        "dataset": board["dataset"],
        "content_hash": board["content_hash"],
        "method": row["method"],
        "model": row["model"],
        "settings": as_words(row["settings"]),
        "seeds": " ".join(map(str, row["seeds"])),
    }
    for name, figure in row["metrics"].items():
        line |= {name: figure["mean"], f"{name} std": figure["std"]}
    tpme = {name: row[name] for name in ("tpme", "tpme_with_cache", "seconds_with_factors")}
    return {**line, "ceiling_share": row["ceiling_share"], **row["cost"], **tpme}
