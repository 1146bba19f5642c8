"""Runs independent pieces of work, on a CPU one a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def single_threaded(device: torch.device) -> Iterator[int]:
    """Lets torch's operations on a CPU run on one thread each; yields how many there were, 1 on a GPU.

    What little is done between pieces gains nothing from a second thread, whose team would then wait by
    spinning: on a machine that does other work that took five times the work itself.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def spread(work: Callable[[T], None], pieces: Iterable[T], threads: int) -> None:
    """Calls `work` with each piece, from as many threads; called inside of `single_threaded`.

    A piece's result does not depend on how many threads there are.
    """
    if threads == 1:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(work, pieces):
            pass
