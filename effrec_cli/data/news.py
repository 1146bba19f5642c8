"""Impressions: what users were shown together, and what of it they clicked; the data of task news."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.contents import Contents, contents_of
from effrec_cli.data.rows import counts
from effrec_cli.data.shuffle import shuffled
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.types import Int32, Int64, RecData, refuse_sample
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import PartsConfig

PARTS = {"train": TRAIN, "valid": VALID, "test": TEST}


@dataclass(frozen=True)
class Impressions:
    """All n impressions, each a range of candidates and a range of history.

    An item is *cold* where nothing of training holds it: no history and no slate of a training impression.

    Attributes:
        users: int32 [n] user numbers.
        times: int64 [n] Unix seconds.
        part: int8 [n]; TRAIN, VALID or TEST.
        offsets: int64 [n + 1]; impression i owns candidates offsets[i] to offsets[i + 1].
        candidates: int32 [total] item rows.
        clicks: uint8 [total]; 1 where the candidate was clicked.
        history_start: int64 [n], first position of the history in `history_items`.
        history_end: int64 [n], position after its last, which is the most recent one.
        history_items: int32 item rows that histories are ranges of.
        num_items: V, items that these rows number.
        protocol: how the parts were made, stamped on every metric.
        train_counts: int64 [V]; how often each item stands in the histories and slates of training; 0 for a
            cold item.
    """

    users: Int32
    times: Int64
    part: NDArray[np.int8]
    offsets: Int64
    candidates: Int32
    clicks: NDArray[np.uint8]
    history_start: Int64
    history_end: Int64
    history_items: Int32
    num_items: int
    protocol: dict[str, Any]
    train_counts: Int64

    def __len__(self) -> int:
        return len(self.users)

    def of_part(self, part: str) -> Int64:
        """Returns the numbers of a part's impressions, ascending; `part` is `train`, `valid` or `test`."""
        return np.flatnonzero(self.part == PARTS[part])

    def cells(self, rows: Int64) -> tuple[Int64, Int64]:
        """Returns the positions of some impressions' candidates, and how many each has, int64 [rows]."""
        sizes = self.offsets[rows + 1] - self.offsets[rows]
        return ranges(self.offsets[rows], sizes), sizes

    def clicked(self) -> Int64:
        """Returns how many candidates of each impression were clicked, int64 [n]."""
        owners = np.searchsorted(self.offsets, np.flatnonzero(self.clicks), side="right") - 1
        return np.bincount(owners, minlength=len(self))

    def mixed(self) -> NDArray[np.bool_]:
        """Returns which impressions have a click and a non-click: the others teach and tell nothing."""
        clicked = self.clicked()
        return (clicked > 0) & (clicked < np.diff(self.offsets))

    def with_cold_click(self, rows: Int64) -> NDArray[np.bool_]:
        """Returns which of some impressions have a clicked item that is cold."""
        cells, sizes = self.cells(rows)
        cold = (self.clicks[cells] == 1) & (self.train_counts[self.candidates[cells]] == 0)
        owners = np.repeat(np.arange(len(rows)), sizes)
        return np.bincount(owners[cold], minlength=len(rows)) > 0


def impressions_of(data: RecData, parts: PartsConfig) -> Impressions:
    """Returns a dataset's impressions from its side arrays `impressions_*`.

    Slates of one width (`impressions_candidates` [n, C], the simulator's) get as history what their user
    picked strictly before; ready-made impressions bring theirs, their parts and their own list of items.

    Where the source has no parts of its own, the last `test_share` by time are the test part and the
    `valid_share` before them validation; impressions of one second are never parted. Of the clicked items
    `cold_item_share`, drawn by `seed`, are taken out of the histories and slates of training.

    Raises:
        DataError: the dataset has no impressions, or one of the parts would be empty.
    """
    side = data.side
    if "impressions_candidates" not in side:
        raise _no_impressions(data)
    refuse_sample(data, "impressions")
    ready_made = "impressions_offsets" in side
    found = _ready_made(data, parts) if ready_made else _slates(data, parts)
    for name in PARTS:
        if not len(found.of_part(name)):
            raise DataError(
                f"No impression is in the {name} part.",
                where=f"dataset {data.name}, {len(found):,} impressions",
                fix="another dataset.parts.test_share or valid_share, or more impressions",
            )
    return replace(found, train_counts=_train_counts(found))


