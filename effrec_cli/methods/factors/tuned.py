"""What settings that are left open become: values that were tuned, by the number of training rows."""

from __future__ import annotations

from typing import Any

_SMALL, _MEDIUM = 500_000, 5_000_000


def tuned(kind: str, rows: int) -> tuple[dict[str, Any], str]:
    """Returns the values of settings that are None, by name, and what they were tuned on.

    iALS: papers/cadc 1.3, 3.2 and 4.3 for data like ML-1M and ML-20M, and the validation cases of
    ml-latest-small for less; all others on ml-latest-small alone.

    Args:
        kind: of factorisation.
        rows: training rows.
    """
    if kind != "ials":
        return _OTHERS[kind], _LATEST_SMALL
    if rows < _SMALL:
        return _IALS | {"reg": 0.01, "unobserved_weight": 0.1}, _LATEST_SMALL
    if rows < _MEDIUM:
        return _IALS | {"reg": 0.01, "unobserved_weight": 0.3}, "MovieLens 1M (papers/cadc)"
    return _IALS | {"reg": 0.003, "unobserved_weight": 0.1}, "MovieLens 20M (papers/cadc)"


_LATEST_SMALL = "MovieLens latest-small"
_IALS = {"frequency_exponent": 1.0, "sweeps": 16, "validate_every": 1}
_OTHERS: dict[str, dict[str, Any]] = {
    "rsvd": {"item_exponent": 0.25},
    "bpr": {"reg": 0.03, "lr": 0.1, "sweeps": 100, "validate_every": 4},
    "explicit_als": {"reg": 15.0, "frequency_exponent": 0.0, "sweeps": 16, "validate_every": 1},
}
