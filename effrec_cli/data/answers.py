"""Right and wrong answers of users to items in time order; the data of task knowledge_tracing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.rows import counts
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.types import Int32, Int64, RecData, refuse_sample
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import PartsConfig

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

HELD_OUT = {"valid": VALID, "test": TEST}
"""The parts that are judged, by name."""


@dataclass(frozen=True)
class Answers:
    """All N answers, user after user, inside a user training before validation before test, then by time.

    Items drawn as *cold* have their answers taken out of training: these are neither targets nor inputs of
    training windows. In evaluation they are inputs like all others, since a user has given them.

    Attributes:
        offsets: int64 [U + 1]; user u owns answers offsets[u] to offsets[u + 1].
        items: int32 [N] item rows.
        correct: uint8 [N]; 1 for a right answer.
        part: uint8 [N]; TRAIN, VALID or TEST.
        taken_out: bool [N]; in the training part, but of an item drawn as cold.
        train_counts: int64 [V], training answers of each item, 0 for a cold one.
        num_items: V, rows of the catalogue.
        protocol: how the parts were made and cold items drawn, stamped on every metric.
        chance: float32 [N] true probabilities of a right answer, where the source knows them.
    """

    offsets: Int64
    items: Int32
    correct: UInt8
    part: UInt8
    taken_out: Bool
    train_counts: Int64
    num_items: int
    protocol: dict[str, Any]
    chance: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def trained(self) -> Bool:
        """Which answers training may see, bool [N]."""
        return (self.part == TRAIN) & ~self.taken_out

    def of_part(self, part: str) -> Int64:
        """Returns the positions of a held-out part's answers, ascending; `part` is `valid` or `test`."""
        return np.flatnonzero(self.part == HELD_OUT[part])


def answers_of(data: RecData, parts: PartsConfig) -> Answers:
    """Returns a dataset's answers from its side arrays.

    `answers_user`, `answers_item` int [N] are row numbers, `answers_correct` uint8 [N]; `answers_time` int64
    [N], `answers_part` uint8 [N] and `answers_chance` float32 [N] may be missing. Without times the order is
    that of the arrays. Without parts the last answers of each user are held out: `test_share` for the test
    and `valid_share` before it, in whole answers a user that add up to these shares over all users. Cold
    items are drawn either way.

    Raises:
        DataError: the dataset has no answers, or one of the three parts would be empty.
    """
    side = data.side
    if "answers_correct" not in side:
        raise _no_answers(data)
    refuse_sample(data, "answers")
    user, given = np.asarray(side["answers_user"]), side.get("answers_part")
    order = _order(user, given, side.get("answers_time"))
    sizes = np.bincount(user, minlength=data.num_users)
    part = _last_ones(sizes, parts) if given is None else np.asarray(given, dtype=np.uint8)[order]
    items = np.asarray(side["answers_item"], dtype=np.int32)[order]
    cold = _cold_items(items, data.num_items, parts)
    taken_out = (part == TRAIN) & cold[items]
    chance = side.get("answers_chance")
    answers = Answers(
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        items=items,
        correct=np.asarray(side["answers_correct"], dtype=np.uint8)[order],
        part=part,
        taken_out=taken_out,
        train_counts=counts(items[(part == TRAIN) & ~taken_out], data.num_items),
        num_items=data.num_items,
        protocol=_protocol(parts, given is not None),
        chance=None if chance is None else np.asarray(chance)[order],
    )
    _require_parts(answers, data)
    return answers


def _order(user: NDArray[Any], part: NDArray[Any] | None, time: NDArray[Any] | None) -> Int64:
    """Returns the order by user, then part, then time, then place."""
    keys = [key for key in (time, part) if key is not None]
    return np.lexsort((*keys, user))


