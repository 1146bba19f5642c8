"""The stamp that says how a number was measured, and the settings that are allowed."""

from __future__ import annotations

from typing import Any

from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError, unknown_name
from effrec_cli.schema import EvaluationConfig
from effrec_cli.schema.protocols import FULL

TIE_RULE = "score descending, then murmur3 finalizer of the item row ascending"
METRICS = ("ndcg", "hr", "recall", "mrr", "map", "precision", "coverage", "surprisal")


def protocol_of(data: RecData, settings: EvaluationConfig) -> dict[str, Any]:
    """Returns the stamp of a ranking result; two results compare only when their stamps are equal.

    Raises:
        ConfigError: as `check_settings`.
    """
    check_settings(settings)
    return {
        "split": dict(data.protocol),
        "candidates": FULL,
        "seen": settings.seen,
        "ties": TIE_RULE,
        "ks": cut_offs(settings),
        "metrics": list(settings.metrics),
    }


def cut_offs(settings: EvaluationConfig) -> list[int]:
    """Returns the distinct cut-offs, ascending."""
    return sorted(set(settings.ks))


def check_settings(settings: EvaluationConfig) -> None:
    """Refuses metrics that do not exist and cut-offs below 1.

    Raises:
        ConfigError: with the nearest valid name.
    """
    if not settings.metrics or not settings.ks:
        raise ConfigError("There is nothing to measure.", where="evaluation.metrics, evaluation.ks")
    for name in settings.metrics:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS, where="evaluation.metrics")
    if min(settings.ks) < 1:
        raise ConfigError("A cut-off is at least 1.", where=f"evaluation.ks={list(settings.ks)}")
