"""The reader of GroupLens' MovieLens releases, in the three layouts they were published in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import BadRows, Column
from effrec_cli.data.delimited import Dialect, read_delimited
from effrec_cli.data.fetch import Remote
from effrec_cli.data.images.items import ItemImages
from effrec_cli.data.kinds import Number, Whole
from effrec_cli.data.movielens_about import Item, item_genres, read_items, read_users, user_features
from effrec_cli.data.movielens_releases import count_ratings, doubt, refuse_another, with_files
from effrec_cli.data.raw import RawFiles
from effrec_cli.data.source import RawChunk, Say
from effrec_cli.data.types import RecData
from effrec_cli.schema.dataset_movielens import MovieLensConfig


@dataclass(frozen=True)
class Layout:
    """The files of one layout.

    Attributes:
        ratings: file of ratings.
        items: file of titles and genres.
        users: file of user features, published with 100k and 1m only.
        dialect: how the ratings are written.
        columns: the ratings' columns for user, item, rating and time.
    """

    ratings: str
    items: str
    users: str | None
    dialect: Dialect
    columns: tuple[str, str, str, str] = ("user", "item", "rating", "time")


_NAMED = ("user", "item", "rating", "time")
LAYOUTS = {
    "csv": Layout("ratings.csv", "movies.csv", None, Dialect(), ("userId", "movieId", "rating", "timestamp")),
    "dat": Layout("ratings.dat", "movies.dat", "users.dat", Dialect("::", _NAMED, quoted=False)),
    "tab": Layout("u.data", "u.item", "u.user", Dialect("\t", _NAMED, quoted=False)),
}


class MovieLensSource:
    """One MovieLens release under `<data_root>/raw/<name>`.

    Args:
        config: the dataset's settings.
        data_root: where raw data live.
    """

    def __init__(self, config: MovieLensConfig, data_root: Path) -> None:
        self.config = config
        self.layout = LAYOUTS[config.layout]
        optional = [self.layout.users] if self.layout.users else []
        required = (self.layout.ratings, self.layout.items)
        self.raw = RawFiles(data_root, config.name, required, optional, self._check, with_files)
        self._bad = BadRows(config.bad_rows)
        self._items: dict[int, Item] | None = None
        self._images = ItemImages(config, data_root, ("movieId", "item"))
        self.usable_items = self._images.usable

    def check(self) -> None:
        """Checks what is said of images; the release itself may still be fetched.

        Raises:
            ConfigError: there are none where they should be, or none are named.
        """
        self._images.check()

    def ensure(self, say: Say) -> None:
        """Downloads the release where it is not there yet.

        Raises:
            DataError: it cannot be downloaded; the fix is to import it.
        """
        self._images.ensure(say)
        if self.raw.present:
            return
        config = self.config
        remote = Remote(config.name, tuple(config.urls), config.archive_bytes, config.digest, config.license)
        self.raw.fetch(remote, say)

    def import_from(self, path: Path, say: Say) -> None:
        """Takes the release from a folder or an archive of the user's.

        Raises:
            ConfigError: there is no such path.
            DataError: it is not laid out as this release, or it is another one.
        """
        self.raw.import_from(path, self.config.digest, say)
        note = doubt(self.config.name, self._count(self.raw.folder))
        if note:
            say(f"  {note}")

    def fingerprint(self) -> dict[str, Any]:
        """Returns the digests of the files, their layout, and what happens to malformed rows."""
        return {
            "files": self.raw.fingerprint(),
            "layout": self.config.layout,
            "bad_rows": self.config.bad_rows,
            **self._images.fingerprint(),
        }

    @property
    def bytes_to_read(self) -> int:
        """The size of the ratings."""
        return (self.raw.folder / self.layout.ratings).stat().st_size

    def chunks(self) -> Iterator[RawChunk]:
        """Yields all ratings in file order.

        Raises:
            DataError: a malformed row, or an empty file.
        """
        self._images.begin()
        self._bad = BadRows(self.config.bad_rows)
        yield from self._chunks(self.raw.folder, self._bad)

    def _chunks(self, folder: Path, bad: BadRows) -> Iterator[RawChunk]:
        user, item, rating, time = self.layout.columns
        columns = [
            Column("user", user, Whole(low=1)),
            Column("item", item, Whole(low=1)),
            Column("rating", rating, Number()),
            Column("time", time, Whole(low=0)),
        ]
        path = folder / self.layout.ratings
        for block in read_delimited(path, self.layout.dialect, columns, bad):
            share = bad.read_bytes / path.stat().st_size
            yield RawChunk(block["user"], block["item"], block["time"], block["rating"], share=share)

    def _check(self, folder: Path) -> None:
        """Raises DataError where new files are another release, or its first rows cannot be read."""
        refuse_another(self.config.name, self._count(folder))
        next(self._chunks(folder, BadRows(self.config.bad_rows)))
        read_items(folder / self.layout.items, self.config.layout)

    def _count(self, folder: Path) -> int:
        return count_ratings(folder / self.layout.ratings, header=self.layout.dialect.names is None)

    def _about_items(self) -> dict[int, Item]:
        if self._items is None:
            self._items = read_items(self.raw.folder / self.layout.items, self.config.layout)
        return self._items

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns the titles; "" for a rated movie that the release does not list."""
        items = self._about_items()
        return np.array([items[i].title if i in items else "" for i in item_ids.tolist()], dtype=np.str_)

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns genres, user features where the release has them, and images where they are asked for.

        Returns:
            `item_genres` uint8 [V, G], 1 where the item has the genre; `genre_names` [G]; with 100k and 1m
            also `user_gender` int8 (0 F, 1 M), `user_age` int16, `user_occupation` int16, an index into
            `occupation_names`, and `user_zip`; -1 or "" where a user is not listed.
        """
        side = self._images.side(data) | item_genres(self._about_items(), data.items.ids)
        users = self.raw.paths().get(self.layout.users or "")
        if users is not None:
            features, names = read_users(users, self.config.layout)
            side |= user_features(features, names, data.users.ids)
        return side

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns None: nobody knows the best ranker of real data."""
        return None

    def stats(self) -> dict[str, int]:
        """Returns the rows read, those dropped as malformed, and the images."""
        read = {"rows_read": self._bad.read, "dropped_bad_rows": self._bad.dropped}
        return read | self._images.stats()
