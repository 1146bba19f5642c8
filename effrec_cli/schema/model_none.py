"""Settings of a method without a network: none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NoModelConfig:
    """Only the name.

    Attributes:
        name: always `none`.
    """

    name: str = "none"
