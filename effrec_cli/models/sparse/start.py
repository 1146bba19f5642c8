"""Where a sparse table's numbers are at first: uniformly anywhere, and exactly as many as the budget says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from effrec_kernels.packed import PackedRows, column_dtype
from torch import Tensor

BLOCK = 1 << 18
"""Numbers of the dense table that are drawn together."""
_MOST = 10**9
"""numpy draws hypergeometric shares of fewer places alone."""
STRUCTURES = ("row", "global")


def budget(rows: int, dim: int, density: float, structure: str) -> int:
    """Returns how many numbers are live: round(density * rows * dim), in whole rows' shares with `row`.

    Args:
        rows: N.
        dim: d.
        density: p, above 0 and at most 1.
        structure: `row`, k = round(p d) in each row, at least one; or `global`.
    """
    return rows * max(1, round(density * dim)) if structure == "row" else max(1, round(density * rows * dim))


def sizes_alone() -> bool:
    """Returns whether tables are made to learn their sizes, and hold nothing (`torch.device("meta")`)."""
    return torch.get_default_device().type == "meta"


def row_blocks(rows: int, dim: int) -> list[tuple[int, int]]:
    """Returns stretches of rows whose numbers are drawn together."""
    step = max(1, BLOCK // dim)
    return [(low, min(low + step, rows)) for low in range(0, rows, step)]


def normal_blocks(rows: int, dim: int, deviation: float) -> Iterator[Tensor]:
    """Yields a table N(0, deviation) block by block, float32 [r, d]: dense and sparse tables start alike."""
    for low, high in row_blocks(rows, dim):
        yield torch.randn(high - low, dim, device="cpu").mul_(deviation)


def normal_table(rows: int, dim: int, deviation: float) -> Tensor:
    """Returns the table of `normal_blocks`, float32 [N, d]."""
    if sizes_alone():
        return torch.empty(rows, dim)
    return torch.cat([torch.empty(0, dim), *normal_blocks(rows, dim, deviation)])


def normal_packed(
    rows: int, dim: int, deviation: float, density: float, structure: str, seed: int
) -> PackedRows:
    """Returns the live numbers of `normal_table`; their places are drawn from `seed` alone.

    The dense table is never held: what is drawn is a block at a time.

    Args:
        rows: N.
        dim: d.
        deviation: of the numbers.
        density: p.
        structure: `row` or `global`.
        seed: of the places.
    """
    if sizes_alone():
        return _unfilled(rows, dim, budget(rows, dim, density, structure), structure)
    masks = mask_blocks(rows, dim, density, structure, seed)
    parts = [
        (dense[mask], mask.nonzero()[:, 1].to(column_dtype(dim)), mask.sum(1))
        for dense, mask in zip(normal_blocks(rows, dim, deviation), masks, strict=True)
    ]
    values, columns, counts = (torch.cat(part) for part in zip(*parts, strict=True))
    if structure == "row":
        return PackedRows(values.view(rows, -1), columns.view(rows, -1), dim)
    return PackedRows(values[:, None], columns, dim, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))


def _unfilled(rows: int, dim: int, live: int, structure: str) -> PackedRows:
    """Returns a table of so many numbers without any."""
    size = (rows, live // rows) if structure == "row" else (live, 1)
    values = torch.empty(size)
    columns = torch.empty(size if structure == "row" else live, dtype=column_dtype(dim))
    return PackedRows(
        values, columns, dim, None if structure == "row" else torch.empty(rows + 1, dtype=torch.int64)
    )


def mask_blocks(rows: int, dim: int, density: float, structure: str, seed: int) -> Iterator[Tensor]:
    """Yields which numbers are live, bool [r, d], in the blocks of `normal_blocks`; `budget` in all.

    Every choice of so many places, or with `row` of k in each row, is as likely as any other.
    """
    if sizes_alone():
        yield torch.empty(rows, dim, dtype=torch.bool)
        return
    blocks, live = row_blocks(rows, dim), budget(rows, dim, density, structure)
    draw = torch.Generator().manual_seed(seed)
    if structure == "row":
        for low, high in blocks:
            order = torch.rand(high - low, dim, generator=draw).argsort(dim=1, stable=True)
            yield torch.zeros(high - low, dim, dtype=torch.bool).scatter_(1, order[:, : live // rows], True)
        return
    for (low, high), count in zip(blocks, _shares(blocks, dim, live, seed), strict=True):
        chosen = torch.randperm((high - low) * dim, generator=draw)[:count]
        flat = torch.zeros((high - low) * dim, dtype=torch.bool).index_fill_(0, chosen, True)
        yield flat.view(-1, dim)


def _shares(blocks: list[tuple[int, int]], dim: int, live: int, seed: int) -> list[int]:
    """Returns how many of `live` places drawn from all blocks together lie in each."""
    sizes = np.array([(high - low) * dim for low, high in blocks], dtype=np.int64)
    rng = np.random.default_rng(seed)
    if sizes.sum() >= _MOST:
        return _shares_of_many(sizes, live, rng).tolist()
    return [int(count) for count in rng.multivariate_hypergeometric(sizes, live, method="marginals")]


def _shares_of_many(sizes: np.ndarray, live: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the shares of blocks of any size in all, int64: exactly multivariate hypergeometric.

    Each place is first chosen by chance alone, so that the chosen are any set of their number alike. Then as
    many as are too many are taken out of them, or are added from the others, any of these alike.
    """
    counts = rng.binomial(sizes, live / int(sizes.sum()))
    over = int(counts.sum()) - live
    pool = counts if over > 0 else sizes - counts
    ends = pool.cumsum()
    drawn = rng.choice(int(ends[-1]), size=abs(over), replace=False, shuffle=False)
    moved = np.bincount(np.searchsorted(ends, drawn, side="right"), minlength=len(sizes))
    return counts - moved if over > 0 else counts + moved
