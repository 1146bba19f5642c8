"""Networks that tell the probability of a label from a row: ids, numbers and categories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effrec_cli.models.id_embeddings import IdEmbedding
from effrec_cli.models.pairs import layers


class Categories(nn.Module):
    """A learned vector for each value of each column, in one table.

    Args:
        cardinalities: values of each column.
        dim: width of a vector.
    """

    firsts: Tensor

    def __init__(self, cardinalities: Sequence[int], dim: int) -> None:
        super().__init__()
        self.count = len(cardinalities)
        sizes = torch.tensor([0, *cardinalities], dtype=torch.int64)
        self.register_buffer("firsts", sizes.cumsum(0)[:-1])
        self.table = nn.Embedding(sum(cardinalities), dim)
        nn.init.normal_(self.table.weight, std=dim**-0.5)

    def forward(self, categories: Tensor) -> Tensor:
        """Returns the vectors float32 [B, C, dim] of numbers int64 [B, C]."""
        found: Tensor = self.table(categories + self.firsts)
        return found


class ClickModel(nn.Module, ABC):
    """Base of the networks of task ctr.

    Args:
        ids: vectors of users' and items' ids; none where rows name nobody.
    """

    network: nn.Sequential

    def __init__(self, ids: Sequence[IdEmbedding]) -> None:
        super().__init__()
        self.ids = nn.ModuleList(ids)

    def id_vectors(self, ids: Tensor) -> list[Tensor]:
        """Returns the vectors [B, width] of users and items int64 [B, 2]; zeros for -1."""
        return [_known(embed, ids[:, at]) for at, embed in enumerate(self.ids)]

    @abstractmethod
    def forward(self, ids: Tensor, dense: Tensor, categories: Tensor) -> Tensor:
        """Returns logits [B] of rows with ids int64 [B, 2 or 0], numbers [B, F], categories int64 [B, C]."""

    def start_at(self, logit: float) -> None:
        """Lets the network say `logit` of every row, but for what its weights are drawn to say."""
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, logit)


class RowDLRM(ClickModel):
    """DLRM over rows: a network over z and the products of all vectors (Naumov et al. 2019).

    Vectors are z, which a network makes of the numbers, and those of ids, through a linear layer where they
    are not `dim` wide, and of categories. Without numbers there is no z.

    Args:
        ids: vectors of users' and items' ids, or none.
        num_dense: F.
        cardinalities: values of each category.
        dim: width of all vectors; None is that of ids, or `usual` without any.
        usual: see `dim`.
        bottom: widths of the hidden layers over numbers; at least one.
        top: likewise over products.
    """

    def __init__(
        self,
        ids: Sequence[IdEmbedding],
        num_dense: int,
        cardinalities: Sequence[int],
        *,
        dim: int | None = None,
        usual: int = 16,
        bottom: list[int],
        top: list[int],
    ) -> None:
        super().__init__(ids)
        width = dim or (ids[0].table.shape[1] if ids else usual)
        self.adapters = nn.ModuleList(
            nn.Identity() if each.width == width else nn.Linear(each.width, width, bias=False) for each in ids
        )
        self.categories = Categories(cardinalities, width) if cardinalities else None
        self.bottom = layers([num_dense, *bottom, width]) if num_dense else None
        count = len(ids) + len(cardinalities) + bool(num_dense)
        self.network = layers([count * (count - 1) // 2 + width * bool(num_dense), *top, 1])

    def forward(self, ids: Tensor, dense: Tensor, categories: Tensor) -> Tensor:
        """Returns logits, as of `ClickModel`."""
        pairs = zip(self.adapters, self.id_vectors(ids), strict=True)
        vectors = [adapt(each)[:, None] for adapt, each in pairs]
        if self.categories is not None:
            vectors.append(self.categories(categories))
        read = []
        if self.bottom is not None:
            z = self.bottom(dense)
            vectors.append(z[:, None].to(vectors[0].dtype) if vectors else z[:, None])
            read.append(z)
        every = torch.cat(vectors, 1)
        first, second = torch.triu_indices(every.shape[1], every.shape[1], 1, device=every.device)
        products = (every @ every.transpose(1, 2))[:, first, second]
        logits: Tensor = self.network(torch.cat([*read, products.to(every.dtype)], 1)).squeeze(-1)
        return logits


class RowNeuMF(ClickModel):
    """NeuMF over rows (He et al. 2017): a weighed product of the ids' vectors beside a network over all.

    The network has vectors of ids of its own, but for frozen ones, which both read.

    Args:
        ids: vectors of users' and items' ids, of one width.
        num_dense: F.
        cardinalities: values of each category.
        hidden: widths of the network's hidden layers; at least one.
        category_dim: width of the vectors of categories.
    """

    def __init__(
        self,
        ids: Sequence[IdEmbedding],
        num_dense: int,
        cardinalities: Sequence[int],
        *,
        hidden: list[int],
        category_dim: int = 8,
    ) -> None:
        super().__init__(ids)
        self.twins = nn.ModuleList(each.twin() for each in ids if each.trained)
        self.categories = Categories(cardinalities, category_dim) if cardinalities else None
        width = sum(each.width for each in ids) + num_dense + len(cardinalities) * category_dim
        self.network = layers([width, *hidden, 1])
        self.product = nn.Parameter(torch.ones(ids[0].width))

    def forward(self, ids: Tensor, dense: Tensor, categories: Tensor) -> Tensor:
        """Returns logits, as of `ClickModel`."""
        users, items = self.id_vectors(ids)
        own = [_known(embed, ids[:, at]) for at, embed in enumerate(self.twins)] or [users, items]
        read = [*own, dense]
        if self.categories is not None:
            read.append(self.categories(categories).flatten(1))
        product = (users * items) @ self.product
        logits: Tensor = product + self.network(torch.cat(read, 1)).squeeze(-1)
        return logits


def _known(embed: nn.Module, rows: Tensor) -> Tensor:
    """Returns the vectors [B, width] of rows int64 [B], zeros for -1."""
    found: Tensor = embed(rows.clamp(min=0))
    return found * (rows >= 0)[:, None]
