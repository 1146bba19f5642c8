"""The reader of Amazon reviews as they are published, and of the metadata with titles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import BadRows, Column
from effrec_cli.data.digests import digest_of
from effrec_cli.data.ids import lookup
from effrec_cli.data.images.items import ItemImages
from effrec_cli.data.json_lines import first_object, read_json_lines
from effrec_cli.data.kinds import Number, Text, Whole
from effrec_cli.data.named_files import check_files, files_of
from effrec_cli.data.source import RawChunk, Say
from effrec_cli.data.titles import Titles
from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_amazon import AmazonConfig


@dataclass(frozen=True)
class Layout:
    """The keys of one release.

    Attributes:
        user, item, rating, time: of a review; `item` of the metadata too.
        ticks_per_second: of its times.
    """

    user: str
    item: str
    rating: str
    time: str
    ticks_per_second: int


LAYOUTS = {
    "2018": Layout("reviewerID", "asin", "overall", "unixReviewTime", 1),
    "2023": Layout("user_id", "parent_asin", "rating", "timestamp", 1000),
}


class AmazonSource:
    """Reviews of one category.

    Args:
        config: the dataset's settings.
        data_root: where digests of the files are remembered.

    Attributes:
        ticks_per_second: of the times that `chunks` yields.
    """

    def __init__(self, config: AmazonConfig, data_root: Path) -> None:
        self.config, self.data_root = config, data_root
        self.ticks_per_second = 1
        self._bad = BadRows(config.bad_rows)
        self._say: Say = print
        self._images = ItemImages(config, data_root, ("parent_asin", "asin", "item"))
        self.usable_items = self._images.usable

    def ensure(self, say: Say) -> None:
        """Checks as `check` does: there is nothing to fetch."""
        self._say = say
        self._images.ensure(say)
        self.check()

    def check(self) -> None:
        """Checks that the files are there.

        Raises:
            ConfigError: no path is given, or a file is missing.
        """
        check_files(self.config, "dataset.path=REVIEWS dataset.items_path=METADATA")
        self._images.check()

    def fingerprint(self) -> dict[str, Any]:
        """Returns the digests of the files and the settings that decide how they are read."""
        config = self.config
        reading = {name: getattr(config, name) for name in ("layout", "bad_rows", "title_chars")}
        digests = {key: digest_of(path, self.data_root) for key, path in files_of(self.config).items()}
        return {"files": digests, "reading": reading, **self._images.fingerprint()}

    @property
    def bytes_to_read(self) -> int:
        """The size of the reviews as they lie on the disk."""
        return files_of(self.config)["path"].stat().st_size

    def _layout(self) -> Layout:
        """Returns the keys of the reviews: those asked for, or those of the first one."""
        if self.config.layout != "auto":
            return LAYOUTS[self.config.layout]
        path = files_of(self.config)["path"]
        keys = first_object(path).keys()
        for layout in LAYOUTS.values():
            if {layout.user, layout.item} <= keys:
                return layout
        raise DataError(
            "The first review has the keys of neither release.",
            where=f"{path}, which has {', '.join(sorted(keys))[:200]}",
            fix="; ".join(f"{name}: {each.user}, {each.item}" for name, each in LAYOUTS.items()),
        )

    def chunks(self) -> Iterator[RawChunk]:
        """Yields all reviews in file order.

        Raises:
            DataError: a malformed line, or an empty file.
        """
        self._images.begin()
        self._bad, layout = BadRows(self.config.bad_rows), self._layout()
        self.ticks_per_second = layout.ticks_per_second
        columns = [
            Column("user", layout.user, Text()),
            Column("item", layout.item, Text()),
            Column("rating", layout.rating, Number()),
            Column("time", layout.time, Whole()),
        ]
        for block in read_json_lines(files_of(self.config)["path"], columns, self._bad):
            share = self._bad.read_bytes / self.bytes_to_read
            yield RawChunk(block["user"], block["item"], block["time"], block["rating"], share=share)

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns the titles in the metadata, "" for an item that has none; None without metadata."""
        path = files_of(self.config).get("items_path")
        if path is None:
            return None
        titles, bad = Titles(self.config.title_chars), BadRows(self.config.bad_rows)
        columns = [
            Column("item", self._layout().item, Text()),
            Column("title", "title", Text(required=False)),
        ]
        for block in read_json_lines(path, columns, bad):
            items = block["item"].astype(np.str_)
            wanted = lookup(item_ids, items) >= 0
            titles.keep(items[wanted], block["title"][wanted])
        if bad.dropped:
            self._say(f"  {bad.dropped:,} malformed lines of {path} left out")
        return titles.of(item_ids)

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns the images, where they are asked for."""
        return self._images.side(data)

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns None: nobody knows the best ranker of real data."""
        return None

    def stats(self) -> dict[str, int]:
        """Returns the reviews read, those dropped as malformed, and the images."""
        read = {"rows_read": self._bad.read, "dropped_bad_rows": self._bad.dropped}
        return read | self._images.stats()
