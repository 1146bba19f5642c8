"""Randomised singular value decomposition (Halko et al. 2011, algorithms 4.4 and 5.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from effrec_cli.models.factors.matrix import Interactions
from effrec_cli.models.factors.sides import chunk_bytes_for
from effrec_cli.models.factors.spans import Span, spans
from effrec_cli.models.factors.workers import single_threaded, spread


class RandomizedSVD:
    """The binary matrix X, its rows and columns scaled by their degrees, as the product of two thin tables.

    With M = D_u^-a X D_v^-b = U S V' cut at rank d, a user is x_u V, x_u being his row of M, and the items
    are D_v^b V (which undoes their scaling), so that scores estimate D_u^-a X. With a = b = 0 these are the
    U S and V of X itself. They are found in one sweep: a random range finder with `power_iterations`, made
    orthogonal after each product.

    Args:
        matrix: [U, V], on the device to work on; its values are not looked at.
        dim: d; more than U or V gives columns of zeros.
        user_exponent: a.
        item_exponent: b.
        power_iterations: products with M'M.
        oversampling: random directions beyond d.
        seed: of these; drawn on the CPU on every device.
        chunk_bytes: working memory besides the tables; None suits the device.
        dtype: of the tables and of all work on them.

    Attributes:
        users: [U, d], after `sweep`.
        items: [V, d], after `sweep`.
        singular_values: [d], descending, after `sweep`.
    """

    num_sweeps_useful: int | None = 1

    def __init__(
        self,
        matrix: Interactions,
        *,
        dim: int = 64,
        user_exponent: float = 0.5,
        item_exponent: float = 0.5,
        power_iterations: int = 3,
        oversampling: int = 10,
        seed: int = 0,
        chunk_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        device = matrix.columns.device
        self.dim, self.seed = dim, seed
        self.power_iterations, self.oversampling = power_iterations, oversampling
        self.chunk_bytes = chunk_bytes or chunk_bytes_for(device)
        by_item = matrix.transposed()
        self.user_exponent = user_exponent
        self._user_scale = _scale(matrix.degrees(), user_exponent, dtype)
        self._item_scale = _scale(by_item.degrees(), item_exponent, dtype)
        self._met = by_item.degrees() > 0
        self._by_user, self._by_item = self._spans(matrix, dtype), self._spans(by_item, dtype)
        self.users, self.items = (
            torch.zeros(len(scale), dim, dtype=dtype, device=device)
            for scale in (self._user_scale, self._item_scale)
        )
        self.singular_values = torch.zeros(dim, dtype=dtype, device=device)

    @torch.no_grad()
    def sweep(self) -> None:
        """Finds both tables; another sweep finds the same."""
        size = min(self.dim + self.oversampling, len(self.users), len(self.items))
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(self.items), size, generator=generator, dtype=self.items.dtype)
        basis = _orthogonal(self._from_items(drawn.to(self.items.device)))
        for _ in range(self.power_iterations):
            basis = _orthogonal(self._from_items(_orthogonal(self._from_users(basis))))
        right, values, _ = torch.linalg.svd(self._from_users(basis), full_matrices=False)
        rank = min(self.dim, size)
        right = right[:, :rank]
        self.singular_values[:rank] = values[:rank]
        self.users[:, :rank] = self._from_items(right)
        self.items[:, :rank] = torch.where(self._met, 1 / self._item_scale, 0.0)[:, None] * right

    def fold_in(self, offsets: Tensor, columns: Tensor) -> Tensor:
        """Returns the vectors [B, d] of users with these items; a training user's own items give his vector.

        Args:
            offsets: int64 [B + 1].
            columns: items int [n], repetitions counting once.
        """
        return fold(self.state(), offsets, columns)

    def state(self) -> dict[str, Tensor]:
        """Returns `users`, `items` and what `fold` needs: `squared_scale` [V], and `terms` float64 [1], a."""
        terms = torch.tensor([self.user_exponent], dtype=torch.float64, device=self.users.device)
        scale = self._item_scale.square()
        return {"users": self.users, "items": self.items, "squared_scale": scale, "terms": terms}

    def _spans(self, matrix: Interactions, dtype: torch.dtype) -> list[Span]:
        cells = Interactions(matrix.offsets, matrix.columns, matrix.num_columns)
        return spans(cells, self.dim, dtype.itemsize, self.chunk_bytes)

    def _from_items(self, table: Tensor) -> Tensor:
        """Returns M times a table [V, k]."""
        return _product(self._by_user, table * self._item_scale[:, None], self._user_scale)

    def _from_users(self, table: Tensor) -> Tensor:
        """Returns M' times a table [U, k]."""
        return _product(self._by_item, table * self._user_scale[:, None], self._item_scale)


def fold(state: Mapping[str, Tensor], offsets: Tensor, columns: Tensor) -> Tensor:
    """Returns the vectors [B, d] of users with these items.

    Args:
        state: `items`, `squared_scale` and `terms`, as of `RandomizedSVD.state`.
        offsets: int64 [B + 1].
        columns: items int [n], repetitions counting once.
    """
    items, exponent = state["items"], state["terms"].item()
    matrix = Interactions.distinct(offsets, columns, len(items))
    chunk = chunk_bytes_for(items.device)
    parts = spans(matrix, items.shape[1], items.element_size(), chunk)
    scale = _scale(matrix.degrees(), exponent, items.dtype)
    return _product(parts, items * state["squared_scale"][:, None], scale)


def _product(parts: list[Span], table: Tensor, scale: Tensor) -> Tensor:
    """Returns the sums over each row's cells of rows of `table`, times the row's scale, [N, k]."""
    found = table.new_empty(len(scale), table.shape[1])

    def work(span: Span) -> None:
        found[span.rows] = span.combine(None, table) * scale[span.rows, None]

    with single_threaded(table.device) as threads:
        spread(work, parts, threads)
    return found


def _scale(degrees: Tensor, exponent: float, dtype: torch.dtype) -> Tensor:
    """Returns degree^-exponent, 1 where there is no cell."""
    return degrees.clamp(min=1).to(dtype) ** -exponent


def _orthogonal(table: Tensor) -> Tensor:
    """Returns an orthonormal basis of the columns' span."""
    return torch.linalg.qr(table).Q
