"""The reader of files with one user's items a line, in their order, and of items' titles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import BadRows
from effrec_cli.data.digests import digest_of
from effrec_cli.data.images.items import ItemImages
from effrec_cli.data.kinds import Kind
from effrec_cli.data.named_files import check_files, files_of
from effrec_cli.data.sequence_lines import Lines, item_titles, samples
from effrec_cli.data.sniff import id_kind
from effrec_cli.data.source import RawChunk, Say
from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_sequences import SequencesConfig

_CHUNK_ROWS = 1 << 18


class SequencesSource:
    """Users' items in the order of their lines, without times.

    Args:
        config: the dataset's settings.
        data_root: where digests of the files are remembered.
    """

    def __init__(self, config: SequencesConfig, data_root: Path) -> None:
        self.config, self.data_root = config, data_root
        self._bad = BadRows(config.bad_rows)
        self._titles: dict[Any, str] | None = None
        self._images = ItemImages(config, data_root, ("item", "item_id"))
        self.usable_items = self._images.usable

    def ensure(self, say: Say) -> None:
        """Checks as `check` does: there is nothing to fetch."""
        self._images.ensure(say)
        self.check()

    def check(self) -> None:
        """Checks that the files are there.

        Raises:
            ConfigError: no path is given, or a file is missing.
        """
        check_files(self.config, "dataset.path=USERS_FILE dataset.items_path=ITEMS_FILE")
        self._images.check()

    def fingerprint(self) -> dict[str, Any]:
        """Returns the digests of the files and the settings that decide how they are read."""
        config = self.config
        return {
            "files": {key: digest_of(path, self.data_root) for key, path in files_of(self.config).items()},
            "reading": {"ids": config.ids, "bad_rows": config.bad_rows, "title_chars": config.title_chars},
            **self._images.fingerprint(),
        }

    @property
    def bytes_to_read(self) -> int:
        """The size of the file of users."""
        return files_of(self.config)["path"].stat().st_size

    def chunks(self) -> Iterator[RawChunk]:
        """Yields every user's items, in the order of the file.

        Raises:
            DataError: a malformed line, an item that the file of items does not list, or an empty file.
        """
        self._images.begin()
        self._bad = BadRows(self.config.bad_rows)
        path = files_of(self.config)["path"]
        users, items = self._kinds(path)
        self._titles = self._listed(items)
        lines = Lines(path, users, items, self._bad, self._titles)
        waiting: list[tuple[Any, list[Any]]] = []
        count = 0
        for user, own in lines:
            waiting.append((user, own))
            count += len(own)
            if count >= _CHUNK_ROWS:
                yield replace(_chunk(waiting, users, items), share=lines.share)
                waiting, count = [], 0
        if waiting:
            yield _chunk(waiting, users, items)
        elif not self._bad.read:
            raise _rowless(path)

    def _kinds(self, path: Path) -> tuple[Kind, Kind]:
        """Returns how users and items are read, as their first ones look."""
        users, items = samples(path)
        return id_kind(users, self.config.ids), id_kind(items, self.config.ids)

    def _listed(self, kind: Kind) -> dict[Any, str] | None:
        """Returns the titles by item, or None without a file of them."""
        path = files_of(self.config).get("items_path")
        if path is None:
            return None
        if not path.stat().st_size:
            raise _rowless(path)
        return item_titles(path, kind, self._bad, self.config.title_chars)

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns the titles, or None without a file of them."""
        if self._titles is None:
            return None
        return np.array([self._titles[item] for item in item_ids.tolist()], dtype=np.str_)

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns the images, where they are asked for."""
        return self._images.side(data)

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns None: nobody knows the best ranker of real data."""
        return None

    def stats(self) -> dict[str, int]:
        """Returns the interactions read, what was dropped as malformed, and the images."""
        read = {"rows_read": self._bad.read, "dropped_bad_rows": self._bad.dropped}
        return read | self._images.stats()


def _chunk(lines: list[tuple[Any, list[Any]]], users: Kind, items: Kind) -> RawChunk:
    names = [user for user, own in lines for _ in own]
    return RawChunk(
        np.array(names, dtype=users.dtype),
        np.array([item for _, own in lines for item in own], dtype=items.dtype),
    )


def _rowless(path: Path) -> DataError:
    return DataError("The file has no rows.", where=str(path), fix="check that it was written whole")
