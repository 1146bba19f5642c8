"""How many rows are worked on at a time, and when every item's logit is cheaper than a gather."""

from __future__ import annotations

from collections.abc import Iterator

import torch

MIB = 1 << 20
# Measured on CPUs: large enough for efficient matrix products, small enough to stay in the allocator's pool.
DEFAULT_CHUNK_BYTES = {"cpu": 32 * MIB}
DEFAULT_DEVICE_CHUNK_BYTES = 256 * MIB
# Gathered rows alive at a time on a CPU: what its caches hold.
CPU_GATHER_BYTES = 4 * MIB
# Ids, logits, and the sort of `products.add_by_item`.
PAIR_BYTES = 48
# A row scored against the whole table by matrix products costs as much as this many times N gathered rows.
# CPU: measured at D = 16..256. CUDA: from the ratio of matrix rate to bandwidth, unmeasured.
DENSE_ITEMS_PER_NEGATIVE = {"cpu": 6}
DENSE_ITEMS_PER_NEGATIVE_ON_DEVICE = 32
# With fewer rows at a time a product with the whole table is bound by reading the table: cut it instead.
FEW_ROWS = 64
# With fewer rows to a group, reading the negatives for each row anew is faster. Measured on a CPU.
FEW_SHARED_ROWS = 8
# Rows of a block where the table is cut.
BLOCK_ROWS = 1024


def default_chunk_bytes(device: torch.device) -> int:
    """Returns the bound on intermediates that suits the device."""
    return DEFAULT_CHUNK_BYTES.get(device.type, DEFAULT_DEVICE_CHUNK_BYTES)


def dense_is_cheaper(num_items: int, num_negatives: int, device: torch.device) -> bool:
    """Returns whether scoring all V items and picking N of them beats gathering N rows."""
    per_negative = DENSE_ITEMS_PER_NEGATIVE.get(device.type, DENSE_ITEMS_PER_NEGATIVE_ON_DEVICE)
    return num_items <= per_negative * num_negatives


def rows_at_once(chunk_bytes: int, bytes_per_row: int) -> int:
    """Returns how many rows fit `chunk_bytes`, at least one."""
    return max(1, chunk_bytes // max(1, bytes_per_row))


def gathered_rows(chunk_bytes: int, bytes_per_row: int, device: torch.device) -> int:
    """Returns for how many rows to gather candidates at a time, at least one."""
    room = min(chunk_bytes, CPU_GATHER_BYTES) if device.type == "cpu" else chunk_bytes
    return rows_at_once(room, bytes_per_row)


def slices(length: int, size: int) -> Iterator[slice]:
    """Yields the slices of at most `size` that cover `length`."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def full_block(num_rows: int, num_items: int, chunk_bytes: int) -> tuple[int, int]:
    """Returns the rows and items of a block of float32 logits that fits `chunk_bytes`.

    The whole catalogue is taken where enough rows still fit; otherwise it is cut, for a product of few rows
    with a large table reads the table again and again.
    """
    rows = min(num_rows, rows_at_once(chunk_bytes, 4 * num_items))
    if rows >= min(num_rows, FEW_ROWS):
        return rows, num_items
    rows = min(num_rows, BLOCK_ROWS)
    return rows, rows_at_once(chunk_bytes, 4 * rows)
