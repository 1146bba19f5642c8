"""Runs independent pieces of work, on a CPU one a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def spread(work: Callable[[T], None], pieces: Iterable[T], device: torch.device) -> None:
    """Calls `work` with each piece; on a CPU from as many threads as torch uses, each single-threaded.

    PyTorch factorises a batch of small matrices on one thread, and many small operations leave a second idle.
    A piece's result does not depend on how many threads there are.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        for piece in pieces:
            work(piece)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, pieces):
                pass
    finally:
        torch.set_num_threads(threads)  # what a thread sets, later ones begin with
