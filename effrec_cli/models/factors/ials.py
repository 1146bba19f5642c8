"""Implicit alternating least squares (Hu et al. 2008, as tuned by Rendle et al. 2021, arXiv 2110.14037)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from effrec_cli.models.factors.matrix import Interactions
from effrec_cli.models.factors.sides import Side, exact_side, plan_for
from effrec_cli.models.factors.spans import spans


@dataclass(frozen=True)
class Terms:
    """What the objective holds besides the cells' errors.

    Attributes:
        reg: lam, strength of the regulariser.
        unobserved_weight: a0, weight of every cell's square, met or not.
        frequency_exponent: nu; a row is held by (degree + a0 * columns)^nu.
    """

    reg: float
    unobserved_weight: float
    frequency_exponent: float

    def ridge(self, degrees: Tensor, num_columns: int, dtype: torch.dtype) -> Tensor:
        """Returns lam (degree + a0 * columns)^nu of rows with these degrees, [B]; 1 where that is 0."""
        size = degrees.to(torch.float64) + self.unobserved_weight * num_columns
        ridge = self.reg * size**self.frequency_exponent
        return torch.where(ridge > 0, ridge, 1.0).to(dtype)


class IALS:
    """A binary matrix as the product of two tables, every cell that is not there weighing a little.

    Minimises, by one side after the other (section 1.3 of the method's sheet; Rendle et al., eq. 3 and 5),

        sum over cells (1 - p_u q_i)^2 + a0 sum over all u, i (p_u q_i)^2
        + lam [sum_u (|I_u| + a0 V)^nu |p_u|^2 + sum_i (|U_i| + a0 U)^nu |q_i|^2].

    A side is solved in the axes of the other side's Gramian, in which a0 Q'Q is diagonal: rows of few cells
    are then solved in the space of their cells, and steps of `cg` and `blocks` leave the Gramian out.
    Rows without a cell are zero vectors. Values of `matrix` are not looked at.

    Args:
        matrix: [U, V], on the device to work on.
        dim: d.
        reg: lam.
        unobserved_weight: a0.
        frequency_exponent: nu.
        solver: `cholesky`, `cg`, `blocks`, or `auto` (see `Plan`).
        block: of `blocks`.
        cg_steps: of `cg`; None is 2 as far as d = 64, and 3 above.
        seed: of the vectors to begin with, N(0, 0.1 / sqrt(d)); drawn on the CPU on every device.
        chunk_bytes: working memory; None suits the device.
        dtype: of the tables and of all work on them.

    Attributes:
        users: [U, d].
        items: [V, d].
        plan: how rows are solved.
    """

    num_sweeps_useful: int | None = None

    def __init__(
        self,
        matrix: Interactions,
        *,
        dim: int = 64,
        reg: float = 0.01,
        unobserved_weight: float = 0.3,
        frequency_exponent: float = 1.0,
        solver: str = "auto",
        block: int = 64,
        cg_steps: int | None = None,
        seed: int = 0,
        chunk_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        device = matrix.columns.device
        self.terms = Terms(reg, unobserved_weight, frequency_exponent)
        self.plan = plan_for(solver, dim, device, block=block, cg_steps=cg_steps, chunk_bytes=chunk_bytes)
        self._matrix = Interactions(matrix.offsets, matrix.columns, matrix.num_columns)
        self._by_user = Side(self._matrix, dim, dtype, self.plan)
        self._by_item = Side(self._matrix.transposed(), dim, dtype, self.plan)
        self.users = first_vectors(self._by_user.degrees, dim, seed, dtype)
        self.items = first_vectors(self._by_item.degrees, dim, seed + 1, dtype)

    def sweep(self) -> None:
        """Solves for all users, then for all items.

        Raises:
            ConfigError: a system has no solution in this precision.
        """
        self.sweep_users()
        self.sweep_items()

    def sweep_users(self) -> None:
        """Solves for all users against the items."""
        self._solve(self._by_user, self.users, self.items)

    def sweep_items(self) -> None:
        """Solves for all items against the users."""
        self._solve(self._by_item, self.items, self.users)

    def fold_in(self, offsets: Tensor, columns: Tensor) -> Tensor:
        """Returns the vectors [B, d] of users with these items: an exact solve against the current items.

        Args:
            offsets: int64 [B + 1].
            columns: items int [n], repetitions counting once.
        """
        return fold(self.state(), offsets, columns)

    def fold_in_items(self, offsets: Tensor, columns: Tensor) -> Tensor:
        """Returns the vectors [B, d] of items that these users met: an exact solve against the users."""
        return fold({**self.state(), "items": self.users}, offsets, columns)

    def state(self) -> dict[str, Tensor]:
        """Returns `users`, `items` and what `fold` needs: `terms` float64 [3], lam, a0 and nu."""
        terms = torch.tensor(dataclasses.astuple(self.terms), dtype=torch.float64, device=self.users.device)
        return {"users": self.users, "items": self.items, "terms": terms}

    def objective(self) -> float:
        """Returns the objective in the class's docstring, summed in float64."""
        users, items = self.users.double(), self.items.double()
        every = ((users.T @ users) * (items.T @ items)).sum().item()
        total = self.terms.unobserved_weight * every + self._error()
        for side, table, other in ((self._by_user, users, items), (self._by_item, items, users)):
            ridge = self.terms.ridge(side.degrees, len(other), torch.float64)
            total += (ridge * table.square().sum(1)).sum().item()
        return total

    def _error(self) -> float:
        """Returns the sum over cells of (1 - score)^2."""
        dim, element, chunk = self.items.shape[1], self.items.element_size(), self.plan.chunk_bytes
        total = torch.zeros((), dtype=torch.float64, device=self.items.device)
        for span in spans(self._matrix, dim, element, chunk):
            error = 1 - span.predict(self.users[span.rows], self.items, chunk)
            total += error.square_().sum(dtype=torch.float64)
        return total.item()

    def _solve(self, side: Side, own: Tensor, other: Tensor) -> None:
        ridge = self.terms.ridge(side.degrees, len(other), own.dtype)
        side.solve(own, other, ridge, self.terms.unobserved_weight)


def fold(state: Mapping[str, Tensor], offsets: Tensor, columns: Tensor) -> Tensor:
    """Returns the vectors [B, d] of users with these items, solved for exactly.

    Args:
        state: `items` and `terms`, as of `IALS.state`.
        offsets: int64 [B + 1].
        columns: items int [n], repetitions counting once.
    """
    items, terms = state["items"], Terms(*state["terms"].tolist())
    matrix = Interactions.distinct(offsets, columns, len(items))
    side = exact_side(matrix, items)
    found = items.new_zeros(matrix.num_rows, items.shape[1])
    ridge = terms.ridge(side.degrees, len(items), items.dtype)
    side.solve(found, items, ridge, terms.unobserved_weight)
    return found


def first_vectors(degrees: Tensor, dim: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Returns vectors [N, d] from N(0, 0.1 / sqrt(d)) on the device of `degrees`; zero where these are 0."""
    drawn = torch.randn(len(degrees), dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    drawn *= 0.1 / dim**0.5
    return drawn.to(degrees.device).masked_fill_((degrees == 0)[:, None], 0)
