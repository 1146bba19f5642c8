"""Raw files as they came, in `<data_root>/raw/<name>/`; `source.json` has their origin and digests."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effrec_cli.data.archive import bare_names, unpack
from effrec_cli.data.atomic import disk_faults, locked, new_folder, read_json, write_json
from effrec_cli.data.cache import hash_file
from effrec_cli.data.digests import digest_of
from effrec_cli.data.fetch import Remote, check_digest, fetch
from effrec_cli.data.source import Say
from effrec_cli.errors import ConfigError, DataError

SOURCE = "source.json"
_RECORDED = "recorded.json"
_PAPERS = re.compile(r"(readme|licen[cs]e|copying)", re.IGNORECASE)

Check = Callable[[Path], None]
"""Raises DataError where a folder of raw files is not as its publisher lays it out."""

Fill = Callable[[Path, Path], None]
"""Brings the files of the user's folder or archive (the first) into a new folder (the second)."""


@dataclass(frozen=True)
class RawFiles:
    """The raw files of one dataset.

    Attributes:
        data_root: where data live.
        name: name of the dataset.
        required: files it cannot be read without.
        optional: files that are kept where they are published.
        check: looks into a new folder before it takes its place.
        guess: names the datasets that are published with such files.
        fill: brings the user's files into a new folder, where their bare names do not tell which is which.
    """

    data_root: Path
    name: str
    required: Sequence[str]
    optional: Sequence[str]
    check: Check
    guess: Callable[[Collection[str]], list[str]] = field(default=lambda names: [])
    fill: Fill | None = None

    @property
    def folder(self) -> Path:
        """Returns the folder of the raw files."""
        return self.data_root / "raw" / self.name

    @property
    def present(self) -> bool:
        """Returns whether all required files are there."""
        return all((self.folder / name).is_file() for name in self.required)

    def paths(self) -> dict[str, Path]:
        """Returns the files there are, by name."""
        every = {name: self.folder / name for name in (*self.required, *self.optional)}
        return {name: path for name, path in every.items() if path.is_file()}

    def fetch(self, remote: Remote, say: Say) -> None:
        """Downloads and unpacks the archive, unless another process has done so in the meantime.

        Raises:
            DataError: it cannot be downloaded, or is not what was published.
        """
        with self._lock(say, "downloading"):
            if self.present:
                return
            recorded = (read_json(self.data_root / _RECORDED) or {}).get(self.name)
            archive = self.folder.with_name(f"{self.name}.archive")
            fetch(replace(remote, digest=remote.digest or recorded), archive, say)
            try:
                self._install_archive(archive, remote, recorded, say)
            finally:
                archive.unlink()

    def _install_archive(self, archive: Path, remote: Remote, recorded: str | None, say: Say) -> None:
        digest = remote.digest or recorded or f"sha256:{hash_file(archive)}"
        origin = {"from": list(remote.urls), "archive_digest": digest, "license": remote.license}
        self._install(archive, origin)
        say(f"Unpacked {self.name} into {self.folder}")
        if remote.digest is None and recorded is None:
            known = read_json(self.data_root / _RECORDED) or {}
            write_json(self.data_root / _RECORDED, {**known, self.name: digest})
            say(
                f"  no digest is published; recorded on first use: {digest}; later downloads must have it too"
            )

    def import_from(self, path: Path, published: str | None, say: Say) -> None:
        """Copies the raw files out of a folder or an archive; `path` itself stays as it is.

        Raises:
            ConfigError: there is no such path.
            DataError: the files are not laid out as published.
        """
        if not path.exists():
            fix = f"effrec data import {self.name} PATH"
            raise ConfigError("There is no such file or folder.", where=str(path), fix=fix)
        origin: dict[str, Any] = {"from": str(path.resolve())}
        if path.is_file() and published is not None:
            differs = check_digest(path, published)
            origin["archive_digest"] = differs or published
            if differs:
                say(f"  note: this archive ({differs}) is not the published one ({published})")
        with self._lock(say, "importing"):
            self._install(path, origin)
        say(f"Imported {self.name} into {self.folder}")

    def _lock(self, say: Say, doing: str) -> Any:
        return locked(self.folder.with_name(f".{self.name}.lock"), say, f"{doing} {self.name}")

    def _install(self, path: Path, origin: dict[str, Any]) -> None:
        """Makes the raw folder from an archive or a folder, checked before it takes its place."""
        with new_folder(self.folder) as aside:
            (self.fill or self._fill)(path, aside)
            self._require(aside, path)
            self.check(aside)
            files = {file.name: _entry(file) for file in sorted(aside.iterdir())}
            write_json(aside / SOURCE, {"dataset": self.name, **origin, "files": files})

    def _fill(self, path: Path, aside: Path) -> None:
        """Takes the wanted files by their bare names."""
        if path.is_dir():
            self._copy(path, aside)
        else:
            unpack(path, aside, self._wanted)

    def _wanted(self, bare: str) -> bool:
        return bare in (*self.required, *self.optional) or _PAPERS.match(bare) is not None

    def _copy(self, folder: Path, aside: Path) -> None:
        """Copies the wanted files of a folder, or of a folder inside it that has more of them."""
        homes = [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
        home = max(homes, key=lambda h: sum((h / name).is_file() for name in self.required))
        for file in sorted(home.iterdir()):
            if file.is_file() and self._wanted(file.name):
                with disk_faults(aside):
                    shutil.copyfile(file, aside / file.name)

    def _require(self, aside: Path, path: Path) -> None:
        missing = [name for name in self.required if not (aside / name).is_file()]
        if not missing:
            return
        like = self.guess([file.name for file in path.rglob("*")] if path.is_dir() else bare_names(path))
        seems = f"; it looks like {' or '.join(like)}" if like else ""
        raise DataError(
            f"This is not {self.name}: {' and '.join(missing)} not found{seems}.",
            where=str(path),
            fix=f"effrec data import {like[0]} {path}"
            if len(like) == 1
            else f"give the folder or archive that holds {', '.join(self.required)}",
        )

    def fingerprint(self) -> dict[str, str]:
        """Returns the sha256 of each raw file."""
        return {name: digest_of(path, self.data_root) for name, path in self.paths().items()}

    def verify(self) -> list[str]:
        """Returns what differs from the digests taken when the files came; empty when all is well."""
        source = read_json(self.folder / SOURCE)
        if source is None:
            return [f"{self.folder / SOURCE} is missing or damaged"]
        return [
            f"{self.folder / name} is missing or differs from its sha256"
            for name, entry in source["files"].items()
            if not (self.folder / name).is_file() or hash_file(self.folder / name) != entry["sha256"]
        ]


def _entry(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": hash_file(file)}
