"""The reader of Duolingo's data of the 2018 shared task: exercises with a prompt, right or wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.answers import answer_arrays
from effrec_cli.data.atomic import read_json
from effrec_cli.data.blocks import BadRows
from effrec_cli.data.digests import digest_of
from effrec_cli.data.duolingo_rows import Exercise, read_exercises, read_key
from effrec_cli.data.raw import SOURCE, RawFiles
from effrec_cli.data.source import TEST, TRAIN, VALID, RawChunk, Say
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_duolingo import DuolingoConfig

_PARTS = {"train": TRAIN, "dev": VALID, "test": TEST}
_ENDINGS = ("train", "dev", "dev.key", "test", "test.key")
_CHUNK_ROWS = 1 << 16


class DuolingoSource:
    """One track: every exercise with a prompt is an answer to it, right where no token is a mistake.

    Prompts are items, lower-cased; the parts train, dev and test are the ready-made split.

    Args:
        config: the dataset's settings.
        data_root: where raw data live.
    """

    def __init__(self, config: DuolingoConfig, data_root: Path) -> None:
        self.config, self.data_root = config, data_root
        names = tuple(f"{config.files}.{ending}" for ending in _ENDINGS)
        self.raw = RawFiles(data_root, config.name, names, (), self._check_new, _tracks_with)
        self._bad = BadRows(config.bad_rows)
        self._without_prompt = 0

    def ensure(self, say: Say) -> None:
        """Checks as `check` does, and imports an archive that `dataset.path` names."""
        archive = self._archive()
        if archive is not None and not self._is_imported(archive):
            self.import_from(archive, say)
        self.check()

    def check(self) -> None:
        """Checks that the files are there.

        Raises:
            ConfigError: the path that is named is not there.
            DataError: a file is missing, or nothing has been imported.
        """
        path = self._path()
        if path is not None and not path.exists():
            raise ConfigError(
                "There is no such file or folder.", where=f"dataset.path={path}", fix="dataset.path=PATH"
            )
        if path is None and not self.raw.present:
            raise self._absent()
        if path is not None and path.is_dir():
            missing = [file.name for file in self._files().values() if not file.is_file()]
            if missing:
                raise DataError(
                    f"This is not the track of {self.config.name}: {' and '.join(missing)} not found.",
                    where=f"dataset.path={path}",
                    fix=f"unpack {self.config.archive} there, keys included",
                )

    def _absent(self) -> DataError:
        name = self.config.name
        return DataError(
            "Duolingo's data are not downloaded for you: their publisher asks you to accept the terms.",
            where=f"{self.raw.folder} is not there",
            fix=f"get {self.config.archive} from https://doi.org/10.7910/DVN/8SWHNO, then "
            f"`effrec data import {name} FILE`, or dataset.path=FILE (or a folder with it unpacked)",
        )

    def import_from(self, path: Path, say: Say) -> None:
        """Takes the track from a folder or an archive.

        Raises:
            ConfigError: there is no such path.
            DataError: a file is missing or cannot be read.
        """
        self.raw.import_from(path, None, say)

    def _path(self) -> Path | None:
        return None if self.config.path is None else Path(self.config.path).expanduser()

    def _archive(self) -> Path | None:
        path = self._path()
        return path if path is not None and path.is_file() else None

    def _is_imported(self, archive: Path) -> bool:
        origin = read_json(self.raw.folder / SOURCE) or {}
        return self.raw.present and origin.get("from") == str(archive.resolve())

    def _files(self) -> dict[str, Path]:
        """Returns the files by their endings, in the folder that is named or among the raw files."""
        path = self._path()
        folder = path if path is not None and path.is_dir() else self.raw.folder
        return {ending: folder / f"{self.config.files}.{ending}" for ending in _ENDINGS}

    def fingerprint(self) -> dict[str, Any]:
        """Returns the digests of the files, and what happens to malformed exercises."""
        digests = {ending: digest_of(path, self.data_root) for ending, path in self._files().items()}
        return {"files": digests, "bad_rows": self.config.bad_rows}

    @property
    def bytes_to_read(self) -> int:
        """The size of the files with exercises."""
        files = self._files()
        return sum(files[part].stat().st_size for part in _PARTS)

    def chunks(self) -> Iterator[RawChunk]:
        """Yields the exercises with a prompt in file order, whether they are right in place of a rating.

        Raises:
            DataError: a malformed exercise, or a file without any.
        """
        self._bad, self._without_prompt = BadRows(self.config.bad_rows), 0
        files, size = self._files(), self.bytes_to_read
        for name, part in _PARTS.items():
            key = read_key(files[f"{name}.key"]) if name != "train" else None
            exercises = self._with_prompt(read_exercises(files[name], key, self._bad))
            while some := list(islice(exercises, _CHUNK_ROWS)):
                yield _chunk(some, part, self._bad.read_bytes / size)

    def _with_prompt(self, exercises: Iterator[Exercise]) -> Iterator[Exercise]:
        for exercise in exercises:
            if exercise.prompt:
                yield exercise
            else:
                self._without_prompt += 1

    def _check_new(self, folder: Path) -> None:
        """Raises DataError where the first exercise of a part, or its key, cannot be read."""
        for name in _PARTS:
            path = folder / f"{self.config.files}.{name}"
            key = read_key(path.with_name(f"{path.name}.key")) if name != "train" else None
            next(read_exercises(path, key, BadRows("error")))

    def titles(self, item_ids: NDArray[Any]) -> NDArray[Any]:
        """Returns the prompts, which are the ids."""
        return item_ids

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns the answers (see `answer_arrays`)."""
        return answer_arrays(data)

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns None: nobody knows the best possible of real data."""
        return None

    def stats(self) -> dict[str, int]:
        """Returns the exercises read, and those left out as malformed or without a prompt."""
        return {
            "rows_read": self._bad.read,
            "dropped_bad_rows": self._bad.dropped,
            "dropped_without_prompt": self._without_prompt,
        }


def _tracks_with(names: Collection[str]) -> list[str]:
    """Returns the datasets whose files these are, by the tracks they are named after."""
    tracks = {name[:5] for name in names if ".slam." in name}
    return [f"duolingo-{track.replace('_', '-')}" for track in ("es_en", "fr_en") if track in tracks]


def _chunk(exercises: list[Exercise], part: int, share: float) -> RawChunk:
    return RawChunk(
        users=np.array([exercise.user for exercise in exercises], dtype=object),
        items=np.array([exercise.prompt for exercise in exercises], dtype=object),
        times=np.array([exercise.time for exercise in exercises], dtype=np.int64),
        ratings=np.array([exercise.mistakes == 0 for exercise in exercises], dtype=np.float32),
        part=part,
        share=share,
    )
