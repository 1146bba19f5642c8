"""How many training users met two items: X'X, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from effrec_cli.data.types import RecData
from effrec_cli.evaluation.blocks import flat_ranges

BLOCK_BYTES = 256 << 20
"""About what a block of rows of X'X takes."""


def training_matrix(data: RecData) -> Any:
    """Returns which user met which item in training: 0/1, float32 scipy CSR [num_users, num_items]."""
    from scipy import sparse

    start, end = data.train_start, data.train_end
    positions, _ = flat_ranges(start, end)
    items = data.sequences.items[positions]
    offsets = np.concatenate([[0], np.cumsum(end - start)])
    shape = (data.num_users, data.num_items)
    matrix = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), items, offsets), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def cooccurrences(matrix: Any, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int, Any]]:
    """Yields blocks of rows of X'X as (first row, row after the last, dense float32 numpy [rows, num_items]).

    Args:
        matrix: X from `training_matrix`.
        block_bytes: about the memory that a block may take.
    """
    by_item = matrix.T.tocsr()
    num_items = by_item.shape[0]
    # Dense it takes 4 bytes a cell, and as a sparse product at most 8 more.
    rows = max(1, block_bytes // (12 * num_items))
    for first in range(0, num_items, rows):
        last = min(first + rows, num_items)
        yield first, last, (by_item[first:last] @ matrix).toarray()
