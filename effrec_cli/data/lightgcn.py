"""The reader of the files that LightGCN and papers after it are judged on: Gowalla, Yelp2018, Amazon-Book."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import BadRows
from effrec_cli.data.digests import digest_of
from effrec_cli.data.lightgcn_files import NAMES, take_in, two_files
from effrec_cli.data.lightgcn_rows import IdLines, found_offset, is_pairs
from effrec_cli.data.raw import RawFiles
from effrec_cli.data.source import TEST, TRAIN, RawChunk, Say
from effrec_cli.data.types import Int64, RecData
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import READY_MADE
from effrec_cli.schema.dataset_lightgcn import LightGCNConfig

_PARTS = {"train": TRAIN, "test": TEST}


class LightGCNSource:
    """Users' items in a training and a test file, without times; the order is that of the files.

    A split that takes no ready-made parts sees the rows of both files as one.

    Args:
        config: the dataset's settings.
        data_root: where raw data live.
    """

    def __init__(self, config: LightGCNConfig, data_root: Path) -> None:
        self.config, self.data_root = config, data_root
        self.raw = RawFiles(data_root, config.name, NAMES, (), self._check_new, fill=self._fill)
        self._bad = BadRows(config.bad_rows)
        self._say: Say = print
        self._without_items = 0

    def ensure(self, say: Say) -> None:
        """Checks as `check` does: nothing is downloaded."""
        self._say = say
        self.check()

    def check(self) -> None:
        """Checks that the files are there.

        Raises:
            ConfigError: the folder that is named is not there.
            DataError: a file is missing, or nothing has been imported.
        """
        if self.config.path is None and not self.raw.present:
            raise self._absent()
        self._files()

    def _absent(self) -> DataError:
        name = self.config.name
        return DataError(
            f"The files of {name} are not downloaded for you: no source of them with a known digest.",
            where=f"{self.raw.folder} is not there",
            fix=f"get train.txt and test.txt (see docs/data.md), then `effrec data import {name} FILE` "
            "with a folder or archive of them, or dataset.path=FOLDER",
        )

    def import_from(self, path: Path, say: Say) -> None:
        """Takes the two files from a folder or an archive.

        Raises:
            ConfigError: there is no such path.
            DataError: a file is missing or cannot be read.
        """
        self.raw.import_from(path, None, say)

    def _fill(self, path: Path, aside: Path) -> None:
        take_in(path, aside, self.config.name)

    def _check_new(self, folder: Path) -> None:
        """Raises DataError where the first lines of a file cannot be read."""
        files = dict(zip(_PARTS, (folder / name for name in NAMES), strict=True))
        for path in files.values():
            next(iter(IdLines(path, self._is_pairs(files), BadRows(self.config.bad_rows))))

    def _files(self) -> dict[str, Path]:
        """Returns the file of each part."""
        if self.config.path is None:
            return dict(zip(_PARTS, (self.raw.folder / name for name in NAMES), strict=True))
        folder = Path(self.config.path).expanduser()
        if not folder.is_dir():
            archive = f"`effrec data import {self.config.name} {folder}`, or " if folder.is_file() else ""
            raise ConfigError(
                "This is a file, and a folder is read." if archive else "There is no such folder.",
                where=f"dataset.path={folder}",
                fix=f"{archive}dataset.path=FOLDER with train.txt and test.txt",
            )
        return dict(zip(_PARTS, two_files(folder, self.config.name), strict=True))

    def fingerprint(self) -> dict[str, Any]:
        """Returns the digests of the files and what decides how they are read."""
        config, files = self.config, self._files()
        return {
            "files": {part: digest_of(path, self.data_root) for part, path in files.items()},
            "reading": {
                "pairs": self._is_pairs(files),
                "item_offset": config.item_offset,
                "bad_rows": config.bad_rows,
            },
        }

    @property
    def bytes_to_read(self) -> int:
        """The size of both files."""
        return sum(path.stat().st_size for path in self._files().values())

    def chunks(self) -> Iterator[RawChunk]:
        """Yields the rows of the training file, then of the test file, in their order.

        Raises:
            DataError: a malformed line, an empty file, or items of which nobody can say what was added to
                their ids.
        """
        self._bad, self._without_items = BadRows(self.config.bad_rows), 0
        files, seen = self._files(), _Seen()
        pairs = self._is_pairs(files)
        offset = self._offset(files, pairs)
        ready_made = self.config.split.kind in READY_MADE
        whole, done = self.bytes_to_read, 0
        for name, path in files.items():
            lines = IdLines(path, pairs, self._bad)
            for users, items in lines:
                self._check_items(items, offset, path)
                seen.add(name, users, items)
                share = (done + lines.share * path.stat().st_size) / whole
                yield RawChunk(users, items - offset, part=_PARTS[name] if ready_made else None, share=share)
            done += path.stat().st_size
            self._without_items += lines.without_items
        self._compare(seen)

    def _is_pairs(self, files: dict[str, Path]) -> bool:
        layout = self.config.layout
        return layout == "pairs" if layout != "auto" else is_pairs(files["train"])

    def _offset(self, files: dict[str, Path], pairs: bool) -> int:
        """Returns what was added to the items' ids."""
        if self.config.item_offset is not None or not pairs:
            return self.config.item_offset or 0
        return found_offset(list(files.values()), self.config.bad_rows)

    def _check_items(self, items: Int64, offset: int, path: Path) -> None:
        if int(items.min()) < offset:
            raise DataError(
                f"Item {int(items.min()):,} is below {offset:,}, which is said to be added to items' ids.",
                where=str(path),
                fix="another dataset.item_offset, or 0 for nothing",
            )

    def _compare(self, seen: _Seen) -> None:
        """Says where the files are not those that are published under this name."""
        published = vars(self.config.published)
        differ = [
            f"{count:,} {_WORDS[name]} in place of {published[name]:,}"
            for name, count in seen.counts().items()
            if published[name] not in (None, count)
        ]
        if differ:
            self._say(
                f"  warning: these are not the published files of {self.config.name}: {', '.join(differ)}"
            )

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns None: the files hold numbers alone."""
        return None

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns nothing: there is nothing but interactions."""
        return {}

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns None: nobody knows the best ranker of real data."""
        return None

    def stats(self) -> dict[str, int]:
        """Returns the rows read, those dropped as malformed, and users' lines without an item."""
        return {
            "rows_read": self._bad.read,
            "dropped_bad_rows": self._bad.dropped,
            "lines_without_items": self._without_items,
        }


_WORDS = {"users": "users", "items": "items", "train": "training rows", "test": "test rows"}


class _Seen:
    """Distinct users and items, and rows of each part."""

    def __init__(self) -> None:
        self._users: Int64 = np.empty(0, np.int64)
        self._items: Int64 = np.empty(0, np.int64)
        self._rows = dict.fromkeys(_PARTS, 0)

    def add(self, part: str, users: Int64, items: Int64) -> None:
        self._users, self._items = np.union1d(self._users, users), np.union1d(self._items, items)
        self._rows[part] += len(users)

    def counts(self) -> dict[str, int]:
        return {"users": len(self._users), "items": len(self._items), **self._rows}
