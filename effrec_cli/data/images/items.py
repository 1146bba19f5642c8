"""The images of a dataset's items, from the settings to the array beside the prepared data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.cache import open_array
from effrec_cli.data.ids import lookup
from effrec_cli.data.images.decode import require_pillow
from effrec_cli.data.images.fill import Bad, fill_rows
from effrec_cli.data.images.found import Store
from effrec_cli.data.images.rowfile import RowFile, array_file, scratch_file
from effrec_cli.data.images.stores import open_store
from effrec_cli.data.images.told import refuse, refuse_if_none, write_list
from effrec_cli.data.source import Say
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.item_images import ImagesConfig

ARRAY = "item_images"
_HOW = 1
"""Raised when the same files would be decoded to other pixels."""


class ItemImages:
    """Images by a dataset's settings; does nothing where none are asked for.

    Args:
        config: the dataset's settings.
        data_root: where digests, and lists of what is wrong, are kept.
        columns: names that a parquet's column of item ids may have, where `image_item` names none.
    """

    def __init__(self, config: ImagesConfig, data_root: Path, columns: Sequence[str]) -> None:
        self.config, self.data_root = config, data_root
        self._columns = (config.image_item,) if config.image_item else tuple(columns)
        self._counts: Counter[str] = Counter()
        self._say: Say = print
        self._bad: dict[str, Bad] = {}
        self._decoded: tuple[NDArray[Any], RowFile] | None = None
        self._open = ExitStack()

    @property
    def asked(self) -> bool:
        """Returns whether images are asked for."""
        return self.config.images is not None

    def check(self) -> None:
        """Checks what settings and paths alone can tell.

        Raises:
            ConfigError: settings of images without images, or no images are there.
        """
        if self.asked:
            self._store()
            return
        own = {each.name for each in fields(ImagesConfig)} & {"image_item", "image_size", "bad_images"}
        usual = ImagesConfig()
        for name in sorted(own):
            given = getattr(self.config, name)
            if given != getattr(usual, name):
                raise ConfigError(
                    "It says how images are read, but no images are named.",
                    where=f"dataset.{name}={given}",
                    fix="dataset.images=PATH, or leave it out",
                )

    def ensure(self, say: Say) -> None:
        """Checks as `check` does, and tells the user through `say` from now on."""
        self._say = say
        self.check()

    def _store(self) -> Store:
        return open_store(Path(str(self.config.images)).expanduser(), self._columns)

    def fingerprint(self) -> dict[str, Any]:
        """Returns what decides the array; nothing without images, so that older prepared data stay known."""
        if not self.asked:
            return {}
        found = {
            "digest": self._store().digest(self.data_root),
            "item": self.config.image_item,
            "size": self.config.image_size,
            "bad": self.config.bad_images,
            "how": _HOW,
        }
        return {"images": found}

    def begin(self) -> None:
        """Raises EnvironmentFault where images are asked for and Pillow is not installed; forgets counts."""
        if self.asked:
            require_pillow()
        self._counts = Counter()

    def usable(self, item_ids: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Returns which raw items have an image, where those without are to be dropped; else None.

        The images are decoded here, since what cannot be decoded must be known before rows are filtered, and
        kept in a file without a name until `side` takes those that are left.

        Raises:
            DataError: no item at all has an image.
            EnvironmentFault: the disk is full.
        """
        if not self.asked or self.config.bad_images != "drop":
            return None
        self._open.close()
        rows = self._open.enter_context(scratch_file(self.data_root / "prepared", self._shape(len(item_ids))))
        self._decoded = item_ids, rows
        bad = self._fill(item_ids, rows)
        keep = np.ones(len(item_ids), dtype=bool)
        keep[list(bad)] = False
        return keep

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns `item_images` uint8 [V, size, size, 3], RGB, written into the prepared folder row by row.

        Raises:
            DataError: an item has no image that can be decoded, and the rule is `error`.
            EnvironmentFault: the disk is full.
        """
        if not self.asked:
            return {}
        assert data.folder is not None  # what is prepared has one
        before = self.fingerprint()
        name = f"side.{ARRAY}"
        with array_file(data.folder / f"{name}.npy", self._shape(data.num_items)) as rows:
            if self._decoded is None:
                self._fill(data.items.ids, rows)
            else:
                self._take(data.items.ids, rows)
        if self.fingerprint() != before:
            raise DataError("The images changed while they were read.", fix="start again when they are whole")
        self._tell(data.folder)
        return {ARRAY: open_array(data.folder, name)}

    def _shape(self, count: int) -> tuple[int, ...]:
        size = self.config.image_size
        return count, size, size, 3

    def _fill(self, item_ids: NDArray[Any], rows: RowFile) -> dict[int, Bad]:
        """Decodes all images of these items, and returns which rows have none."""
        store, rows_of = self._store(), {str(each): row for row, each in enumerate(item_ids.tolist())}
        self._say(f"  decoding the images of {len(rows_of):,} items to {self.config.image_size} pixels")
        bad = fill_rows(store, rows_of, self.config.image_size, rows, self._say)
        self._bad = {str(item_ids[row]): each for row, each in bad.items()}
        self._counts = Counter(f"images_{each.kind}" for each in bad.values())
        self._counts["images"] = len(rows_of) - len(bad)
        refuse_if_none(store, item_ids, bad, self._where)
        return bad

    @property
    def _where(self) -> str:
        return f"dataset.images={self.config.images}"

    def _take(self, item_ids: NDArray[Any], rows: RowFile) -> None:
        """Copies the rows of the items that are left from those decoded before."""
        assert self._decoded is not None
        known, decoded = self._decoded
        for row, place in enumerate(lookup(known, item_ids).tolist()):
            rows.write(row, decoded.read(place))
        self._decoded = None
        self._open.close()

    def _tell(self, folder: Path) -> None:
        """Refuses items without images, or lists them in the prepared folder."""
        bad = self._bad
        if bad and self.config.bad_images == "error":
            refuse(bad, self._counts, self._where, self.data_root / "bad_images" / f"{self.config.name}.tsv")
        if bad:
            path = folder / "bad_images.tsv"
            write_list(path, bad)
            done = "black" if self.config.bad_images == "zero" else "dropped"
            self._say(f"  {len(bad):,} items without a usable image are {done}; {path.name} names them")

    def stats(self) -> dict[str, int]:
        """Returns how many images were decoded, and how many items have none, by reason."""
        return dict(sorted(self._counts.items())) if self.asked else {}
