"""Settings of method pop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PopularityConfig:
    """Ranks items by how often the training data holds them.

    Attributes:
        name: always `pop`.
    """

    name: str = "pop"
