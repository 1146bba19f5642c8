"""How good a ranking is by how often training meets its users and its targets: deciles of the test cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.data.types import EvalCases, Int64, RecData
from effrec_cli.evaluation.blocks import distinct_targets
from effrec_cli.evaluation.metrics import ONE
from effrec_cli.evaluation.protocol import check_settings, cut_offs
from effrec_cli.schema import EvaluationConfig

TOLD = ("ndcg", "hr")
USUAL_K = 10
_GROUPS = 10
_CASES = 1 << 20
"""Cases whose targets are counted at once."""

ByFrequency = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Deciles:
    """Test cases in ten groups of as equal numbers as ties allow, from those of few training rows to many.

    Attributes:
        of: int8 [n], the group of each user (or item), 0 to 9; of one without a case it means nothing.
        cases: int64 [10], cases in each group; 0 where ties have left none to it.
        rows: (fewest, most) training rows of the users (items) whose cases a group holds; (0, 0) without.
    """

    of: NDArray[np.int8]
    cases: Int64
    rows: list[tuple[int, int]]


def deciles(rows: Int64, cases: Int64) -> Deciles:
    """Returns the groups of cases, ordered by training rows.

    All cases with one number of rows are in one group: that in which their middle lies.

    Args:
        rows: int64 [n], training rows of each user (or item).
        cases: int64 [n], how many cases are theirs.
    """
    at = np.bincount(rows, weights=cases).astype(np.int64)
    twice_middle = 2 * np.cumsum(at) - at
    group = np.minimum(_GROUPS * twice_middle // max(1, 2 * int(at.sum())), _GROUPS - 1)
    held = [np.flatnonzero((group == one) & (at > 0)) for one in range(_GROUPS)]
    return Deciles(
        of=group.astype(np.int8)[rows],
        cases=np.array([at[values].sum() for values in held], dtype=np.int64),
        rows=[(int(values[0]), int(values[-1])) if len(values) else (0, 0) for values in held],
    )


def tally_of(
    data: RecData, cases: EvalCases, settings: EvaluationConfig, device: torch.device
) -> Tally | None:
    """Returns what sums metrics by decile while `rank_cases` goes over `cases`; None without one of `TOLD`.

    Args:
        data: whose training rows count; those of a sample's parent, so that its runs share one table.
        cases: all that will be ranked, by all ranks.
        settings: what is measured.
        device: of the scores.

    Raises:
        ConfigError: unknown metric or cut-off.
    """
    check_settings(settings)
    names = [name for name in TOLD if name in settings.metrics]
    if not names:
        return None
    whole, (by_user, by_item) = data.unsampled(), _numbers(data, cases)
    users = deciles(whole.train_end - whole.train_start, by_user)
    return Tally(names, cut_offs(settings), users, deciles(whole.train_counts(), by_item), device)


def _numbers(data: RecData, cases: EvalCases) -> tuple[Int64, Int64]:
    """Returns how many cases each user has, int64 [U], and of how many each item is a target, int64 [V]."""
    users, items = np.zeros(data.num_users, np.int64), np.zeros(data.num_items, np.int64)
    for first in range(0, len(cases), _CASES):
        some = slice(first, first + _CASES)
        cells, _ = distinct_targets(data, cases, some)
        users += np.bincount(cases.users[some], minlength=len(users))
        items += np.bincount(cells % len(items), minlength=len(items))
    return users, items


class Tally:
    """Sums of metrics by decile, exact in whole numbers: any size of blocks and any ranks end with the same.

    Args:
        names: metrics out of `TOLD`.
        ks: all cut-offs, ascending; 10 is told, or the largest where it is missing.
        users: groups of cases by their user.
        items: groups of targets.
        device: of the lists.
    """

    def __init__(
        self, names: list[str], ks: list[int], users: Deciles, items: Deciles, device: torch.device
    ) -> None:
        self.names, self.users, self.items = names, users, items
        self.k = USUAL_K if USUAL_K in ks else ks[-1]
        self._cut_off = ks.index(self.k)
        self._groups = torch.arange(_GROUPS, device=device)
        self._of_user, self._of_item = (torch.from_numpy(one.of).to(device) for one in (users, items))
        self._sums = torch.zeros(_GROUPS, len(names), dtype=torch.int64, device=device)
        self._hits = torch.zeros(self.k, _GROUPS, dtype=torch.int64, device=device)

    def add(self, users: Tensor, items: Tensor, hits: Tensor, units: dict[str, Tensor]) -> None:
        """Adds the B cases of a block.

        Args:
            users: int64 [B].
            items: int64 [B, K], the lists; where nothing is listed any number.
            hits: bool [B, K], whether a target stands there.
            units: int64 [B, C] by metric, of each case at each cut-off, in units of 1 / `ONE`.
        """
        told = torch.stack([units[name][:, self._cut_off] for name in self.names], dim=1)
        member = self._of_user[users][:, None] == self._groups
        sums = (member[:, :, None] * told[:, None]).sum(0)
        group = self._of_item[items[:, : self.k].clamp(min=0)]
        found = (hits[:, : self.k, None] & (group[:, :, None] == self._groups)).sum(0)
        self._sums += sums
        self._hits[: len(found)] += found

    def reduce(self) -> None:
        """Joins the sums of all ranks."""
        torch.distributed.all_reduce(self._sums)
        torch.distributed.all_reduce(self._hits)

    def by_frequency(self) -> ByFrequency:
        """Returns `users` and `items`: a record for each group that has a case.

        Of users it is the mean over their cases. Of items each target counts as a case of its own: hit rate
        is the share of targets that were listed, NDCG the mean of log2(1 + place)^-1. That is the same where
        each case has one target.
        """
        hits = self._hits.T.double().cpu()
        discounts = 1 / torch.log2(1 + torch.arange(1, self.k + 1, dtype=torch.float64))
        of_items = {"ndcg": hits @ discounts, "hr": hits.sum(1)}
        return {
            "users": self._records(self.users, self._sums.double().cpu() / ONE),
            "items": self._records(self.items, torch.stack([of_items[name] for name in self.names], dim=1)),
        }

    def _records(self, groups: Deciles, sums: Tensor) -> list[dict[str, Any]]:
        told = [f"{name}@{self.k}" for name in self.names]
        return [
            {
                "decile": at + 1,
                "rows": list(groups.rows[at]),
                "cases": cases,
                **{name: total / cases for name, total in zip(told, sums[at].tolist(), strict=True)},
            }
            for at, cases in enumerate(groups.cases.tolist())
            if cases
        ]
