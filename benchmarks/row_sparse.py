"""A step of a large item table, moved by rows or whole: CPU seconds, and memory over the table's size.

`python benchmarks/row_sparse.py [num_items dim targets steps]` prints one line for each way, measured in a
process of its own on one thread of the CPU: look-up, sampled softmax (tiles of 64 targets that share 255
negatives), backward pass and Adam. Linux: memory is the process's peak above what stood before the table.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))

from effrec_kernels import RowAdam, sampled_cross_entropy

WAYS = ("rows", "dense")


def optimizer_for(table: Tensor, way: str) -> torch.optim.Optimizer:
    """Returns what moves the table: rows of a step alone, or all."""
    return RowAdam([table], lr=1e-3) if way == "rows" else torch.optim.Adam([table], lr=1e-3, fused=True)


def step(table: Tensor, optimizer: torch.optim.Optimizer, targets: int, number: int) -> None:
    """Runs one training step on random windows; the states of a step are the vectors of what is read."""
    sparse = isinstance(optimizer, RowAdam)
    draw = torch.Generator().manual_seed(number)
    read, wanted = (torch.randint(len(table), (targets,), generator=draw) for _ in range(2))
    hidden = F.embedding(read, table, sparse=sparse)
    loss = sampled_cross_entropy(
        hidden, table, wanted, num_negatives=255, sharing=64, step=number, sparse=sparse
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def measure(num_items: int, dim: int, targets: int, steps: int, way: str) -> tuple[float, float]:
    """Returns the median CPU seconds of a step after the first, and peak memory over the table's bytes."""
    before = _peak_bytes()
    table = torch.nn.Parameter(torch.empty(num_items, dim).normal_(std=0.02))
    optimizer, seconds = optimizer_for(table, way), []
    for number in range(steps + 1):
        begin = time.process_time()
        step(table, optimizer, targets, number)
        seconds.append(time.process_time() - begin)
    return median(seconds[1:]), (_peak_bytes() - before) / table.nbytes


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(words: list[str]) -> None:
    """Measures the way that is named behind the sizes; without one, each in a process of its own."""
    sizes, ways = words[:4] or ["10000000", "16", "4096", "5"], words[4:]
    for way in WAYS if not ways else ():
        subprocess.run([sys.executable, __file__, *sizes, way], check=True)
    num_items, dim, targets, steps = (int(size) for size in sizes)
    for way in ways:
        torch.set_num_threads(1)
        seconds, share = measure(num_items, dim, targets, steps, way)
        shape = f"{num_items:,} items, {dim} dim, {targets:,} targets"
        print(f"{way:>6} {seconds:8.3f} s a step   peak memory {share:.1f} tables   {shape}")


if __name__ == "__main__":
    main(sys.argv[1:])
