"""What a prepared dataset is like, in numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.rows import counts
from effrec_cli.data.types import EvalCases, RecData

_QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


def describe(data: RecData) -> dict[str, Any]:
    """Returns sizes, distributions, the split and what was dropped; JSON-able.

    `duplicates` counts rows whose (user, item) was there before; `cold_targets` counts held-out rows of
    items that nobody trains on.
    """
    rows, users, items = data.num_interactions, data.num_users, data.num_items
    return {
        "name": data.name,
        "content_hash": data.content_hash,
        "folder": str(data.folder) if data.folder else None,
        "users": users,
        "items": items,
        "rows": rows,
        "density": rows / max(1, users * items),
        "rows_per_user": quantiles(np.diff(data.sequences.offsets)),
        "rows_per_item": quantiles(counts(data.sequences.items[:rows], items)),
        "duplicates": _duplicates(data),
        "time": _time_span(data),
        "rating": _ratings(data),
        "protocol": data.protocol,
        "sample": data.sample,
        "split": {
            "train_rows": data.num_train,
            "train_users": int(np.count_nonzero(data.train_end > data.train_start)),
            "valid": _part(data, data.valid),
            "test": _part(data, data.test),
            **data.stats.get("split", {}),
        },
        "rows_read": data.stats.get("rows_read"),
        "dropped": data.stats.get("dropped", {}),
        "reader": data.stats.get("reader", {}),
        "side": {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in data.side.items()},
        "ceiling": data.ceiling,
    }


def quantiles(values: NDArray[Any]) -> dict[str, float]:
    """Returns the mean and some quantiles; none of nothing."""
    if not len(values):
        return {}
    found = np.quantile(values, list(_QUANTILES.values()))
    return {"mean": float(np.mean(values)), **dict(zip(_QUANTILES, found.tolist(), strict=True))}


def _duplicates(data: RecData) -> int:
    """Returns how many rows repeat an item of the same user."""
    owner = np.repeat(np.arange(data.num_users, dtype=np.int64), np.diff(data.sequences.offsets))
    pairs = owner * data.num_items + data.sequences.items[: data.num_interactions]
    pairs.sort()
    return int(np.count_nonzero(pairs[1:] == pairs[:-1]))


def _ratings(data: RecData) -> dict[str, float] | None:
    ratings = data.sequences.ratings
    return None if ratings is None else quantiles(ratings[: data.num_interactions])


def _time_span(data: RecData) -> dict[str, Any] | None:
    times = data.sequences.times
    if times is None:
        return None
    low, high = int(times.min()), int(times.max())
    return {"first": _moment(low), "last": _moment(high), "days": (high - low) / 86400}


def _moment(seconds: int) -> str:
    """Returns a moment as UTC, or the number where it is no date a calendar knows."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _part(data: RecData, part: EvalCases) -> dict[str, Any]:
    """Returns the size of a part of the split, and what its cases are like."""
    if not len(part):
        return {"cases": 0, "targets": 0, "cold_targets": 0, "history": None}
    trained = data.train_counts() > 0
    sizes = part.target_end - part.target_start
    first = np.repeat(part.target_start - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    targets = data.sequences.items[first + np.arange(int(sizes.sum()))]
    return {
        "cases": len(part),
        "targets": len(targets),
        "cold_targets": int(np.count_nonzero(~trained[targets])),
        "history": quantiles(part.history_end - part.history_start),
    }
