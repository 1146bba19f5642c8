"""Which rows share their negatives, and the number that a group draws with.

The generator's counter holds a row's global number; where rows share negatives it holds their group's:

- `row`: each row is a group of its own, numbered as itself;
- `tile`: row r belongs to group (r // (T S)) S + r % S, T rows that are S apart. With S no less than the
  longest sequence they come from different sequences. T = 1 draws what `row` draws;
- `sequence`: rows boundaries[g] .. boundaries[g+1]; the group has the global number of its first row, so that
  ranks and micro-batches that number their rows through have groups of their own without more ado;
- `batch`: all rows, number 0, in every rank and micro-batch: the whole step is one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .problem import Problem


def row_numbers(problem: Problem, at: Tensor) -> Tensor:
    """Returns the global numbers of the rows at positions `at`, int64 [m]."""
    return at + problem.row_start if problem.rows is None else problem.rows.index_select(0, at)


def group_keys(problem: Problem, at: Tensor) -> Tensor:
    """Returns the group numbers of the rows at positions `at`, int64 [m]: what they draw with."""
    if problem.sharing == "batch":
        return torch.zeros_like(at)
    if problem.sharing == "sequence":
        assert problem.boundaries is not None
        return problem.boundaries.index_select(0, sequence_of(problem, at)) + problem.row_start
    rows = row_numbers(problem, at)
    return rows if problem.sharing == "row" else _tile_of(problem, rows)


def negatives_of(problem: Problem, at: Tensor) -> Tensor:
    """Returns which rows of the given `negatives` the rows at positions `at` have, int64 [m].

    Tiles are counted from the first that the stretch of T S rows around the first row holds.
    """
    if problem.sharing == "row":
        return at
    if problem.sharing == "batch":
        return torch.zeros_like(at)
    if problem.sharing == "sequence":
        return sequence_of(problem, at)
    return group_keys(problem, at) - first_tile(problem.row_start, problem.tile_rows, problem.tile_stride)


def sequence_of(problem: Problem, at: Tensor) -> Tensor:
    """Returns the sequences that hold the rows at positions `at`; rows outside have no target."""
    assert problem.boundaries is not None
    found = torch.searchsorted(problem.boundaries, at, right=True) - 1
    return found.clamp_(0, max(len(problem.boundaries) - 2, 0))


def first_tile(row_start: int, tile_rows: int, stride: int) -> int:
    """Returns the lowest group number in the stretch of T S rows that holds row `row_start`."""
    return row_start // (tile_rows * stride) * stride


def num_tiles(row_start: int, num_rows: int, tile_rows: int, stride: int) -> int:
    """Returns how many sets of negatives M rows from `row_start` on need, counted from `first_tile`."""
    if num_rows == 0:
        return 0
    # Not divmod, which compiled graphs cannot trace.
    last = row_start + num_rows - 1
    stretch, place = last // (tile_rows * stride), last % (tile_rows * stride)
    return stretch * stride + min(place, stride - 1) + 1 - first_tile(row_start, tile_rows, stride)


def num_sets(
    num_rows: int, row_start: int, sharing: str, boundaries: Tensor | None, tile_rows: int, tile_stride: int
) -> int:
    """Returns how many sets of negatives M rows have, as `negatives_of` counts them.

    Arguments are those of a `Problem`; there is one set a row where `sharing` is `row`.
    """
    if sharing == "row":
        return num_rows
    if sharing == "batch":
        return 1
    if sharing == "sequence":
        assert boundaries is not None
        return len(boundaries) - 1
    return num_tiles(row_start, num_rows, tile_rows, tile_stride)


def num_groups(problem: Problem) -> int:
    """Returns how many sets of negatives a problem has, as `negatives_of` counts them."""
    shared = problem.sharing, problem.boundaries, problem.tile_rows, problem.tile_stride
    return num_sets(len(problem.targets), problem.row_start, *shared)


def rows_of_groups(problem: Problem) -> float:
    """Returns how many rows a group has on average, as far as the host knows."""
    if problem.sharing == "tile" and problem.rows is not None:
        return problem.tile_rows
    return len(problem.targets) / max(1, num_groups(problem))


def _tile_of(problem: Problem, rows: Tensor) -> Tensor:
    stride = problem.tile_stride
    return rows.div(problem.tile_rows * stride, rounding_mode="floor") * stride + rows % stride


@dataclass(frozen=True)
class Grouped:
    """Rows put so that those of one group stand together, larger groups first.

    Attributes:
        at: int64 [m], positions in the batch.
        sizes: rows of each group, falling.
    """

    at: Tensor
    sizes: list[int]


def grouped(problem: Problem, at: Tensor) -> Grouped:
    """Returns the rows at positions `at` by group; sizes fall, so that padding a few groups costs little."""
    keys, order = group_keys(problem, at).sort(stable=True)
    _, inverse, counts = keys.unique_consecutive(return_inverse=True, return_counts=True)
    by_size = counts.index_select(0, inverse).argsort(stable=True, descending=True)
    return Grouped(at[order[by_size]], counts.sort(descending=True).values.tolist())
