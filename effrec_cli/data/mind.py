"""The reader of MIND, the Microsoft News data: impressions for task news, and the clicks in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import BadRows
from effrec_cli.data.digests import digest_of
from effrec_cli.data.ids import lookup
from effrec_cli.data.mind_files import (
    KEPT,
    note_unlabelled,
    part_files,
    refuse_another_release,
    take_parts,
)
from effrec_cli.data.mind_rows import BehaviorReader, Log, News, read_news
from effrec_cli.data.movielens_releases import count_ratings as count_lines
from effrec_cli.data.news import ranges
from effrec_cli.data.raw import RawFiles
from effrec_cli.data.source import TEST, TRAIN, RawChunk, Say
from effrec_cli.data.types import Int64, RecData
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_mind import MindConfig

_CHUNK_ROWS = 1 << 20
_LONGEST_TITLE = 512
"""Characters of a text in the catalogue of rankings; one long text would widen the array of all."""


class MindSource:
    """One MIND release, in a folder of the user's or under `<data_root>/raw/<name>`.

    Args:
        config: the dataset's settings.
        data_root: where raw data live.
    """

    def __init__(self, config: MindConfig, data_root: Path) -> None:
        self.config, self.data_root = config, data_root
        self.raw = RawFiles(data_root, config.name, KEPT, (), self._check_new, fill=take_parts)
        self._bad = BadRows(config.bad_rows)
        self._say: Say = print
        self._read: tuple[News, Log] | None = None

    def ensure(self, say: Say) -> None:
        """Checks as `check` does: there is nothing that may be fetched."""
        self._say = say
        self.check()

    def check(self) -> None:
        """Checks that the files are there.

        Raises:
            ConfigError: the folder that is named is not there.
            DataError: a part is missing, or nothing has been imported.
        """
        if self.config.path is None and not self.raw.present:
            raise self._absent()
        self._files()

    def _absent(self) -> DataError:
        name, archives = self.config.name, " and ".join(self.config.archives)
        return DataError(
            "MIND is not downloaded for you: its publisher asks you to accept its terms.",
            where=f"{self.raw.folder} is not there",
            fix=f"get {archives} from https://msnews.github.io into one folder, then "
            f"`effrec data import {name} FOLDER`, or dataset.path=FOLDER with them unpacked",
        )

    def import_from(self, path: Path, say: Say) -> None:
        """Takes both parts from a folder that holds them, as folders or as zip archives.

        Raises:
            ConfigError: there is no such path.
            DataError: a part is missing, cannot be read, or is of another release.
        """
        self.raw.import_from(path, None, say)
        note_unlabelled(path, say)
        note = refuse_another_release(self.config.name, _count(self.raw.folder))
        if note:
            say(f"  {note}")

    def _check_new(self, folder: Path) -> None:
        """Raises DataError where new files are another release, or cannot be read."""
        refuse_another_release(self.config.name, _count(folder))
        bad = BadRows(self.config.bad_rows)
        news = read_news([folder / "train_news.tsv", folder / "dev_news.tsv"], self.config.text, bad)
        for part in ("train", "dev"):
            BehaviorReader(news, bad).add(folder / f"{part}_behaviors.tsv", TRAIN, blocks=1)

    def _files(self) -> dict[str, Path]:
        """Returns the four files."""
        if self.config.path is None:
            return self.raw.paths()
        folder = Path(self.config.path).expanduser()
        if not folder.is_dir():
            where = f"dataset.path={folder}"
            raise ConfigError("There is no such folder.", where=where, fix="dataset.path=FOLDER")
        return part_files(folder)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the digests of the files, and the settings that decide how they are read."""
        digests = {name: digest_of(path, self.data_root) for name, path in self._files().items()}
        return {"files": digests, "text": self.config.text, "bad_rows": self.config.bad_rows}

    @property
    def bytes_to_read(self) -> int:
        """The size of all four files."""
        return sum(path.stat().st_size for path in self._files().values())

    def chunks(self) -> Iterator[RawChunk]:
        """Yields each user's clicks: histories, then what they clicked in impressions.

        Histories have no times: they are taken for a second before the first impression that has them. An
        item that a user clicked more than once, or that stands in the histories of both parts, counts once,
        the first time.

        Raises:
            DataError: a malformed row, or a file without rows.
        """
        self._bad, self._read = BadRows(self.config.bad_rows), None
        news, log = self._tables()
        users, items, times = _clicks(log, len(news.ids))
        # As objects each id is one string that all its rows share, which is several times faster.
        user_ids, item_ids = log.user_ids.astype(object), news.ids.astype(object)
        for start in range(0, len(users), _CHUNK_ROWS):
            some = slice(start, start + _CHUNK_ROWS)
            yield RawChunk(user_ids[users[some]], item_ids[items[some]], times[some])

    def _tables(self) -> tuple[News, Log]:
        """Returns the news and the impressions, read once."""
        if self._read is None:
            files = self._files()
            paths = [files["train_news.tsv"], files["dev_news.tsv"]]
            news = read_news(paths, self.config.text, self._bad)
            self._say(f"  {len(news.ids):,} news read")
            reader = BehaviorReader(news, self._bad)
            for name, part in (("train", TRAIN), ("dev", TEST)):
                before = self._bad.read
                reader.add(files[f"{name}_behaviors.tsv"], part)
                self._say(f"  {self._bad.read - before:,} impressions of the {name} part read")
            self._read = news, reader.finish()
        return self._read

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns the beginnings of the texts of these raw item ids."""
        news, _ = self._tables()
        texts = news.texts[lookup(news.ids, item_ids)].tolist()
        return np.array([text[:_LONGEST_TITLE] for text in texts], dtype=np.str_)

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns the n impressions, over news of their own: most candidates nobody ever clicked.

        Returns:
            `impressions_user` int32 [n], indices into `impressions_user_ids`; `impressions_time` int64 [n]
            Unix seconds; `impressions_part` int8 [n], TRAIN or TEST; `impressions_offsets` int64 [n + 1] into
            `impressions_candidates` int32 and `impressions_clicks` uint8; `impressions_history_start` and
            `impressions_history_end` int64 [n], ranges of `impressions_history` int32; all items are indices
            into `impressions_item_ids` [V], whose texts are the ranges `impressions_item_text_offsets` int64
            [V + 1] of `impressions_item_text`, UTF-8.
        """
        news, log = self._tables()
        texts = [text.encode() for text in news.texts.tolist()]
        return {
            "impressions_user": log.users,
            "impressions_user_ids": log.user_ids,
            "impressions_time": log.times,
            "impressions_part": log.part,
            "impressions_offsets": log.offsets,
            "impressions_candidates": log.candidates,
            "impressions_clicks": log.clicks,
            "impressions_history_start": log.history_offsets[log.history],
            "impressions_history_end": log.history_offsets[log.history + 1],
            "impressions_history": log.history_items,
            "impressions_item_ids": news.ids,
            "impressions_item_text": np.frombuffer(b"".join(texts), dtype=np.uint8),
            "impressions_item_text_offsets": np.cumsum([0, *map(len, texts)], dtype=np.int64),
        }

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns None: nobody knows the best ranker of real data."""
        return None

    def stats(self) -> dict[str, int]:
        """Returns how many impressions and news there are, and the rows dropped as malformed."""
        news, log = self._tables()
        return {
            "news": len(news.ids),
            "impressions": len(log.users),
            "candidates": len(log.candidates),
            "dropped_bad_rows": self._bad.dropped,
        }


def _count(folder: Path) -> int:
    return count_lines(folder / "train_behaviors.tsv", header=False)


def _clicks(log: Log, num_items: int) -> tuple[NDArray[np.int32], NDArray[np.int32], Int64]:
    """Returns users, items and times of all clicks, each item of a user once; the order is that of places."""
    read = _first_seen(log)
    sizes = np.diff(log.history_offsets)[log.history[read]]
    positions = ranges(log.history_offsets[log.history[read]], sizes)
    clicked = np.flatnonzero(log.clicks)
    owners = np.searchsorted(log.offsets, clicked, side="right") - 1
    rows = np.concatenate([np.repeat(read, sizes), owners])
    items = np.concatenate([log.history_items[positions], log.candidates[clicked]])
    times = log.times[rows] - (np.arange(len(rows)) < len(positions))
    first = _first_of_each(log.users[rows] * np.int64(num_items) + items, times)
    return log.users[rows[first]], items[first], times[first]


def _first_seen(log: Log) -> Int64:
    """Returns of each user's distinct histories the impression that first has it, by time and place."""
    order = np.argsort(log.times, kind="stable")
    pair = log.users[order] * np.int64(len(log.history_offsets)) + log.history[order]
    return order[np.sort(np.unique(pair, return_index=True)[1])]


def _first_of_each(keys: Int64, times: Int64) -> Int64:
    """Returns the positions of the earliest of each key, in their order; of equal times the first place."""
    order = np.lexsort((times, keys))
    ordered = keys[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return np.sort(order[first])
