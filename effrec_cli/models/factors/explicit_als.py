"""Alternating least squares on ratings (Zhou et al. 2008), with biases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from effrec_cli.models.factors.ials import Terms, first_vectors
from effrec_cli.models.factors.matrix import Interactions
from effrec_cli.models.factors.sides import Side, exact_side, plan_for
from effrec_cli.models.factors.spans import spans


class ExplicitALS:
    """Ratings as a mean, biases of users and items, and a product of vectors.

    Minimises sum over cells (r - mean - b_u - b_i - p_u q_i)^2 + lam [sum_u |I_u|^nu (|p_u|^2 + b_u^2) + the
    same of items]; nu = 1 is ALS-WR, and with nu = 0 few ratings say little. Biases are two of the d columns:
    a user's row is [p, 1, b] and an item's [q, b, 1], so that `users @ items.T` is the rating less the mean,
    and ranks as the rating does. A user or item without ratings has only zeros and the 1.

    Args:
        matrix: [U, V] with `values`, on the device to work on.
        dim: d, at least 3.
        reg: lam.
        frequency_exponent: nu.
        solver: as of `IALS`.
        block: of `blocks`.
        cg_steps: of `cg`; None is 2 as far as d = 64, and 3 above.
        seed: of the vectors to begin with.
        chunk_bytes: working memory; None suits the device.
        dtype: of the tables and of all work on them.

    Attributes:
        users: [U, d].
        items: [V, d].
        mean: of all ratings.
        liked: the rating that `fold_in` takes where none is told: a standard deviation above the mean.
    """

    num_sweeps_useful: int | None = None

    def __init__(
        self,
        matrix: Interactions,
        *,
        dim: int = 64,
        reg: float = 15.0,
        frequency_exponent: float = 0.0,
        solver: str = "auto",
        block: int = 64,
        cg_steps: int | None = None,
        seed: int = 0,
        chunk_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if matrix.values is None:
            raise TypeError("ExplicitALS needs a matrix with values")
        wide = matrix.values.double()
        self.mean = float(wide.mean()) if len(wide) else 0.0
        self.liked = self.mean + (float(wide.std(correction=0)) if len(wide) else 0.0)
        device = matrix.columns.device
        self.terms = Terms(reg, 0.0, frequency_exponent)
        self.plan = plan_for(solver, dim, device, block=block, cg_steps=cg_steps, chunk_bytes=chunk_bytes)
        self._matrix = dataclasses.replace(matrix, values=(wide - self.mean).to(dtype))
        self._by_user = Side(self._matrix, dim - 1, dtype, self.plan)
        self._by_item = Side(self._matrix.transposed(), dim - 1, dtype, self.plan)
        users = first_vectors(self._by_user.degrees, dim - 2, seed, dtype)
        items = first_vectors(self._by_item.degrees, dim - 2, seed + 1, dtype)
        self.users = torch.cat([users, users.new_ones(len(users), 1), users.new_zeros(len(users), 1)], 1)
        self.items = torch.cat([items, items.new_zeros(len(items), 1), items.new_ones(len(items), 1)], 1)

    def sweep(self) -> None:
        """Solves for all users, then for all items.

        Raises:
            ConfigError: a system has no solution in this precision.
        """
        self.sweep_users()
        self.sweep_items()

    def sweep_users(self) -> None:
        """Solves for the vectors and biases of all users."""
        solve_free(self._by_user, self.users, self.items, -1, self.terms)

    def sweep_items(self) -> None:
        """Solves for the vectors and biases of all items."""
        solve_free(self._by_item, self.items, self.users, -2, self.terms)

    def fold_in(self, offsets: Tensor, columns: Tensor, values: Tensor | None = None) -> Tensor:
        """Returns the vectors [B, d] of users with these items: an exact solve against the current items.

        Args:
            offsets: int64 [B + 1].
            columns: items int [n]; the last of repetitions counts.
            values: ratings [n]; `liked` where none are told.
        """
        return fold(self.state(), offsets, columns, values)

    def state(self) -> dict[str, Tensor]:
        """Returns `users`, `items` and what `fold` needs: `terms` float64 [4], lam, nu, mean and liked."""
        told = (self.terms.reg, self.terms.frequency_exponent, self.mean, self.liked)
        terms = torch.tensor(told, dtype=torch.float64, device=self.users.device)
        return {"users": self.users, "items": self.items, "terms": terms}

    def objective(self) -> float:
        """Returns the objective in the class's docstring, summed in float64."""
        dim, element, chunk = self.items.shape[1], self.items.element_size(), self.plan.chunk_bytes
        total = 0.0
        for span in spans(self._matrix, dim, element, chunk):
            assert span.values is not None
            error = span.values - span.predict(self.users[span.rows], self.items, chunk)
            total += error.square().sum(dtype=torch.float64).item()
        for side, table in ((self._by_user, self.users), (self._by_item, self.items)):
            ridge = self.terms.ridge(side.degrees, 0, torch.float64)
            total += (ridge * (table.double().square().sum(1) - 1)).sum().item()
        return total


def fold(
    state: Mapping[str, Tensor], offsets: Tensor, columns: Tensor, values: Tensor | None = None
) -> Tensor:
    """Returns the vectors [B, d] of users with these items, solved for exactly.

    Args:
        state: `items` and `terms`, as of `ExplicitALS.state`.
        offsets: int64 [B + 1].
        columns: items int [n]; the last of repetitions counts.
        values: ratings [n]; `liked` where none are told.
    """
    items, (reg, exponent, mean, liked) = state["items"], state["terms"].tolist()
    told = items.new_full(columns.shape, liked) if values is None else values.to(items.dtype)
    matrix = Interactions.distinct(offsets, columns, len(items), told - mean)
    side = exact_side(matrix, items[:, :-1])
    found = items.new_zeros(matrix.num_rows, items.shape[1])
    found[:, -2] = 1
    solve_free(side, found, items, -1, Terms(reg, 0.0, exponent))
    return found


def solve_free(side: Side, own: Tensor, other: Tensor, own_bias: int, terms: Terms) -> None:
    """Solves for all columns of `own` but that of ones; the other side's bias is taken off the targets.

    Args:
        side: the rows of `own`.
        own: [N, d].
        other: [M, d].
        own_bias: the column of `own` that holds its bias, -1 or -2; the other side has its own in the other.
        terms: of the objective.
    """
    columns = [*range(own.shape[1] - 2), own.shape[1] + own_bias]
    free, other_bias = own[:, columns], other[:, -3 - own_bias].contiguous()
    ridge = terms.ridge(side.degrees, 0, own.dtype)
    side.solve(free, other[:, columns], ridge, offset=other_bias)
    own[:, columns] = free
