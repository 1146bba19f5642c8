"""Packed tables for kernel tests, and the masked dense table that each is one of."""

import torch
from effrec_kernels import RowSparse, pack


def masked(rows, dim, slots, ragged, dtype=torch.float32, device="cpu", seed=0):
    """Returns a table [N, d] that is 0 outside of its mask, and the mask; ragged rows have 0 to 2k slots."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.rand(rows, dim, generator=draw).argsort(1)
    counts = torch.randint(2 * slots + 1, (rows, 1), generator=draw) if ragged else torch.tensor(slots)
    mask = order < counts
    table = torch.randn(rows, dim, generator=draw, dtype=torch.float64)
    return (table * mask).to(device, dtype), mask.to(device)


def packed_case(rows=23, dim=17, slots=3, ragged=False, **options):
    """Returns a packed table and the dense one that it is packed from."""
    table, mask = masked(rows, dim, slots, ragged, **options)
    return pack(table, mask, ragged=ragged), table


def dense_of(gradient):
    """Returns [V, D] of a row-sparse gradient, in which a row may stand more than once."""
    given = gradient if isinstance(gradient, RowSparse) else RowSparse.of(gradient)
    out = given.values.new_zeros(given.num_rows, given.values.shape[1])
    return out.index_add_(0, given.rows, given.values)
