"""Ranking by the products of users' and items' vectors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from effrec_cli.evaluation.blocks import rows_of
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.models.factors.kinds import FOLDS


class FactorScorer:
    """Scores by users' vectors, stored or made of histories; implements `Scorer`.

    Args:
        kind: of factorisation.
        state: `users` [U, d], `items` [V, d], `seen` bool [U] (whether training saw the user), and what
            folding in needs.
        fold_all: make all vectors of histories; else of users alone that training never saw.
        last: only so many last items of a history count; None for all.
    """

    def __init__(
        self, kind: str, state: Mapping[str, Tensor], *, fold_all: bool = False, last: int | None = None
    ) -> None:
        self.state, self.fold, self.fold_all, self.last = state, FOLDS[kind], fold_all, last
        self.num_items, self.device = len(state["items"]), state["items"].device

    @torch.no_grad()
    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns products float32 [B, V]."""
        with torch.autocast(self.device.type, enabled=False):
            return self._vectors(users, histories) @ self.state["items"].T

    def _vectors(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns the users' vectors, [B, d]."""
        seen = (users >= 0) & (users < len(self.state["users"])) & (not self.fold_all)
        known = users.where(seen, 0)
        if len(self.state["users"]):
            seen = seen & self.state["seen"][known].bool()
        if bool(seen.all()):
            return self.state["users"][known]
        missing = (~seen).nonzero()[:, 0]
        some = _only(histories, missing)
        some = some if self.last is None else latest(some, self.last)
        found = self.fold(self.state, some.offsets, some.items)
        stored = self.state["items"].new_zeros(len(users), found.shape[1])
        stored[seen] = self.state["users"][users[seen]]
        stored[missing] = found
        return stored


def _only(histories: Histories, which: Tensor) -> Histories:
    """Returns the histories of some rows, int64 [m]."""
    lengths = histories.offsets.diff()[which]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    owner = torch.repeat_interleave(lengths)
    at = torch.arange(len(owner), device=owner.device) + (histories.offsets[which] - offsets[:-1])[owner]
    return Histories(histories.items[at], offsets)


def latest(histories: Histories, length: int) -> Histories:
    """Returns each history's last `length` items."""
    row = rows_of(histories)
    ends = histories.offsets[1:][row]
    near = torch.arange(len(row), device=row.device) >= ends - length
    lengths = histories.offsets.diff().clamp(max=length)
    return Histories(histories.items[near], torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))
