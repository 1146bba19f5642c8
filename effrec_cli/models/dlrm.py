"""DLRM: products of all vectors with each other, read by a network (Naumov et al. 2019)."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.attributes import AttributeTable
from effrec_cli.models.id_embeddings import IdEmbedding
from effrec_cli.models.pairs import PairModel, Parts, layers, products


class DLRM(PairModel):
    """Dense attributes through a network to a vector; products of all pairs of vectors; a network over them.

    Vectors are those of the ids (through a linear layer where they are not `dim` wide), one for each
    category, one for all flags of a side (the sum of the set flags'), one for an item's text, and the bottom
    network's z. The top network reads z and the products of each two different ones. Without dense
    attributes there is no z. The bottom network's first layer is split into what a user and what an item
    gives.

    Args:
        users: vectors of users' ids.
        items: vectors of items' ids.
        user_attributes: what is known of users beside them.
        item_attributes: likewise of items.
        dim: d, width of all vectors; None is that of users' ids.
        bottom: widths of the bottom network's hidden layers; at least one.
        top: likewise of the top network.
    """

    tasks: ClassVar[tuple[str, ...]] = ("top_n", "ctr")

    def __init__(
        self,
        users: IdEmbedding,
        items: IdEmbedding,
        user_attributes: AttributeTable,
        item_attributes: AttributeTable,
        *,
        dim: int | None = None,
        bottom: list[int],
        top: list[int],
    ) -> None:
        super().__init__()
        self.users, self.items = users, items
        self.dim = users.width if dim is None else dim
        self.user_vectors = Vectors(users.width, user_attributes, self.dim)
        self.item_vectors = Vectors(items.width, item_attributes, self.dim)
        self.split = user_attributes.widths[0]
        dense = self.split + item_attributes.widths[0]
        self.has_dense = dense > 0
        if self.has_dense:
            self.dense = nn.Linear(dense, bottom[0])
            self.bottom = layers([*bottom, self.dim])
        count = self.user_vectors.count + self.item_vectors.count + self.has_dense
        width = count * (count - 1) // 2 + self.dim * self.has_dense
        self.top = layers([width, *top, 1])

    def user_parts(self, users: Tensor, folded: Tensor | None = None) -> Parts:
        """Returns vectors [B, n, d], the products of each two [B, n (n - 1) / 2], the bottom's share."""
        vectors = self.user_vectors(self.users(users, folded), users)
        own = vectors, _pairwise(vectors)
        if not self.has_dense:
            return own
        dense = self.user_vectors.table.dense[users]
        return (*own, F.linear(dense, self.dense.weight[:, : self.split]))

    def item_parts(self, items: Tensor) -> Parts:
        """Returns the same of items."""
        vectors = self.item_vectors(self.items(items), items)
        own = vectors, _pairwise(vectors)
        if not self.has_dense:
            return own
        dense = self.item_vectors.table.dense[items]
        return (*own, F.linear(dense, self.dense.weight[:, self.split :], self.dense.bias))

    def combine(self, users: Parts, items: Parts) -> Tensor:
        """Returns what the top network makes of the products."""
        across = products(users[0], items[0]).flatten(2)
        read = [users[1][:, None].expand(*across.shape[:2], -1), items[1].expand(*across.shape[:2], -1)]
        read.append(across)
        if self.has_dense:
            z = self.bottom(torch.relu(users[2][:, None] + items[2]))
            read += [z, z @ users[0].transpose(1, 2), (items[0] @ z[..., None]).squeeze(-1)]
        return self.top(torch.cat(read, -1)).squeeze(-1)


class Vectors(nn.Module):
    """The vectors of one side, all of one width.

    Args:
        id_width: of the vectors of ids.
        table: the side's attributes.
        dim: d.

    Attributes:
        count: n, how many vectors a row has.
    """

    def __init__(self, id_width: int, table: AttributeTable, dim: int) -> None:
        super().__init__()
        self.table = table
        _, flags, texts = table.widths
        self.ids = nn.Identity() if id_width == dim else nn.Linear(id_width, dim, bias=False)
        self.embeddings = nn.ModuleList([nn.Embedding(size, dim) for size in table.sizes])
        for embedding in self.embeddings:
            nn.init.normal_(cast(nn.Embedding, embedding).weight, std=dim**-0.5)
        self.flags = nn.Linear(flags, dim, bias=False) if flags else None
        self.texts = nn.Linear(texts, dim, bias=False) if texts else None
        self.count = 1 + len(self.embeddings) + bool(flags) + bool(texts)

    def forward(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Returns the vectors [..., n, d] of rows int64 [...] whose ids' vectors are [..., id_width]."""
        categories = self.table.categories[rows].long()
        found = [self.ids(ids), *(embed(categories[..., at]) for at, embed in enumerate(self.embeddings))]
        if self.flags is not None:
            found.append(self.flags(self.table.flags[rows].to(ids.dtype)))
        if self.texts is not None:
            found.append(self.texts(self.table.texts[rows]))
        return torch.stack([each.to(ids.dtype) for each in found], -2)


def _pairwise(vectors: Tensor) -> Tensor:
    """Returns the products of each two different vectors, [..., n (n - 1) / 2], of vectors [..., n, d]."""
    count = vectors.shape[-2]
    first, second = torch.triu_indices(count, count, 1, device=vectors.device)
    return (vectors[..., first, :] * vectors[..., second, :]).sum(-1)
