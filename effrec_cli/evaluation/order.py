"""The one total order in which items are ranked, and the exact top of it.

An item stands before another when its score is higher, or when the scores are equal and its tie key is
smaller. The tie key is a fixed mix of the item's row number, so that neither popularity nor the order of ids
helps a model whose scores tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from effrec_cli.errors import NonFiniteError

NOTHING = -1
"""Stands in a list where fewer than k items could be recommended."""
_WORD = 0xFFFFFFFF


def tie_keys(num_items: int) -> Tensor:
    """Returns a distinct 32-bit key for each item row, int64 [num_items] (MurmurHash3's finalizer)."""
    key = torch.arange(num_items, dtype=torch.int64)
    key = ((key ^ (key >> 16)) * 0x85EBCA6B) & _WORD
    key = ((key ^ (key >> 13)) * 0xC2B2AE35) & _WORD
    return key ^ (key >> 16)


def tie_ranks(num_items: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns each item's place in the order of tie keys, float [num_items]: what `best` breaks ties by."""
    exact = torch.float32 if num_items < 1 << 24 else torch.float64
    ranks = torch.empty(num_items, dtype=exact)
    ranks[tie_keys(num_items).argsort()] = torch.arange(num_items, dtype=exact)
    return ranks.to(device)


def exclude(scores: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Returns `scores` [B, V] with -inf at the cells (rows[i], items[i]); their memory is written to."""
    return scores.contiguous().index_put_((rows, items), scores.new_tensor(-math.inf))


def best(scores: Tensor, k: int, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first k items of each row in the total order, and their scores.

    Rows are not sorted: a lower bound on each row's k-th score comes from the maxima of groups of columns,
    and only cells that reach it are looked at again. Items with score -inf are never listed.

    Args:
        scores: float [B, V].
        k: length of the lists; at most V items are listed.
        ranks: float [V] from `tie_ranks`, on the device of `scores`.

    Returns:
        items int64 [B, min(k, V)], filled up with -1, and their scores [B, min(k, V)], filled up with -inf.

    Raises:
        NonFiniteError: a score is NaN.
    """
    k = min(k, scores.shape[1])
    row, column = _contenders(scores, k, ranks)
    columns = _padded(row, column, len(scores), k)
    real = columns != NOTHING
    at = columns.clamp(min=0)
    values = scores.gather(1, at).masked_fill(~real, -math.inf)
    by_key = ranks[at].argsort(dim=1)
    by_score = values.gather(1, by_key).argsort(dim=1, descending=True, stable=True)
    order = by_key.gather(1, by_score)[:, :k]
    return columns.gather(1, order), values.gather(1, order)


def _contenders(scores: Tensor, k: int, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns rows and columns of cells among which each row's first k are, by row."""
    maxima = _group_maxima(scores, _group_width(scores.shape[1], k))
    if bool(maxima.isnan().any()):
        raise NonFiniteError("The model gave a score that is not a number.", where="ranking the catalogue")
    # k groups reach the floor, so k cells do, unless fewer than that are finite.
    floor = maxima.topk(k, dim=1).values[:, -1:].clamp(min=torch.finfo(scores.dtype).min)
    row, group = (maxima >= floor).nonzero(as_tuple=True)
    if len(row) <= 2 * k * len(scores):
        return _cells(scores, row, group, maxima.shape[1], torch.ge, floor)
    # Very many ties at the floor: of those only the first k by key can be listed. Keys are distinct, so that
    # the second call does not come here.
    row, group = (maxima > floor).nonzero(as_tuple=True)
    above = _cells(scores, row, group, maxima.shape[1], torch.gt, floor)
    tied = _contenders(torch.where(scores == floor, -ranks, -math.inf), k, ranks)
    rows, order = torch.cat([above[0], tied[0]]).sort(stable=True)
    return rows, torch.cat([above[1], tied[1]])[order]


def _cells(
    scores: Tensor,
    row: Tensor,
    group: Tensor,
    num_groups: int,
    passes: Callable[[Tensor, Tensor], Tensor],
    floor: Tensor,
) -> tuple[Tensor, Tensor]:
    """Returns rows and columns of the cells in these groups whose score passes the row's floor."""
    width = -(-scores.shape[1] // num_groups)
    columns = group[:, None] + num_groups * torch.arange(width, device=scores.device)
    cells = scores[row[:, None], columns.clamp(max=scores.shape[1] - 1)]
    keep = (columns < scores.shape[1]) & passes(cells, floor[row])
    return row[:, None].expand_as(keep)[keep], columns[keep]


def _group_width(num_items: int, k: int) -> int:
    """Returns how many columns share a maximum: about what balances the passes; 1 when k is not small."""
    if num_items < 16 * k:
        return 1
    return int(min(2 * math.sqrt(num_items / k), math.sqrt(num_items)))


def _group_maxima(scores: Tensor, width: int) -> Tensor:
    """Returns the maxima [B, n] of n groups of columns; group g holds columns g, g + n, g + 2n ..."""
    if width == 1:
        return scores
    num_groups = -(-scores.shape[1] // width)
    full = (width - 1) * num_groups
    maxima = scores[:, :full].unflatten(1, (width - 1, num_groups)).amax(1)
    rest = scores.shape[1] - full
    maxima[:, :rest] = torch.maximum(maxima[:, :rest], scores[:, full:])
    return maxima


def _padded(row: Tensor, column: Tensor, num_rows: int, at_least: int) -> Tensor:
    """Returns each row's columns, left-aligned, int64 [num_rows, at_least or more], filled up with -1."""
    counts = torch.bincount(row, minlength=num_rows)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(row), device=row.device) - starts[row]
    longest = max(at_least, int(counts.max()) if num_rows else 0)
    padded = row.new_full((num_rows, longest), NOTHING)
    padded[row, place] = column
    return padded
