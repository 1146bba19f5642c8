"""Settings of the two-tower network."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class TwoTowerConfig:
    """A user's and an item's vector, each from a network over id and attributes (papers/cadc section 1.2).

    Attributes:
        name: always `two_tower`.
        hidden: widths of a tower's hidden layers.
        dim: width of the vectors that are multiplied; None is that of the vectors of ids, which residual
            towers need.
        category_dim: width of the vectors of categories; less where a category has fewer values.
    """

    name: str = "two_tower"
    hidden: list[int] = setting([128], low=1)
    dim: int | None = setting(None, low=1)
    category_dim: int = setting(8, low=1)
