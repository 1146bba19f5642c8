"""Full ranking of the catalogue for evaluation cases, a block of users at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effrec_cli.data.types import EvalCases, RecData
from effrec_cli.errors import DataError, OutOfMemoryError
from effrec_cli.evaluation.blocks import Block, block_rows, make_block, rows_of
from effrec_cli.evaluation.metrics import ONE, PER_CASE, Lists, item_information
from effrec_cli.evaluation.order import NOTHING, best, exclude, tie_ranks
from effrec_cli.evaluation.protocol import check_settings, cut_offs, protocol_of
from effrec_cli.evaluation.scorer import Scorer
from effrec_cli.schema import EvaluationConfig

if TYPE_CHECKING:
    from effrec_cli.distributed import World
    from effrec_cli.evaluation.deciles import Tally

__all__ = ["protocol_of", "rank_block", "rank_cases"]


@torch.no_grad()
def rank_cases(
    scorer: Scorer,
    data: RecData,
    cases: EvalCases,
    settings: EvaluationConfig,
    *,
    world: World | None = None,
    tally: Tally | None = None,
) -> dict[str, float]:
    """Returns the mean over `cases` of every metric at every cut-off, such as {"ndcg@10": 0.04}.

    Each case ranks the whole catalogue, in the total order of `evaluation.order`. With `seen: exclude` items
    of the history cannot be listed, so a target among them is a miss (as papers/iisan section 5.3 does). With
    `exclude_but_target` those of them that are targets of the case can, and compete with what the history
    does not hold. With `keep` all can, and a target also competes with the others. `coverage@k` is the number
    of distinct items in all lists over the size of the catalogue. With a `world` of several ranks each takes
    its share of the cases and all get the same numbers. A `tally` made for these cases sums them by decile.

    Raises:
        ConfigError: unknown metric or cut-off.
        DataError: there are no cases.
        NonFiniteError: a score is NaN.
        OutOfMemoryError: not even one case fits in the device's memory.
    """
    check_settings(settings)
    if not len(cases):
        raise DataError("There is no case to evaluate.", fix="loosen dataset.filter, or use another split")
    sums = _Sums(data, settings, scorer.device, tally)
    mine = cases if world is None else cases[world.rank :: world.size]
    rows = settings.block_rows or block_rows(scorer.num_items, scorer.device)
    first = 0
    while first < len(mine):
        try:
            block = make_block(data, mine, slice(first, first + rows), scorer.device)
            sums.add(block, rank_block(scorer, block, settings, sums.depth, sums.ranks))
            first += rows
        except torch.OutOfMemoryError as error:
            rows = _fewer(rows, scorer, error)
    if world is not None and world.size > 1:
        sums.reduce()
    return sums.means(len(cases))


def rank_block(scorer: Scorer, block: Block, settings: EvaluationConfig, depth: int, ranks: Tensor) -> Tensor:
    """Returns the items that each case of `block` is recommended, int64 [B, min(depth, V)], -1 for none."""
    scores = scorer.score(block.users, block.histories)
    if settings.seen != "keep":
        scores = _without_seen(scores, block, but_targets=settings.seen == "exclude_but_target")
    return best(scores, depth, ranks)[0]


def _without_seen(scores: Tensor, block: Block, *, but_targets: bool) -> Tensor:
    """Returns `scores` with -inf for the items of histories; their memory is written to.

    Args:
        scores: float [B, V].
        block: the B cases.
        but_targets: leave the scores of targets as they are.
    """
    seen = rows_of(block.histories), block.histories.items
    if not but_targets:
        return exclude(scores, *seen)
    targets = block.targets // scores.shape[1], block.targets % scores.shape[1]
    kept = scores[targets]
    return exclude(scores, *seen).index_put_(targets, kept)


def _fewer(rows: int, scorer: Scorer, error: torch.OutOfMemoryError) -> int:
    """Returns half of `rows`, or raises when a single row did not fit."""
    if rows == 1:
        raise OutOfMemoryError(
            f"Scoring one user against {scorer.num_items:,} items does not fit in memory.",
            where=str(scorer.device),
            fix="run.device=cpu",
        ) from error
    torch.cuda.empty_cache()
    return rows // 2


class _Sums:
    """Running sums of all metrics over cases.

    Attributes:
        depth: length of the lists that the cut-offs need.
        ranks: the tie order on the device.
    """

    def __init__(
        self, data: RecData, settings: EvaluationConfig, device: torch.device, tally: Tally | None
    ) -> None:
        self.tally = tally
        self.ks = torch.tensor(cut_offs(settings), device=device)
        self.depth = max(settings.ks)
        self.names = list(settings.metrics)
        self.num_items = data.num_items
        self.ranks = tie_ranks(data.num_items, device)
        self.information: Tensor | None = None
        if "surprisal" in self.names:
            self.information = torch.from_numpy(item_information(data)).to(device)
        per_case = [name for name in self.names if name in PER_CASE]
        self.sums = {name: torch.zeros(len(self.ks), dtype=torch.int64, device=device) for name in per_case}
        # The best place at which an item has stood in any list; the last entry is for empty places.
        self.best_place = torch.full((data.num_items + 1,), self.depth, dtype=torch.int64, device=device)

    def add(self, block: Block, items: Tensor) -> None:
        """Judges the lists int64 [B, K] of a block and adds them up."""
        lists = self._judge(block, items)
        units = {name: (PER_CASE[name](lists) * ONE).round().long() for name in self.sums}
        added = {name: each.sum(0) for name, each in units.items()}
        if "coverage" in self.names:
            places = torch.arange(items.shape[1], device=items.device).expand_as(items)
            slots = items.flatten() % len(self.best_place)
            self.best_place.scatter_reduce_(0, slots, places.flatten(), "amin")
        # What may run out of memory comes before what would then be added twice.
        if self.tally is not None:
            self.tally.add(block.users, items, lists.hits, units)
        for name, total in self.sums.items():
            total += added[name]

    def _judge(self, block: Block, items: Tensor) -> Lists:
        shown = items != NOTHING
        row = torch.arange(len(items), device=items.device)[:, None]
        cells = row * self.num_items + items.clamp(min=0)
        at = torch.searchsorted(block.targets, cells).clamp(max=len(block.targets) - 1)
        hits = shown & (block.targets[at] == cells)
        known = None if self.information is None else self.information[items.clamp(min=0)]
        return Lists(hits, shown, block.relevant, known, self.ks)

    def reduce(self) -> None:
        """Joins the sums of all ranks."""
        for total in self.sums.values():
            torch.distributed.all_reduce(total)
        torch.distributed.all_reduce(self.best_place, torch.distributed.ReduceOp.MIN)
        if self.tally is not None:
            self.tally.reduce()

    def means(self, num_cases: int) -> dict[str, float]:
        """Returns every metric by its key, in the order of the settings."""
        found = {name: (total.double() / ONE / num_cases).tolist() for name, total in self.sums.items()}
        if "coverage" in self.names:
            listed = (self.best_place[:-1, None] < self.ks).sum(0)
            found["coverage"] = (listed.double() / self.num_items).tolist()
        return {
            f"{name}@{k}": value
            for name in self.names
            for k, value in zip(self.ks.tolist(), found[name], strict=True)
        }
