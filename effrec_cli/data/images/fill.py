"""Decodes the images of many items into rows, by a few threads, with few images held at a time."""

from __future__ import annotations

import os
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.images.decode import BadImageError, decode, quiet_pillow
from effrec_cli.data.images.found import Found, Store
from effrec_cli.data.images.rowfile import RowFile
from effrec_cli.data.source import Say

WORKERS = min(4, os.cpu_count() or 1)
_AHEAD = 4
"""Images in work for each thread."""
_SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class Bad:
    """Why an item has no image.

    Attributes:
        kind: `missing`, `damaged`, `too_large` or `twice`.
        what: where it was found and what is wrong, for the user.
    """

    kind: str
    what: str


_MISSING = Bad("missing", "there is none")


@dataclass
class _Progress:
    """Counts images, and says so every few seconds."""

    say: Say
    total: int
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    began: float = field(init=False)
    said: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.said = self.clock()

    def add(self) -> None:
        self.done, now = self.done + 1, self.clock()
        if now - self.said >= _SAY_EVERY_S:
            rate = self.done / (now - self.began)
            self.say(f"  {self.done:,} images of {self.total:,} items decoded, {rate:,.0f} images/s")
            self.said = now


def fill_rows(store: Store, rows_of: Mapping[str, int], size: int, rows: RowFile, say: Say) -> dict[int, Bad]:
    """Writes each item's image to its row, and returns which rows have none, ascending; those are zeros.

    Args:
        store: of the images.
        rows_of: row numbers 0 to V - 1 by item name.
        size: side of an image in pixels.
        rows: V rows of size * size * 3 bytes.
        say: tells the user one line.
    """
    bad: dict[int, Bad] = {}
    first: dict[int, str] = {}
    progress = _Progress(say, len(rows_of))
    waiting: deque[tuple[Found, Future[NDArray[np.uint8]]]] = deque()

    def finish() -> None:
        found, future = waiting.popleft()
        progress.add()
        try:
            rows.write(found.row, future.result().tobytes())
        except BadImageError as fault:
            bad[found.row] = Bad(fault.kind, f"{found.place} {fault}")

    with quiet_pillow(), ThreadPoolExecutor(WORKERS, "images") as pool:
        for found in store.images(partial(_row, rows_of)):
            if found.row in first:
                bad[found.row] = Bad("twice", f"{first[found.row]} and {found.place} are both named by it")
                continue
            first[found.row] = found.place
            waiting.append((found, pool.submit(_decoded, found, size)))
            if len(waiting) >= _AHEAD * WORKERS:
                finish()
        while waiting:
            finish()
    return _blacked(rows, bad, first, len(rows_of))


def _row(rows_of: Mapping[str, int], name: str) -> int:
    """Returns an item's row; some systems write accents in file names as marks of their own."""
    row = rows_of.get(name)
    return rows_of.get(unicodedata.normalize("NFC", name), -1) if row is None else row


def _decoded(found: Found, size: int) -> NDArray[np.uint8]:
    return decode(found.read(), size)


def _blacked(rows: RowFile, bad: dict[int, Bad], first: Mapping[int, str], count: int) -> dict[int, Bad]:
    """Zeroes the rows of bad images, which a first of two may have written, and adds those never found."""
    zeros = bytes(rows.row_bytes)
    for row in bad:
        rows.write(row, zeros)
    bad |= {row: _MISSING for row in range(count) if row not in first}
    return dict(sorted(bad.items()))
