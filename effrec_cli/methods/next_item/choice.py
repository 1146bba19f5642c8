"""A setting that was left to the method: what it became, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", str, bool)


@dataclass(frozen=True)
class Choice(Generic[T]):
    """What was chosen.

    Attributes:
        value: of the setting.
        why: in one line that begins with the value.
    """

    value: T
    why: str

    def kept(self, before: T | None) -> Choice[T]:
        """Returns the choice of a run that goes on, which chose `before` when it began; None: it begins."""
        if before is None or before == self.value:
            return self
        written = before if isinstance(before, str) else str(before).lower()
        return Choice(before, f"{written}, as the run began; chosen here: {self.why}")
