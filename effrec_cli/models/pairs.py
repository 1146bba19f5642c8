"""What networks share that score a user with an item: what is made of either once, and what of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from effrec_cli.models.id_embeddings import IdEmbedding

Parts = tuple[Tensor, ...]


class PairModel(nn.Module, ABC):
    """Base of the models of task `top_n`.

    A catalogue is scored for many users, so what depends on a user alone, or on an item alone, is made once
    for each (`user_parts`, `item_parts`), and `combine` does the rest for every pair.

    Attributes:
        tasks: the training tasks that can feed it.
        has_vectors: whether a score is the product of a user's and an item's vector.
        users: vectors of users' ids.
        items: vectors of items' ids.
    """

    tasks: ClassVar[tuple[str, ...]] = ("top_n",)
    has_vectors: ClassVar[bool] = False
    users: IdEmbedding
    items: IdEmbedding

    @abstractmethod
    def user_parts(self, users: Tensor, folded: Tensor | None = None) -> Parts:
        """Returns what depends on the user alone, each [B, ...].

        Args:
            users: int64 [B], -1 for one that training never saw.
            folded: float [B, d] vectors for those; None where there are none.
        """

    @abstractmethod
    def item_parts(self, items: Tensor) -> Parts:
        """Returns what depends on the item alone, each [*items.shape, ...], for items int64 [...]."""

    @abstractmethod
    def combine(self, users: Parts, items: Parts) -> Tensor:
        """Returns logits [B, C] of users' parts [B, ...] with items' parts [B, C, ...] or [1, C, ...]."""

    def forward(self, users: Tensor, items: Tensor, folded: Tensor | None = None) -> Tensor:
        """Returns logits [B, C] of users int64 [B] with items int64 [B, C]; `folded` as in `user_parts`."""
        return self.combine(self.user_parts(users, folded), self.item_parts(items))


def products(users: Tensor, items: Tensor) -> Tensor:
    """Returns the scalar products [B, C, m, n] of users' vectors [B, n, d] with items' [B or 1, C, m, d].

    One matrix product where all users are set against the same items.
    """
    if items.shape[0] == 1:
        return torch.einsum("bnd,cmd->bcmn", users, items[0])
    return torch.einsum("bnd,bcmd->bcmn", users, items)


def layers(widths: list[int]) -> nn.Sequential:
    """Returns linear layers of these widths, a ReLU behind each but the last."""
    made: list[nn.Module] = []
    for before, after in pairwise(widths):
        made += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*made[:-1])
