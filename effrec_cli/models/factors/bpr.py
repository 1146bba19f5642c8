"""Bayesian personalised ranking (Rendle et al. 2009): a cell that is there before one that is not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from effrec_cli.models.factors.matrix import Interactions

_FOLD_STEPS = 30
_EPS = 1e-8


class BPR:
    """Vectors whose products rank a user's items before others, by stochastic gradients.

    Minimises -ln sigmoid(p_u q_i - p_u q_j) over cells (u, i) and items j drawn uniformly, with L2 on the
    rows that take part. An item's bias is the last of the d columns, in which every user has 1. A draw that
    the user has met counts for nothing. Steps are those of Adagrad with one rate a row: the gradients of a
    batch's repeated rows are added up, and popular items do not run away.

    Args:
        matrix: [U, V], on the device to work on, columns ascending in each row; values are not looked at.
        dim: d, at least 2.
        reg: strength of L2, for each time a row takes part.
        lr: learning rate.
        batch_size: cells a step.
        seed: of the vectors to begin with, of the order and of the draws, all of them made on the CPU.
        dtype: of the tables.

    Attributes:
        users: [U, d].
        items: [V, d].
    """

    num_sweeps_useful: int | None = None

    def __init__(
        self,
        matrix: Interactions,
        *,
        dim: int = 64,
        reg: float = 0.01,
        lr: float = 0.1,
        batch_size: int = 4096,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        device = matrix.columns.device
        self.reg, self.lr, self.batch_size = reg, lr, batch_size
        self._draw = torch.Generator().manual_seed(seed)
        self._rows = matrix.rows()
        self._columns = matrix.columns.long()
        self._cells = self._rows * matrix.num_columns + self._columns
        self.users = self._first(matrix.num_rows, dim, dtype, device)
        self.items = self._first(matrix.num_columns, dim, dtype, device)
        self.users[:, -1], self.items[:, -1] = 1, 0
        self._user_squares = torch.zeros(matrix.num_rows, 1, dtype=dtype, device=device)
        self._item_squares = torch.zeros(matrix.num_columns, 1, dtype=dtype, device=device)

    def _first(self, rows: int, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        drawn = torch.randn(rows, dim, generator=self._draw, dtype=dtype)
        return drawn.mul_(0.1 / dim**0.5).to(device)

    @torch.no_grad()
    def sweep(self) -> None:
        """Goes over all cells once, in a new order, with new draws."""
        order = torch.randperm(len(self._cells), generator=self._draw)
        for cells in order.split(self.batch_size):
            self._step(cells.to(self._cells.device))

    def fold_in(self, offsets: Tensor, columns: Tensor) -> Tensor:
        """Returns the vectors [B, d] of users with these items: gradient steps against the current items.

        Args:
            offsets: int64 [B + 1].
            columns: items int [n], repetitions counting once.
        """
        return fold(self.state(), offsets, columns)

    def state(self) -> dict[str, Tensor]:
        """Returns `users`, `items` and what `fold` needs: `terms` float64 [2], reg and lr."""
        terms = torch.tensor([self.reg, self.lr], dtype=torch.float64, device=self.users.device)
        return {"users": self.users, "items": self.items, "terms": terms}

    def _step(self, at: Tensor) -> None:
        rows, items = self._rows[at], self._columns[at]
        others = torch.randint(len(self.items), (len(at),), generator=self._draw).to(at.device)
        own, apart = self.users[rows], self.items[items] - self.items[others]
        met = _met(self._cells, rows * len(self.items) + others)
        slope = _slope(own, apart, met)
        both = torch.cat([items, others])
        pull = torch.cat([slope * own, -slope * own]) - self.reg * self.items[both]
        move(self.users, self._user_squares, rows, _user_slope(slope, apart, own, self.reg), self.lr)
        move(self.items, self._item_squares, both, pull, self.lr)


@torch.no_grad()
def fold(state: Mapping[str, Tensor], offsets: Tensor, columns: Tensor) -> Tensor:
    """Returns the vectors [B, d] of users with these items, after some gradient steps over all of them.

    What is drawn beside an item is a function of it and of the step, so that company changes no vector.

    Args:
        state: `items` and `terms`, as of `BPR.state`.
        offsets: int64 [B + 1].
        columns: items int [n], repetitions counting once.
    """
    items, (reg, lr) = state["items"], state["terms"].tolist()
    matrix = Interactions.distinct(offsets, columns, len(items))
    rows, own = matrix.rows(), matrix.columns.long()
    cells = rows * len(items) + own
    users = items.new_zeros(matrix.num_rows, items.shape[1])
    users[:, -1] = 1
    squares = torch.zeros_like(users[:, :1])
    for step in range(_FOLD_STEPS):
        others = _beside(own, step, len(items))
        apart = items[own] - items[others]
        slope = _slope(users[rows], apart, _met(cells, rows * len(items) + others))
        move(users, squares, rows, _user_slope(slope, apart, users[rows], reg), lr)
    return users


def _beside(own: Tensor, step: int, num_items: int) -> Tensor:
    """Returns an item for each of some items, int64 like `own`, mixed by the finaliser of MurmurHash3."""
    word = 0xFFFFFFFF
    key = (own * 0x9E3779B1 + (step + 1) * 0x7FEB352D) & word
    key = ((key ^ (key >> 16)) * 0x85EBCA6B) & word
    key = ((key ^ (key >> 13)) * 0xC2B2AE35) & word
    return (key ^ (key >> 16)) % num_items


def _met(cells: Tensor, drawn: Tensor) -> Tensor:
    """Returns whether each drawn cell is among `cells`, which ascend."""
    at = torch.searchsorted(cells, drawn).clamp_(max=max(0, len(cells) - 1))
    return cells[at] == drawn


def _slope(own: Tensor, apart: Tensor, met: Tensor) -> Tensor:
    """Returns how far each pair is from its order, [n, 1]; 0 for draws that were met.

    Args:
        own: the users' vectors [n, d].
        apart: what their item has over the drawn one, [n, d].
        met: whether the drawn one is theirs, too, [n].
    """
    return torch.sigmoid(-(own * apart).sum(1)).masked_fill_(met, 0)[:, None]


def _user_slope(slope: Tensor, apart: Tensor, own: Tensor, reg: float) -> Tensor:
    """Returns which way users go, [n, d]; their 1 stays."""
    found = slope * apart - reg * own
    found[:, -1] = 0
    return found


def move(table: Tensor, squares: Tensor, rows: Tensor, slopes: Tensor, lr: float) -> None:
    """Moves rows of a table along the sums of their slopes, by Adagrad with one rate a row.

    Args:
        table: [N, d].
        squares: [N, 1], sums so far.
        rows: int64 [n], with repetitions.
        slopes: [n, d].
        lr: learning rate.
    """
    touched, place = rows.unique(return_inverse=True)
    total = slopes.new_zeros(len(touched), slopes.shape[1]).index_add_(0, place, slopes)
    sums = squares[touched] + total.square().mean(1, keepdim=True)
    squares[touched] = sums
    table[touched] += lr * total / (sums + _EPS).sqrt()
