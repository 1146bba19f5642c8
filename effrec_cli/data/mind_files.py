"""The files of MIND: a training and a dev part, as folders or zip archives side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

from effrec_cli.data.archive import unpack
from effrec_cli.data.atomic import disk_faults
from effrec_cli.data.source import Say
from effrec_cli.errors import DataError

PARTS = {"train": ("train",), "dev": ("dev", "valid", "validation")}
"""The parts, and what the names of their folders may end in."""

FILES = ("news.tsv", "behaviors.tsv")
KEPT = tuple(f"{part}_{name}" for part in PARTS for name in FILES)
"""What the files of both parts are called in one folder."""

_UNLABELLED = ("test",)

TRAIN_IMPRESSIONS = {"mind-small": 156_965, "mind-large": 2_232_748}
"""Published numbers of training impressions, by which releases are told apart."""


def part_files(folder: Path) -> dict[str, Path]:
    """Returns the four files of a folder with both parts, under the names of `KEPT`, read where they are.

    Raises:
        DataError: a part is missing, or is an archive, which is not read where it is.
    """
    found: dict[str, Path] = {}
    for part, home in homes(folder).items():
        if home.is_file():
            raise DataError(
                "An archive is not read where it is.",
                where=str(home),
                fix="unpack it, or take it in by `effrec data import NAME FOLDER`",
            )
        found |= {f"{part}_{name}": home / name for name in FILES}
    return found


def take_parts(folder: Path, target: Path) -> None:
    """Copies or unpacks the files of both parts into `target`, under the names of `KEPT`.

    Raises:
        DataError: a part is missing, or an archive is damaged or lacks a file.
    """
    for part, home in homes(folder).items():
        if home.is_file():
            _unpack(home, part, target)
            continue
        for name in FILES:
            with disk_faults(target):
                shutil.copyfile(home / name, target / f"{part}_{name}")


def homes(folder: Path) -> dict[str, Path]:
    """Returns where the files of each part are: a folder that holds both, or a zip archive.

    Raises:
        DataError: a part is missing.
    """
    found = {part: _home(folder, ends) for part, ends in PARTS.items()}
    missing = [part for part, home in found.items() if home is None]
    if missing:
        raise DataError(
            f"There is no {' and no '.join(missing)} part of MIND here.",
            where=str(folder),
            fix="give the folder that holds both, such as MINDsmall_train and MINDsmall_dev (folders with "
            f"{' and '.join(FILES)}, or the zip archives as published)",
        )
    return {part: home for part, home in found.items() if home is not None}


def note_unlabelled(folder: Path, say: Say) -> None:
    """Says that a test part beside the others is left alone: it has no labels."""
    left = _home(folder, _UNLABELLED)
    if left is not None:
        say(f"  {left} is left alone: its candidates have no labels; the dev part is what results are from")


def refuse_another_release(name: str, impressions: int) -> str | None:
    """Returns a note where a release has not as many training impressions as published, else None.

    Raises:
        DataError: it has as many as the other release.
    """
    for other, published in TRAIN_IMPRESSIONS.items():
        if published == impressions and other != name and name in TRAIN_IMPRESSIONS:
            raise DataError(
                f"These are the {impressions:,} training impressions of {other}.",
                where=f"dataset={name}",
                fix=f"effrec data import {other} PATH",
            )
    known = TRAIN_IMPRESSIONS.get(name)
    if known is None or known == impressions:
        return None
    return (
        f"note: {impressions:,} training impressions, but {name} is published with {known:,}; "
        "results are not comparable"
    )


def _home(folder: Path, ends: tuple[str, ...]) -> Path | None:
    """Returns the first folder or archive inside `folder` whose name ends so, or None."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in inside:
        if not path.stem.lower().endswith(ends):
            continue
        if path.suffix == ".zip" and path.is_file():
            return path
        for home in (path, path / path.name):  # archives are unpacked with or without a folder of their own
            if all((home / name).is_file() for name in FILES):
                return home
    return None


def _unpack(archive: Path, part: str, target: Path) -> None:
    inside = target / part
    inside.mkdir()
    found = unpack(archive, inside, FILES.__contains__)
    missing = [name for name in FILES if name not in found]
    if missing:
        raise DataError(f"This archive has no {' and no '.join(missing)}.", where=str(archive))
    for name in FILES:
        (inside / name).rename(target / f"{part}_{name}")
    inside.rmdir()
