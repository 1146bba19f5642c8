"""What prepared data look like to everything that trains or evaluates.

All interactions lie in one array in CSR form: user after user, each user's rows in time order. Every part of
a split is a range of positions into it, so a split copies nothing and memory-mapped data stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from effrec_cli.errors import DataError

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Sequences:
    """All interactions, user after user, in time order inside a user.

    Of a sample (`RecData.sample`) each array goes on, behind offsets[-1], with the rows that training keeps.

    Attributes:
        offsets: int64 [num_users + 1]; user u owns positions offsets[u] to offsets[u + 1].
        items: int32 [num_interactions]; item row numbers.
        times: int64 [num_interactions] Unix seconds, or None.
        ratings: float32 [num_interactions], or None.
    """

    offsets: Int64
    items: Int32
    times: Int64 | None = None
    ratings: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class EvalCases:
    """Who is ranked for, from which history, and what counts as relevant; all arrays are [num_cases].

    Attributes:
        users: int32 user row numbers.
        history_start: int64 first position of the history in `Sequences.items`.
        history_end: int64 position after the history's last.
        target_start: int64 first relevant position.
        target_end: int64 position after the last relevant one.
    """

    users: Int32
    history_start: Int64
    history_end: Int64
    target_start: Int64
    target_end: Int64

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> EvalCases:
        """Returns some of the cases, by a slice or a mask."""
        return EvalCases(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class Catalogue:
    """Row numbers to raw ids and titles, of users or items.

    Attributes:
        ids: raw ids by row; an integer array or an array of strings.
        titles: titles by row, or None.
    """

    ids: NDArray[Any]
    titles: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class RecData:
    """A prepared dataset.

    Attributes:
        name: name of the dataset.
        content_hash: hex digest of the prepared content: raw files and preparation settings.
        sequences: all interactions.
        train_end: int64 [num_users]; user u trains on positions train_start[u] to train_end[u], maybe none.
        valid: cases for model selection.
        test: cases for the result.
        users: raw ids of users.
        items: raw ids and titles of items.
        protocol: how the split was made, stamped on every metric (kind and its settings).
        folder: the prepared folder, or None for data in memory.
        ceiling: best possible score per metric on the test cases (synthetic data), such as {"ndcg@10": 0.4}.
        side: other arrays by name (item text tokens, images, features ...), memory-mapped.
        stats: counts made while preparing: rows read, dropped, and why.
        train_start: int64 [num_users]; offsets[:-1] where none is given. Of a sample the rows that training
            keeps stand once more, behind all others, and both ends point there.
        full_train_end: int64 [num_users]; of a sample, where training ended before it; None elsewhere.
        train_weights: of a sample, float32 weights of the kept rows in their order, by which a weighted sum
            over them stands for all training rows; None where all weigh the same.
        sample: of a sample, what was kept of what: `parent` (a content hash), `mode`, `rate`, `seed`, counts.
    """

    name: str
    content_hash: str
    sequences: Sequences
    train_end: Int64
    valid: EvalCases
    test: EvalCases
    users: Catalogue
    items: Catalogue
    protocol: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    ceiling: dict[str, float] | None = None
    side: dict[str, NDArray[Any]] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    train_start: Int64 = field(default=cast(Any, None))
    full_train_end: Int64 | None = None
    train_weights: NDArray[np.float32] | None = None
    sample: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Lets training start where each user's rows do, where nothing else is said."""
        if self.train_start is None:
            object.__setattr__(self, "train_start", self.sequences.offsets[:-1])

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.sequences.offsets) - 1

    @property
    def num_items(self) -> int:
        """Number of items V in the catalogue."""
        return len(self.items)

    @property
    def num_train(self) -> int:
        """Number of interactions that training may use."""
        return int((self.train_end - self.train_start).sum())

    @property
    def num_interactions(self) -> int:
        """Number of interactions in all parts; what a sample keeps is not counted twice."""
        return int(self.sequences.offsets[-1])

    def unsampled(self) -> RecData:
        """Returns the data with all training rows, and no sample; the data itself where there is none."""
        if self.full_train_end is None:
            return self
        return replace(
            self,
            train_start=self.sequences.offsets[:-1],
            train_end=self.full_train_end,
            full_train_end=None,
            train_weights=None,
            sample=None,
        )

    def train_items(self, user: int) -> Int32:
        """Returns the training items of one user, in time order."""
        return self.sequences.items[self.train_start[user] : self.train_end[user]]

    def train_counts(self) -> Int64:
        """Returns how often each item occurs in the training part, int64 [num_items]."""
        counts = np.zeros(self.num_items, dtype=np.int64)
        for some in _some_positions(self.train_start, self.train_end):
            counts += np.bincount(self.sequences.items[some], minlength=self.num_items)
        return counts


def refuse_sample(data: RecData, rows: str) -> None:
    """Does nothing where the data are whole.

    Args:
        data: the dataset.
        rows: what is trained on in place of interactions.

    Raises:
        DataError: they are a sample: interactions were sampled, and these rows were not.
    """
    if data.sample is not None:
        raise DataError(
            f"A sample keeps some of the interactions, and this task trains on {rows}, of which all stay.",
            where=f"dataset {data.name}, sample of {data.sample['rate']:g}",
            fix="leave dataset.sample out, or train a task on interactions",
        )


def _some_positions(starts: Int64, ends: Int64, rows: int = 1 << 22) -> Iterator[Int64 | slice]:
    """Yields the positions of the training part, about `rows` at a time, as slices where they touch."""
    keep = ends > starts
    starts, ends = np.asarray(starts[keep]), np.asarray(ends[keep])
    before = np.concatenate([[0], np.cumsum(ends - starts)])
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(before, before[first] + rows, side="right")) - 1)
        some, until = starts[first:last], ends[first:last]
        if np.array_equal(some[1:], until[:-1]):
            yield slice(int(some[0]), int(until[-1]))
        else:
            shift = some - before[first:last]
            yield np.arange(before[first], before[last]) + np.repeat(shift, until - some)
        first = last
