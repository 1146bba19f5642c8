"""The ids of a problem's negatives, drawn or given, a few rows at a time.

Layouts beside the uniform one of `rng.py`; j counts all N slots in each:

- popularity: Philox block b serves j = 2b and 2b+1 with its words (w0, w1) and (w2, w3). The pair's first
  word w gives column (w V) >> 32 of the alias table; the column's own id if the second word is below its
  threshold, else its alias. Columns differ by a share of at most V / 2^32, which `log_q` accounts for;
- block: the runs k = j // 64 are drawn as uniform ids among ceil(V / 64); the id is 64 run + j % 64. One that
  is V or more is no item: an unused slot;
- in_batch: the first slots. The counter's word 2 has its top bit flipped, word j % 4 of block j // 4 serves
  j; position (w M) >> 32 of the problem's M rows, and that row's target, or an unused slot without one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import group_keys, negatives_of
from .problem import RUN, Problem, num_runs
from .rng import MASK, Key, Mapping, Words, fill, multiply_high, one_word, uniform

IN_BATCH_FLAG = 0x80000000
NO_ITEM = -1


def fill_ids(problem: Problem, at: Tensor, out: Tensor) -> None:
    """Writes the ids of the rows at positions `at` into `out` (int32 or int64 [m, N], any strides).

    A number outside of the rows of `problem.items` stands for an unused slot.
    """
    if problem.negatives is not None:
        out.copy_(problem.negatives.index_select(0, negatives_of(problem, at))).sub_(problem.first_item)
        return
    key, groups = Key.of(problem.state), group_keys(problem, at)
    if problem.sampler == "block":
        _fill_runs(problem, groups, key, out)
    else:
        fill(out, groups, key, _mapping(problem))
    if problem.first_item:
        out.sub_(problem.first_item)
    if problem.in_batch:
        _fill_in_batch(problem, groups, key, out[:, : problem.in_batch])


def _mapping(problem: Problem) -> Mapping:
    if problem.sampler == "uniform":
        return uniform(problem.num_items)
    assert problem.thresholds is not None
    assert problem.alias is not None
    return popular(problem.thresholds, problem.alias)


def popular(thresholds: Tensor, alias: Tensor) -> Mapping:
    """Returns the mapping to ids drawn from an alias table, int32 [V] each."""

    def choose(choice: Tensor, coin: Tensor) -> Tensor:
        column = multiply_high(choice, len(alias))
        flat = column.flatten()
        threshold = thresholds.index_select(0, flat).view_as(column).long() & MASK
        return torch.where(coin < threshold, column, alias.index_select(0, flat).view_as(column))

    def ids(words: Words) -> list[Tensor]:
        return [choose(*words[:2]), choose(*words[2:])]

    return Mapping(2, ids)


def _fill_runs(problem: Problem, groups: Tensor, key: Key, out: Tensor) -> None:
    """Writes runs of consecutive ids, the last of each row perhaps in part."""
    width = out.shape[1]
    runs = torch.empty(len(groups), -(-width // RUN), dtype=torch.int64, device=groups.device)
    fill(runs, groups, key, uniform(num_runs(problem.num_items)))
    ids = runs.mul_(RUN)[:, :, None] + torch.arange(RUN, device=runs.device)
    out.copy_(ids.flatten(1)[:, :width])


def _fill_in_batch(problem: Problem, groups: Tensor, key: Key, out: Tensor) -> None:
    """Writes targets of rows drawn from all of the problem's."""
    positions = torch.empty(out.shape, dtype=torch.int64, device=groups.device)
    fill(positions, groups, key, one_word(len(problem.targets)), flag=IN_BATCH_FLAG)
    targets = problem.targets.masked_fill(~problem.has_target, NO_ITEM)
    out.copy_(targets.index_select(0, positions.flatten()).view_as(positions))
