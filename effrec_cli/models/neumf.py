"""NeuMF: a weighed product of vectors beside a network over them (He et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from effrec_cli.models.attributes import AttributeTable, Joined
from effrec_cli.models.id_embeddings import IdEmbedding
from effrec_cli.models.pairs import PairModel, Parts, layers, products


class NeuMF(PairModel):
    """score = <h, p_u * q_i> + MLP([p'_u; a_u; q'_i; a_i]) (equations 9, 10 and 12, outputs not squashed).

    The network has vectors p', q' of its own beside those of the product (p, q), but for frozen ones, which
    both read. Attributes a join the network alone. Its first layer is split into what a user and what an item
    gives, each computed once for many pairs.

    Args:
        users: vectors of users' ids, as wide as those of items.
        items: vectors of items' ids.
        user_attributes: what is known of users beside them.
        item_attributes: likewise of items.
        hidden: widths of the network's hidden layers; at least one.
        category_dim: width of the vectors of categories.
    """

    tasks: ClassVar[tuple[str, ...]] = ("top_n", "ctr")

    def __init__(
        self,
        users: IdEmbedding,
        items: IdEmbedding,
        user_attributes: AttributeTable,
        item_attributes: AttributeTable,
        *,
        hidden: list[int],
        category_dim: int = 8,
    ) -> None:
        super().__init__()
        self.users, self.items = users, items
        self.network_users = users.twin() if users.trained else None
        self.network_items = items.twin() if items.trained else None
        self.user_attributes = Joined(user_attributes, category_dim)
        self.item_attributes = Joined(item_attributes, category_dim)
        self.user_layer = nn.Linear(users.width + self.user_attributes.width, hidden[0], bias=False)
        self.item_layer = nn.Linear(items.width + self.item_attributes.width, hidden[0])
        self.network = layers([*hidden, 1])
        self.product = nn.Parameter(torch.ones(users.width))

    def user_parts(self, users: Tensor, folded: Tensor | None = None) -> Parts:
        """Returns the weighed vector [B, d] and the first layer's share [B, hidden]."""
        vectors = self.users(users, folded)
        of_network = vectors if self.network_users is None else self.network_users(users, folded)
        read = torch.cat([of_network, self.user_attributes(users)], -1)
        return vectors * self.product, self.user_layer(read)

    def item_parts(self, items: Tensor) -> Parts:
        """Returns the vector and the first layer's share."""
        vectors = self.items(items)
        of_network = vectors if self.network_items is None else self.network_items(items)
        return vectors, self.item_layer(torch.cat([of_network, self.item_attributes(items)], -1))

    def combine(self, users: Parts, items: Parts) -> Tensor:
        """Returns product and network together."""
        product = products(users[0][:, None], items[0][:, :, None]).flatten(2).squeeze(-1)
        return product + self.network(torch.relu(users[1][:, None] + items[1])).squeeze(-1)
