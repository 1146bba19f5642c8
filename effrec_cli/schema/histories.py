"""Whether a run can rank for users whom training never saw."""

from __future__ import annotations

from collections.abc import Iterator

from effrec_cli.schema.method_cadc import CADCConfig
from effrec_cli.schema.method_dsl import OF_USERS, DSLConfig
from effrec_cli.schema.problems import Problem
from effrec_cli.schema.protocols import task_of
from effrec_cli.schema.root import Config

ANOTHER = "model=multvae with method=dsl, a sequence model, or method=ials"
"""What makes users of their histories."""


def reads_histories(config: Config) -> bool:
    """Returns whether a user is made of a history; else of a vector that was trained for the user's id."""
    own = config.method
    if isinstance(own, DSLConfig):
        return getattr(config.model, "name", None) in OF_USERS or task_of(config) == "next_item"
    return not isinstance(own, CADCConfig) or own.embedding != "rand" or task_of(config) != "top_n"


def strong_problems(config: Config) -> Iterator[Problem]:
    """Yields a split whose users training never sees, where nobody is made of a history."""
    if config.dataset.split.kind == "strong" and not reads_histories(config):
        what = (
            "The cases of split.kind=strong are of users whom training never sees, and this run knows "
            "users by vectors that it trains for their ids."
        )
        yield Problem("dataset.split.kind", what, fix=f"dataset.split.kind=random, or {ANOTHER}")
