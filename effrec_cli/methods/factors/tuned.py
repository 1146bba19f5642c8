"""What settings that are left open become: values that were tuned, by the size of the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effrec_cli.data.types import RecData

_LARGE_CATALOGUE, _MOST_WEIGHT = 15_000, 0.3


@dataclass(frozen=True)
class Size:
    """How large the training rows are.

    Attributes:
        users: U.
        items: V.
        rows: n.
    """

    users: int
    items: int
    rows: int

    @classmethod
    def of(cls, data: RecData) -> Size:
        """Returns the size of a dataset's training rows."""
        return cls(data.num_users, data.num_items, data.num_train)

    @property
    def density(self) -> float:
        """The share of cells that training has rows of, where no pair was met twice."""
        return self.rows / max(1, self.users * self.items)


def tuned(kind: str, size: Size) -> tuple[dict[str, Any], str]:
    """Returns the values of settings that are None, by name, and where they come from.

    iALS: the square root of the density is within a factor of two of the published unobserved_weight for
    ML-1M, ML-20M and MSD (papers/cadc 1.3; Pinterest's is 7 times lower), and of what was found good for
    MovieLens latest-small and npm's dependencies; reg falls with the catalogue in all of them.

    Args:
        kind: of factorisation.
        size: of the training rows.
    """
    if kind != "ials":
        return _OTHERS[kind], "tuned on MovieLens latest-small"
    weight = float(f"{min(_MOST_WEIGHT, size.density**0.5):.2g}") or _MOST_WEIGHT
    reg = 0.003 if size.items >= _LARGE_CATALOGUE else 0.01
    return _IALS | {"reg": reg, "unobserved_weight": weight}, "by the data's size"


_IALS = {"frequency_exponent": 1.0, "sweeps": 16, "validate_every": 1}
_OTHERS: dict[str, dict[str, Any]] = {
    "rsvd": {"item_exponent": 0.25},
    "bpr": {"reg": 0.03, "lr": 0.1, "sweeps": 100, "validate_every": 4},
    "explicit_als": {"reg": 15.0, "frequency_exponent": 0.0, "sweeps": 16, "validate_every": 1},
}
