"""Settings of method itemknn."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class ItemKNNConfig:
    """Cosine similarity between items over users, the nearest few kept.

    Attributes:
        name: always `itemknn`.
        num_neighbors: similar items kept for each item.
        shrink: added to the cosine's denominator; larger trusts rare items less.
        last: only the last so many items of a history vote; None lets all vote.
    """

    name: str = "itemknn"
    num_neighbors: int = setting(20, low=1)
    shrink: float = setting(2.0, low=0)
    last: int | None = setting(2, low=1)
