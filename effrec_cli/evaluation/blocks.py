"""Evaluation cases in blocks: how many rows fit, and their histories and targets as tensors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.data.types import EvalCases, Int64, RecData
from effrec_cli.evaluation.scorer import Histories

BYTES_PER_SCORE = 16
"""What a block needs for each score at its peak: the score, a copy that ranking may make, and masks."""
_CPU_BLOCK_BYTES = 20 << 20
"""Scores of one block on a CPU; more leaves the cache, less makes matrix products thin."""
_CPU_ROWS = (64, 4096)
_CUDA_ROWS = (1, 4096)


@dataclass(frozen=True)
class Block:
    """B evaluation cases on a device.

    Attributes:
        users: int64 [B] user row numbers.
        histories: what each has met.
        targets: int64 [T], ascending; row * num_items + item of each distinct relevant item.
        relevant: int64 [B]; number of distinct relevant items.
    """

    users: Tensor
    histories: Histories
    targets: Tensor
    relevant: Tensor


def flat_ranges(start: Int64, end: Int64) -> tuple[Int64, Int64]:
    """Returns all positions of the ranges [start, end), one after another, and the range each belongs to."""
    lengths = end - start
    owner = np.repeat(np.arange(len(start)), lengths)
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + (start - before)[owner], owner


def rows_of(histories: Histories) -> Tensor:
    """Returns which of the histories each item belongs to, int64 [total]."""
    lengths = histories.offsets[1:] - histories.offsets[:-1]
    return torch.repeat_interleave(lengths, output_size=len(histories.items))


def make_block(data: RecData, cases: EvalCases, rows: slice, device: torch.device) -> Block:
    """Returns the cases at `rows` as tensors on `device`."""
    users = cases.users[rows].astype(np.int64)
    positions, owner = flat_ranges(cases.history_start[rows], cases.history_end[rows])
    lengths = np.bincount(owner, minlength=len(users))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    seen = data.sequences.items[positions].astype(np.int64)
    targets, relevant = distinct_targets(data, cases, rows)
    histories = Histories(on_device(seen, device), on_device(offsets, device))
    return Block(on_device(users, device), histories, on_device(targets, device), on_device(relevant, device))


def distinct_targets(data: RecData, cases: EvalCases, rows: slice) -> tuple[Int64, Int64]:
    """Returns the distinct targets as row * num_items + item, ascending, and their number in each row."""
    positions, owner = flat_ranges(cases.target_start[rows], cases.target_end[rows])
    cells = np.unique(owner * data.num_items + data.sequences.items[positions])
    return cells, np.bincount(cells // data.num_items, minlength=len(cases.users[rows]))


def on_device(array: NDArray[np.int64], device: torch.device) -> Tensor:
    """Returns an array on `device`; for a GPU through page-locked memory, which nobody waits for."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def block_rows(num_items: int, device: torch.device) -> int:
    """Returns how many cases to score at once: a quarter of the free memory, and no more than is useful.

    On a CPU the number depends on the catalogue alone unless memory is short, since the last bits of a matrix
    product may depend on its shape, and two runs of one setting shall agree.
    """
    fits = free_bytes(device) // 4 // (BYTES_PER_SCORE * num_items)
    if device.type == "cuda":
        low, high = _CUDA_ROWS
        return int(max(low, min(fits, high)))
    low, high = _CPU_ROWS
    useful = max(low, min(_CPU_BLOCK_BYTES // (4 * num_items), high))
    return int(max(1, min(fits, useful)))


def free_bytes(device: torch.device) -> int:
    """Returns the memory that may be taken on `device`, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return _free_host_bytes(Path("/proc/meminfo"))


def _free_host_bytes(meminfo: Path) -> int:
    """Returns the kernel's MemAvailable, or half of the machine's memory where there is no such file."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30
