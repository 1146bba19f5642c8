"""Making arrays about many items or users block by block, so that each row is a function of its own block."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.world import Int64

ITEM_BLOCK = 8192
_IN_MEMORY_BYTES = 1 << 28


def gather(
    numbers: NDArray[Any],
    size: int,
    make: Callable[[int], NDArray[Any]],
    row_shape: tuple[int, ...],
    dtype: Any,
) -> NDArray[Any]:
    """Returns the rows of `numbers`, made `size` at a time.

    Args:
        numbers: items or users, [n], in any order.
        size: how many of them a block holds.
        make: returns all rows of a block, [size or fewer, *row_shape].
        row_shape: shape of one row.
        dtype: of the result.
    """
    result = roomy((len(numbers), *row_shape), dtype)
    for block, where in by_block(numbers, size):
        result[where] = make(block)[numbers[where] - block * size]
    return result


def by_block(numbers: NDArray[Any], size: int) -> Iterator[tuple[int, Int64]]:
    """Yields each block that occurs, ascending, with the positions of its numbers."""
    blocks = np.asarray(numbers, dtype=np.int64) // size
    order = np.argsort(blocks, kind="stable")
    found, first = np.unique(blocks[order], return_index=True)
    for block, where in zip(found, np.split(order, first[1:]), strict=True):
        yield int(block), where


def block_range(block: int, size: int, total: int) -> Int64:
    """Returns the numbers of a block out of `total`."""
    return np.arange(block * size, min((block + 1) * size, total), dtype=np.int64)


def roomy(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Returns an array to fill; a large one lies in a file that goes with it, not in memory."""
    if np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize <= _IN_MEMORY_BYTES:
        return np.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
