"""The factorisations by name: what makes one, and what makes a vector of a user it never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from effrec_cli.models.factors import bpr, explicit_als, ials, rsvd

Fold = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]


class Factors(Protocol):
    """User and item vectors that sweeps improve; a score is the product of two of them.

    Attributes:
        users: [U, d].
        items: [V, d].
        num_sweeps_useful: sweeps after which nothing changes, or None.
    """

    users: Tensor
    items: Tensor
    num_sweeps_useful: int | None

    def sweep(self) -> None:
        """Improves both tables in place."""

    def fold_in(self, offsets: Tensor, columns: Tensor) -> Tensor:
        """Returns the vectors [B, d] of users with these items."""

    def state(self) -> dict[str, Tensor]:
        """Returns `users`, `items` and all that folding in needs."""


MAKERS: dict[str, Callable[..., Any]] = {
    "ials": ials.IALS,
    "rsvd": rsvd.RandomizedSVD,
    "bpr": bpr.BPR,
    "explicit_als": explicit_als.ExplicitALS,
}
FOLDS: dict[str, Fold] = {
    "ials": ials.fold,
    "rsvd": rsvd.fold,
    "bpr": bpr.fold,
    "explicit_als": explicit_als.fold,
}
