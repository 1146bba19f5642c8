"""How much of a problem one program takes: chosen by width and dtype so that nothing spills from registers.

A test compiles every choice for each architecture that may run it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

# Versions whose compiler needs more registers for a tile than 3.6 and 3.7.
_CROWDS = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8)
# Values of candidates that a program of the row kernels holds at a time, and the warps that hold them.
_ROW_VALUES = 4096
_WIDE_ROW_VALUES = 8192
_ROW_WIDTH = 1024


@dataclass(frozen=True)
class Blocks:
    """Sizes of what a program takes at a time.

    Attributes:
        rows: BLOCK_M, rows of hidden states.
        negatives: BLOCK_N.
        width: BLOCK_D, values of a row: a power of two, at least 16.
        chunks: pieces of that width that make up D.
        num_warps: warps of a program.
        num_stages: loads in flight, for loops that the compiler pipelines.
    """

    rows: int
    negatives: int
    width: int
    chunks: int
    num_warps: int
    num_stages: int = 2


def row_blocks(dim: int) -> Blocks:
    """Returns the sizes for the kernels in which each row has its own negatives."""
    width = min(_power_of_two(dim), _ROW_WIDTH)
    wide = width > 256
    negatives = min(64, (_WIDE_ROW_VALUES if wide else _ROW_VALUES) // width)
    return Blocks(1, negatives, width, -(-dim // width), 8 if wide else 4)


def tile_blocks(
    dim: int, dtype: torch.dtype, items: torch.dtype, group_rows: int, capability: int = 9
) -> Blocks:
    """Returns the sizes for the kernels in which `group_rows` rows share their negatives.

    Args:
        dim: D.
        dtype: what operands are rounded to.
        items: what the item table is stored in.
        group_rows: T.
        capability: first number of the GPU's compute capability.
    """
    if dtype.itemsize == 4:
        # Products in float32 run without tensor cores, in registers.
        width = min(_power_of_two(dim), 64)
        chunks = -(-dim // width)
        negatives = 32 if chunks > 1 and capability < 10 else 16
        return Blocks(32, negatives, width, chunks, 4 if chunks == 1 else 8)
    # Rows in chunks, and rows that are read in 32 bits, need more registers than whole ones in 16.
    whole = items.itemsize == 2 and dim <= 256 and capability == 9
    width = min(_power_of_two(dim), 256 if whole else 128)
    chunks = -(-dim // width)
    if group_rows <= 16 and dim <= 512:
        crowded = chunks > 1 or (capability >= 10 and items.itemsize == 4)
        return Blocks(16, 16, width, chunks, 8 if crowded else 4)
    rows = 32 if _CROWDS and width > 128 else 64
    return Blocks(rows, 32, width, chunks, 4 if width <= 64 else 8)


def positive_blocks(dim: int) -> Blocks:
    """Returns the sizes for the kernel of rows and their own targets."""
    width = min(_power_of_two(dim), 256)
    return Blocks(_ROW_VALUES // width, 1, width, -(-dim // width), 4)


def segment_blocks(dim: int) -> Blocks:
    """Returns the sizes for the kernel that sums sorted pairs; `rows` are the pairs a program looks at."""
    width = min(_power_of_two(dim), 256)
    return Blocks(32, 1, width, -(-dim // width), 1 if width <= 64 else 2)


def _power_of_two(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())