def _last_ones(sizes: Int64, parts: PartsConfig) -> UInt8:
    """Returns the part of each answer, uint8 [N], in the order of users and times."""
    test = _share_of(sizes, parts.test_share)
    valid = _share_of(sizes - test, parts.valid_share / (1 - parts.test_share))
    to_end = np.repeat(np.cumsum(sizes), sizes) - np.arange(int(sizes.sum()))
    tested, held = to_end <= np.repeat(test, sizes), to_end <= np.repeat(test + valid, sizes)
    return np.where(tested, TEST, np.where(held, VALID, TRAIN)).astype(np.uint8)


def _share_of(sizes: Int64, share: float) -> Int64:
    """Returns how many answers of each user are a share of all, int64 [U].

    What is left of one user's share below a whole answer counts towards the next user's, so that the share is
    met also where users have few answers.
    """
    return np.diff(np.floor(np.concatenate([[0], np.cumsum(sizes)]) * share)).astype(np.int64)


def _cold_items(items: Int32, num_items: int, parts: PartsConfig) -> Bool:
    """Returns which items are drawn as cold, bool [V]."""
    answered = np.unique(items)
    drawn = np.random.default_rng(parts.seed).permutation(answered)
    cold = np.zeros(num_items, dtype=bool)
    cold[drawn[: round(len(answered) * parts.cold_item_share)]] = True
    return cold


def _protocol(parts: PartsConfig, given: bool) -> dict[str, Any]:
    shares = {"test_share": parts.test_share, "valid_share": parts.valid_share}
    return {
        "parts": "ready-made" if given else {"last_of_each_user": shares},
        "cold_items": {"share": parts.cold_item_share, "seed": parts.seed},
    }


def _no_answers(data: RecData) -> DataError:
    impressions = any(name.startswith("impressions_") for name in data.side)
    offered = "next_item and news" if impressions else "next_item"
    return DataError(
        f"Dataset '{data.name}' has no right and wrong answers, which task knowledge_tracing trains on; "
        f"it offers {offered}.",
        where=f"dataset={data.name}",
        fix="dataset=table dataset.correct=COLUMN, dataset=synthetic with answers in dataset.side, or "
        "dataset=duolingo-es-en",
    )


def _require_parts(answers: Answers, data: RecData) -> None:
    """Raises DataError where nothing is left to train on or to judge by."""
    sizes = {"training": int(answers.trained.sum())}
    sizes |= {name: len(answers.of_part(name)) for name in HELD_OUT}
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise DataError(
            f"No answer is in the {empty[0]} part.",
            where=f"dataset {data.name}, {len(answers):,} answers",
            fix="other shares in dataset.parts, or more answers",
        )


def answer_arrays(data: RecData) -> dict[str, NDArray[Any]]:
    """Returns the side arrays `answers_*` of data whose ratings are answers: 1 right, 0 wrong.

    A source that has nothing but answers hands them on as ratings, so that they are ordered, filtered and
    numbered with their rows. Ready-made parts are those of the split `files`. What that split holds out
    without any past to go by (users without training rows) is of the test part where it cannot be told.
    """
    sequences = data.sequences
    assert sequences.ratings is not None
    sizes = np.diff(sequences.offsets)
    arrays: dict[str, NDArray[Any] | None] = {
        "answers_user": np.repeat(np.arange(data.num_users, dtype=np.int32), sizes),
        "answers_item": np.asarray(sequences.items),
        "answers_correct": (np.asarray(sequences.ratings) > 0.5).astype(np.uint8),
        "answers_time": sequences.times,
        "answers_part": _parts_of_split(data) if data.protocol.get("kind") == "files" else None,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def _parts_of_split(data: RecData) -> UInt8:
    """Returns the part of each row by the ready-made split, uint8 [N]."""
    sequences, valid = data.sequences, data.valid
    place = np.arange(len(sequences.items))
    held = place >= np.repeat(data.train_end, np.diff(sequences.offsets))
    valid_end = np.array(data.train_end)
    valid_end[valid.users] = valid.target_end
    valid_end[data.test.users] = data.test.target_start
    tested = place >= np.repeat(valid_end, np.diff(sequences.offsets))
    return np.where(tested, TEST, np.where(held, VALID, TRAIN)).astype(np.uint8)