def contents_of_impressions(data: RecData) -> Contents:
    """Returns what the items say that impressions number: a list of their own, or the catalogue.

    Raises:
        DataError: the dataset says nothing of them.
    """
    if "impressions_item_text" not in data.side:
        return contents_of(data)
    flat, offsets = data.side["impressions_item_text"], data.side["impressions_item_text_offsets"]
    whole = np.asarray(flat).tobytes()
    texts = np.empty(len(offsets) - 1, dtype=object)
    texts[:] = [
        whole[start:end].decode()
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    return Contents(texts=texts)


def ranges(start: Int64, sizes: Int64) -> Int64:
    """Returns the positions of ranges one after the other, int64 [sum of sizes]."""
    first = np.repeat(start - (np.cumsum(sizes) - sizes), sizes)
    return first + np.arange(len(first))


def _no_impressions(data: RecData) -> DataError:
    offered = ["next_item"]
    if any(name.startswith("answers_") for name in data.side):
        offered.append("knowledge_tracing")
    return DataError(
        f"Dataset '{data.name}' has no impressions, which task news trains on; "
        f"it offers {' and '.join(offered)}.",
        where=f"dataset={data.name}",
        fix="dataset=mind-small, or dataset=synthetic with impressions in dataset.side",
    )


def _slates(data: RecData, parts: PartsConfig) -> Impressions:
    """Returns impressions of one width over the catalogue, with histories cut out of the interactions."""
    side = data.side
    users, times = side["impressions_user"], side["impressions_time"]
    shown = side["impressions_candidates"]
    start = np.asarray(data.sequences.offsets)[users]
    found = Impressions(
        users=users,
        times=times,
        part=parts_by_time(times, parts),
        offsets=np.arange(len(shown) + 1, dtype=np.int64) * shown.shape[1],
        candidates=shown.reshape(-1),
        clicks=side["impressions_clicks"].reshape(-1),
        history_start=start,
        history_end=_strictly_before(data, users, times),
        history_items=data.sequences.items,
        num_items=data.num_items,
        protocol={"kind": "global_time", "history": "strictly_before", **asdict(parts)},
        train_counts=np.empty(0, np.int64),
    )
    return _without(found, _drawn(found, parts))


def _drawn(found: Impressions, parts: PartsConfig) -> NDArray[np.bool_]:
    """Returns which items are taken out of training, bool [V]: a share of those that anybody clicked."""
    clicked = np.unique(found.candidates[found.clicks == 1])
    number = int(len(clicked) * parts.cold_item_share)
    taken = np.zeros(found.num_items, dtype=bool)
    taken[clicked[shuffled(np.arange(number), len(clicked), seed=parts.seed, epoch=0)]] = True
    return taken


def _without(found: Impressions, taken: NDArray[np.bool_]) -> Impressions:
    """Returns the impressions with some items taken out of the slates and histories of training.

    Training then reads a second copy of the histories, behind the whole one that the other parts read.
    """
    if not taken.any():
        return found
    train = found.part == TRAIN
    owners = np.repeat(np.arange(len(found)), np.diff(found.offsets))
    keep = ~(train[owners] & taken[found.candidates])
    read = ~taken[found.history_items]
    moved = len(read) + np.concatenate([[0], np.cumsum(read)])
    return replace(
        found,
        offsets=np.concatenate([[0], np.cumsum(np.bincount(owners[keep], minlength=len(found)))]),
        candidates=found.candidates[keep],
        clicks=found.clicks[keep],
        history_start=np.where(train, moved[found.history_start], found.history_start),
        history_end=np.where(train, moved[found.history_end], found.history_end),
        history_items=np.concatenate([found.history_items, found.history_items[read]]),
    )


def _ready_made(data: RecData, parts: PartsConfig) -> Impressions:
    """Returns impressions that bring their parts and histories; validation is the end of their training."""
    side = data.side
    part = np.array(side["impressions_part"], dtype=np.int8)
    times = side["impressions_time"]
    train = np.flatnonzero(part == TRAIN)
    given = bool((part == VALID).any())
    if not given:
        part[train[last_by_time(times[train], parts.valid_share)]] = VALID
    valid = {"valid": "given"} if given else {"valid": "last_of_training", "valid_share": parts.valid_share}
    return Impressions(
        users=side["impressions_user"],
        times=times,
        part=part,
        offsets=side["impressions_offsets"],
        candidates=side["impressions_candidates"],
        clicks=side["impressions_clicks"],
        history_start=side["impressions_history_start"],
        history_end=side["impressions_history_end"],
        history_items=side["impressions_history"],
        num_items=len(side["impressions_item_ids"]),
        protocol={"kind": "files", "history": "given", **valid},
        train_counts=np.empty(0, np.int64),
    )


def parts_by_time(times: Int64, parts: PartsConfig) -> NDArray[np.int8]:
    """Returns the part of each row, by moments that hold for all users."""
    part = np.full(len(times), TRAIN, dtype=np.int8)
    part[last_by_time(times, parts.test_share + parts.valid_share)] = VALID
    part[last_by_time(times, parts.test_share)] = TEST
    return part


def last_by_time(times: Int64, share: float) -> NDArray[np.bool_]:
    """Returns which moments are the last, at most `share` of all; equal ones are never parted."""
    ordered = np.sort(times)
    held = int(len(ordered) * share)
    return times > ordered[len(ordered) - held - 1] if len(ordered) else np.zeros(0, dtype=bool)


def _strictly_before(data: RecData, users: Int32, times: Int64) -> Int64:
    """Returns the position after each user's last interaction before a moment, int64 [n].

    Raises:
        DataError: the interactions have no times.
    """
    moments = data.sequences.times
    if moments is None:
        raise DataError("A history before an impression needs times.", where=f"dataset {data.name}")
    low = np.asarray(data.sequences.offsets)[users]
    high = np.asarray(data.sequences.offsets)[np.asarray(users) + 1]
    while len(open_ones := np.flatnonzero(low < high)):
        middle = (low[open_ones] + high[open_ones]) // 2
        earlier = moments[middle] < times[open_ones]
        low[open_ones[earlier]] = middle[earlier] + 1
        high[open_ones[~earlier]] = middle[~earlier]
    return low


def _train_counts(found: Impressions) -> Int64:
    """Returns how often each item stands in a history or a slate of training, int64 [V]."""
    train = found.of_part("train")
    edge = len(found.history_items) + 1
    begun = np.bincount(found.history_start[train], minlength=edge)
    ended = np.bincount(found.history_end[train], minlength=edge)
    held = np.cumsum(begun - ended)[:-1]
    read = np.flatnonzero(held)
    total = np.bincount(found.history_items[read], weights=held[read], minlength=found.num_items)
    return total.astype(np.int64) + counts(found.candidates[found.cells(train)[0]], found.num_items)
