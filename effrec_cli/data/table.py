"""The reader of the user's own csv or parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.answers import answer_arrays
from effrec_cli.data.blocks import BadRows, Block, Column
from effrec_cli.data.delimited import Dialect, head, read_delimited
from effrec_cli.data.digests import digest_of
from effrec_cli.data.feature_columns import feature_columns
from effrec_cli.data.ids import lookup
from effrec_cli.data.images.items import ItemImages
from effrec_cli.data.kinds import Above, Kind, Label, Number, Text, Whole
from effrec_cli.data.labelled import LabelledRows
from effrec_cli.data.named_files import files_of
from effrec_cli.data.parquet import head as parquet_head
from effrec_cli.data.parquet import is_parquet, parquet_files, read_parquet
from effrec_cli.data.sniff import id_kind, time_kind
from effrec_cli.data.source import TEST, TRAIN, VALID, RawChunk, Say
from effrec_cli.data.table_settings import check_table, reading, separator_of
from effrec_cli.data.titles import Titles
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError
from effrec_cli.schema.dataset_table import LONGEST_TITLE, TableConfig

__all__ = ["LONGEST_TITLE", "TableSource"]

_ROLES = ("user", "item", "time", "rating", "label", "correct", "title")
_NAMES_INSTEAD = "read ids as names by dataset.ids=text"


class TableSource:
    """Any csv or parquet with named columns.

    Args:
        config: the dataset's settings.
        data_root: where digests of the files are remembered.

    Attributes:
        ticks_per_second: of the times that `chunks` yields.
    """

    def __init__(self, config: TableConfig, data_root: Path) -> None:
        self.config, self.data_root = config, data_root
        self.ticks_per_second = 1
        self._bad = BadRows(config.bad_rows)
        self._labelled = self._no_labels()
        self._titles = Titles(config.title_chars)
        self._say: Say = print
        item = config.item or ""
        self._images = ItemImages(config, data_root, (config.items_item or item, item))
        self.usable_items = self._images.usable

    def _no_labels(self) -> LabelledRows:
        """Returns what collects labelled rows, still empty."""
        config = self.config
        return LabelledRows(self.data_root / "spool", config.dense, config.categorical)

    @property
    def labelled_alone(self) -> bool:
        """Whether rows name no users and items, so that they are no interactions (see `arrange`)."""
        return self.config.user is None

    def ensure(self, say: Say) -> None:
        """Checks as `check` does: there is nothing to fetch."""
        self._say = say
        self._images.ensure(say)
        self.check()

    def check(self) -> None:
        """Checks that the files are there and the settings fit each other.

        Raises:
            ConfigError: no path is given, a file is missing, or two settings contradict each other.
        """
        check_table(self.config)
        self._images.check()
        for key, path in self._files().items():
            if not path.exists():
                where = f"dataset.{key}={path}"
                raise ConfigError("There is no such file.", where=where, fix=f"dataset.{key}=PATH")

    def _files(self) -> dict[str, Path]:
        """Returns all files by the setting that names them."""
        return files_of(self.config, ("path", "valid_path", "test_path", "items_path"))

    def fingerprint(self) -> dict[str, Any]:
        """Returns the digests of the files and the settings that decide how they are read."""
        digests = {
            key: [digest_of(file, self.data_root) for file in parquet_files(path)]
            for key, path in self._files().items()
        }
        return {"files": digests, "reading": reading(self.config), **self._images.fingerprint()}

    @property
    def bytes_to_read(self) -> int:
        """The size of the files with rows."""
        named = [path for key, path in self._files().items() if key != "items_path"]
        return sum(file.stat().st_size for path in named for file in parquet_files(path))

    def chunks(self) -> Iterator[RawChunk]:
        """Yields the rows of all parts; rows labelled 0 are kept aside, since they are no interactions.

        Raises:
            DataError: a malformed row, a missing column or an empty file.
        """
        self._images.begin()
        self._bad = BadRows(self.config.bad_rows)
        self._labelled, self._titles = self._no_labels(), Titles(self.config.title_chars)
        files = self._files()
        if "items_path" in files:
            self._check_item_table(files["items_path"])
        columns = self._columns(files["path"])
        ready_made = "valid_path" in files or "test_path" in files
        size = self.bytes_to_read
        for key, part in (("path", TRAIN), ("valid_path", VALID), ("test_path", TEST)):
            if key in files:
                for block in self._read(files[key], columns, self._bad):
                    chunk = self._chunk(block, part if ready_made else None)
                    yield replace(chunk, share=self._bad.read_bytes / size)

    def _chunk(self, block: Block, part: int | None) -> RawChunk:
        """Returns a block's interactions, and keeps its titles and labels."""
        if "title" in block:
            self._titles.keep(block["item"], block["title"])
        if "label" in block:
            self._labelled.add(block, self.ticks_per_second, part)
            if self.labelled_alone:
                nobody = np.empty(0, np.int64)
                return RawChunk(nobody, nobody)
            clicked = block["label"] == 1
            block = {role: values[clicked] for role, values in block.items()}
        rating = block["correct"].astype(np.float32) if "correct" in block else block.get("rating")
        return RawChunk(block["user"], block["item"], block.get("time"), rating, part)

    def _read(self, path: Path, columns: list[Column], bad: BadRows) -> Iterator[Block]:
        if is_parquet(path):
            return read_parquet(path, columns, bad)
        return read_delimited(path, self._dialect(path), columns, bad)

    def _dialect(self, path: Path) -> Dialect:
        """Returns how a file is written; a table of items has a header line whatever the rows have."""
        with_names = self.config.columns and path != self._files().get("items_path")
        names = tuple(self.config.columns) if with_names else None
        return Dialect(separator_of(self.config.separator), names)

    def _columns(self, path: Path) -> list[Column]:
        """Returns the columns to read; their kinds are judged by the first file for all."""
        config = self.config
        label = Label() if config.label_above is None else Above(config.label_above)
        kinds: dict[str, Kind] = {
            "rating": Number(),
            "label": label,
            "correct": label,
            "title": Text(required=False),
        }
        for role, name in (("user", config.user), ("item", config.item)):
            if name is not None:
                kinds[role] = self._id_kind(path, name)
        if config.time is not None:
            kinds["time"], self.ticks_per_second = self._time_kind(path, config.time)
        named = {role: getattr(config, role) for role in _ROLES}
        if config.items_path is not None:
            named["title"] = None
        return [
            Column(role, name, kinds[role], _NAMES_INSTEAD if role in ("user", "item") else "")
            for role, name in named.items()
            if name is not None
        ] + feature_columns(config.dense, config.categorical)

    def _id_kind(self, path: Path, name: str) -> Kind:
        return id_kind(self._samples(path, name), self.config.ids)

    def _time_kind(self, path: Path, name: str) -> tuple[Kind, int]:
        return time_kind(self._samples(path, name), self.config.time_unit)

    def _samples(self, path: Path, name: str) -> list[str]:
        """Returns the first values of a column as text; none where there is no such column."""
        if is_parquet(path):
            return parquet_head(path, name)
        return head(path, self._dialect(path), name)

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns these raw item ids' titles, "" where an item has none; None without a title column."""
        if self.config.title is None:
            return None
        files = self._files()
        if "items_path" in files:
            self._read_item_table(files["items_path"], item_ids)
        return self._titles.of(item_ids)

    def _item_columns(self, text: bool) -> list[Column]:
        """Returns the columns of the table of items, whose ids are texts or whole numbers."""
        named = str(self.config.items_item or self.config.item)
        return [
            Column("item", named, Text() if text else Whole(), setting="items_item"),
            Column("title", str(self.config.title), Text(required=False)),
        ]

    def _check_item_table(self, path: Path) -> None:
        """Refuses a table of items that lacks a column, before the log is read."""
        columns = self._item_columns(text=True)
        if not all(self._samples(path, column.name) for column in columns):
            next(self._read(path, columns, BadRows(self.config.bad_rows)), None)

    def _read_item_table(self, path: Path, item_ids: NDArray[Any]) -> None:
        """Keeps the titles of the wanted items from a table of items."""
        text = item_ids.dtype.kind == "U"
        bad = BadRows(self.config.bad_rows)
        for block in self._read(path, self._item_columns(text), bad):
            wanted = lookup(item_ids, block["item"].astype(np.str_) if text else block["item"]) >= 0
            self._titles.keep(block["item"][wanted], block["title"][wanted])
        if bad.dropped:
            self._say(f"  {bad.dropped:,} malformed rows of {path} left out")

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns answers (see `answer_arrays`) or labelled rows (see `LabelledRows`), and images, if any."""
        images = self._images.side(data)
        if self.config.correct is not None:
            return images | answer_arrays(data)
        return images | (self._labelled.finish() if self.config.label is not None else {})

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns None: nobody knows the best ranker of real data."""
        return None

    def stats(self) -> dict[str, int]:
        """Returns the rows read, those dropped as malformed or labelled 0, and the images."""
        return {
            "rows_read": self._bad.read,
            "dropped_bad_rows": self._bad.dropped,
            "dropped_labelled_0": 0 if self.labelled_alone else self._labelled.zeros,
            **self._images.stats(),
        }
