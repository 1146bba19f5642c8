"""Finds runs on the disk and says of each how it ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from effrec_cli import result
from effrec_cli.errors import ConfigError, nearest_name
from effrec_cli.result import Result, Status


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: where it is.
        result: what it ended with, or None where it has no readable result.
        status: how far it got.
        problem: why there is no result; empty where there is one.
    """

    folder: Path
    result: Result | None
    status: Status
    problem: str = ""

    @property
    def why(self) -> str:
        """Why there is no result, in one line."""
        return self.status.reason or self.problem


def find_runs(paths: list[Path]) -> list[Run]:
    """Returns the runs at and below `paths`, each once, in order of their names.

    Raises:
        ConfigError: a path is not there, or there is no run at or below any of them.
    """
    for path in paths:
        if not path.exists():
            raise _no_such(path)
    folders = sorted({folder.resolve(): folder for path in paths for folder in _folders(path)}.values())
    if not folders:
        raise ConfigError(
            f"There is no run in {', '.join(map(str, paths))}.", fix="effrec train makes one, under outputs/"
        )
    return [open_run(folder) for folder in folders]


def open_run(folder: Path) -> Run:
    """Returns the run in `folder`, whatever state it is in."""
    status = result.read_status(folder)
    try:
        return Run(folder, result.read(folder), status)
    except ConfigError as problem:
        return Run(folder, None, status, problem.what)


def _folders(path: Path) -> Iterator[Path]:
    """Yields the run folders at or below `path`, not looking inside a run."""
    start = path.parent if path.is_file() else path
    for folder, below, _ in os.walk(start):
        if result.is_run(Path(folder)):
            below.clear()
            yield Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))


def _no_such(path: Path) -> ConfigError:
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest_name(path.name, siblings)
    return ConfigError(
        f"There is no run or folder '{path}'.",
        nearest=str(path.parent / near) if near else None,
        fix="effrec compare outputs/",
    )
