"""Learning curves from metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effrec_cli.report.figures import sparkline

_PLACE = ("kind", "step", "epoch", "elapsed_s")


def read_curve(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Returns the records of one kind (`train` or `valid`) of a run, in order of steps.

    A line cut short, as a run that was just killed leaves one, is passed over.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("kind") == kind:
            found.append(record)
    return found


def curve_lines(folder: Path, monitor: str | None = None) -> list[str]:
    """Returns the loss and the monitored metric of a run, a line of bars each; none where there is no curve.

    Args:
        folder: the run.
        monitor: the validation metric; None, or one that was not measured, takes the first that was.
    """
    valid = read_curve(folder, "valid")
    measured = [name for name in (valid[0] if valid else {}) if name not in _PLACE]
    name = monitor if monitor in measured else next(iter(measured), "")
    lines = [_line("loss", read_curve(folder, "train"), "loss"), _line(f"valid {name}", valid, name)]
    return [line for line in lines if line]


def _line(label: str, records: list[dict[str, Any]], key: str) -> str:
    values = [float(record[key]) for record in records if isinstance(record.get(key), int | float)]
    if not values:
        return ""
    return f"{label:<16} {sparkline(values)}  {values[0]:.4g} → {values[-1]:.4g}"
