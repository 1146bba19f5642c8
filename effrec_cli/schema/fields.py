"""Field helpers: what values a setting may take, kept beside the setting."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(
    default: Any,
    *,
    choices: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """Returns a dataclass field with a default and the values that `schema.check` will accept.

    Args:
        default: the value when nothing is given; a list is copied for each instance.
        choices: the only strings allowed.
        low: smallest number allowed.
        high: largest number allowed.
        above: number the value must be larger than.
    """
    metadata = {"choices": choices, "low": low, "high": high, "above": above}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
