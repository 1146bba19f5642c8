"""Two towers: a user's and an item's vector, each from a network of its own, and their product."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from effrec_cli.models.attributes import AttributeTable, Joined
from effrec_cli.models.id_embeddings import SD, IdEmbedding
from effrec_cli.models.pairs import PairModel, Parts, layers, products


class TwoTower(PairModel):
    """score = <g(x_u), h(x_i)> + b, x a vector of the id joined by attributes (papers/cadc section 1.2).

    With `residual` g(x) = p + MLP(x), p the vector of the id and the last layer zero at first: the ranking
    starts as that of the vectors themselves, to the bit. Scale and bias of the score are learned.

    Args:
        users: vectors of users' ids.
        items: vectors of items' ids.
        user_attributes: what is known of users beside them.
        item_attributes: likewise of items.
        hidden: widths of a tower's hidden layers.
        dim: width of the vectors that are multiplied; None is that of users' ids, as in residual towers.
        category_dim: width of the vectors of categories.
        residual: whether towers add to the vectors of ids.
    """

    has_vectors: ClassVar[bool] = True

    def __init__(
        self,
        users: IdEmbedding,
        items: IdEmbedding,
        user_attributes: AttributeTable,
        item_attributes: AttributeTable,
        *,
        hidden: list[int],
        dim: int | None = None,
        category_dim: int = 8,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.users, self.items, self.residual = users, items, residual
        self.user_attributes = Joined(user_attributes, category_dim)
        self.item_attributes = Joined(item_attributes, category_dim)
        width = users.width if dim is None else dim
        self.user_tower = layers([users.width + self.user_attributes.width, *hidden, width])
        self.item_tower = layers([items.width + self.item_attributes.width, *hidden, width])
        self.bias = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(())) if residual else None
        if residual:
            self._start_at_the_ids()

    def _start_at_the_ids(self) -> None:
        """Makes the last layers zero, and scores of about standard deviation 1."""
        for tower in (self.user_tower, self.item_tower):
            for weights in tower[-1].parameters():
                nn.init.zeros_(weights)
        assert self.log_scale is not None
        nn.init.constant_(self.log_scale, -math.log(SD * SD * math.sqrt(self.users.width)))

    def user_vectors(self, users: Tensor, folded: Tensor | None = None) -> Tensor:
        """Returns users' vectors [B, D], the score's scale not in them; arguments as of `user_parts`."""
        ids = self.users(users, folded)
        made = self.user_tower(torch.cat([ids, self.user_attributes(users)], -1))
        return ids + made if self.residual else made

    def item_vectors(self, items: Tensor) -> Tensor:
        """Returns items' vectors [..., D] for items int64 [...]."""
        ids = self.items(items)
        made = self.item_tower(torch.cat([ids, self.item_attributes(items)], -1))
        return ids + made if self.residual else made

    @property
    def scale(self) -> Tensor | float:
        """What products of vectors are multiplied by."""
        return 1.0 if self.log_scale is None else self.log_scale.exp()

    def user_parts(self, users: Tensor, folded: Tensor | None = None) -> Parts:
        """Returns the users' vectors."""
        return (self.user_vectors(users, folded),)

    def item_parts(self, items: Tensor) -> Parts:
        """Returns the items' vectors."""
        return (self.item_vectors(items),)

    def combine(self, users: Parts, items: Parts) -> Tensor:
        """Returns the products of vectors, scaled, and the bias added."""
        found = products(users[0][:, None], items[0][:, :, None]).flatten(2).squeeze(-1)
        return found * self.scale + self.bias
