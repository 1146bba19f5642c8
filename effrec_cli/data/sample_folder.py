"""The reader of a folder that `effrec data sample` has made: prepared already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from effrec_cli.data.load import load_prepared
from effrec_cli.data.sampling.folder import kept_columns
from effrec_cli.data.source import RawChunk, Say
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError
from effrec_cli.schema.dataset_base import FilterConfig, SplitConfig
from effrec_cli.schema.dataset_sample import SampleFolderConfig
from effrec_cli.schema.sample import is_sampled

_FIX = "effrec data sample NAME --out FOLDER dataset.sample.rate=0.1"


class SampleSource:
    """A prepared folder that stands where the user put it.

    Args:
        config: the dataset's settings.
        data_root: where data live; nothing of these does.

    Attributes:
        ready_made: the folder, which `load` opens as it is; None where none is named.
    """

    def __init__(self, config: SampleFolderConfig, data_root: Path) -> None:
        self.config = config
        self.ready_made = None if config.path is None else Path(config.path).expanduser()

    def ensure(self, say: Say) -> None:
        """Checks as `check` does: there is nothing to fetch."""
        self.check()

    def check(self) -> None:
        """Checks that there is a folder, and that no setting asks for what was decided when it was made.

        Raises:
            ConfigError: no path is given, it is no folder, or a setting would do nothing.
        """
        if self.ready_made is None:
            raise ConfigError(
                f"dataset={self.config.name} needs a folder.", where="dataset.path is not set", fix=_FIX
            )
        if not self.ready_made.is_dir():
            raise ConfigError("There is no such folder.", where=f"dataset.path={self.ready_made}", fix=_FIX)
        unread = {
            "dataset.filter": self.config.filter != FilterConfig(),
            "dataset.split": self.config.split != SplitConfig(),
            "dataset.sample": is_sampled(self.config.sample),
        }
        for name in (name for name, asked in unread.items() if asked):
            raise ConfigError(
                "A sample's rows and its split were decided when it was made.",
                where=name,
                fix=f"leave {name} out, or make another: {_FIX}",
            )

    def _data(self) -> RecData:
        self.check()
        assert self.ready_made is not None
        return load_prepared(self.ready_made)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the content hash of the folder's data."""
        return {"content": self._data().content_hash}

    def chunks(self) -> Iterator[RawChunk]:
        """Yields the kept training rows with their raw ids, user after user."""
        for rows in kept_columns(self._data()):
            yield RawChunk(rows["user"], rows["item"], rows.get("time"), rows.get("rating"))

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any] | None:
        """Returns the titles by row number: the catalogue is whole and keeps its order."""
        return self._data().items.titles

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns what lies beside the interactions."""
        return self._data().side

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns the best possible ranker's score, where the parent knew it."""
        return self._data().ceiling

    def stats(self) -> dict[str, int]:
        """Returns how many training rows there are."""
        return {"rows_read": self._data().num_train}
