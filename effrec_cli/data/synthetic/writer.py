"""The interactions as a csv file in the layout of MovieLens: userId, movieId, rating, timestamp."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.source import RawChunk
from effrec_cli.data.synthetic.source import SyntheticSource
from effrec_cli.schema.dataset_synthetic import SyntheticConfig

HEADER = b"userId,movieId,rating,timestamp\n"
_STARS = [f"{half / 2}" for half in range(11)]


def write_csv(path: Path, config: SyntheticConfig) -> int:
    """Writes all interactions, a block of users at a time, and returns how many there are.

    The bytes do not depend on whether pyarrow is installed, which only makes it faster.
    """
    append = append_arrow if importlib.util.find_spec("pyarrow") else append_plain
    rows = 0
    with path.open("wb") as file:
        file.write(HEADER)
        for chunk in SyntheticSource(config, path.parent).chunks():
            append(file, chunk)
            rows += len(chunk)
    return rows


def append_arrow(file: BinaryIO, chunk: RawChunk) -> None:
    """Writes the rows of a chunk with pyarrow."""
    import pyarrow
    import pyarrow.csv

    stars = pyarrow.array(_STARS).take(pyarrow.array(_halves(chunk)))
    table = pyarrow.table({"user": chunk.users, "item": chunk.items, "stars": stars, "time": chunk.times})
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    pyarrow.csv.write_csv(table, file, options)


def append_plain(file: BinaryIO, chunk: RawChunk) -> None:
    """Writes the rows of a chunk with the standard library alone."""
    assert chunk.times is not None
    stars = (_STARS[half] for half in _halves(chunk).tolist())
    text = io.StringIO()
    rows = zip(chunk.users.tolist(), chunk.items.tolist(), stars, chunk.times.tolist(), strict=True)
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode())


def _halves(chunk: RawChunk) -> NDArray[np.int64]:
    """Returns ratings in half stars, int64."""
    assert chunk.ratings is not None
    return (2 * chunk.ratings).astype(np.int64)
