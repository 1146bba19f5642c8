"""Where the two files of a dataset in LightGCN's layouts are, and how the user's copy is taken in."""

from __future__ import annotations

import shutil
from pathlib import Path

from effrec_cli.data.archive import bare_names, unpack
from effrec_cli.data.atomic import disk_faults
from effrec_cli.errors import DataError

NAMES = ("train.txt", "test.txt")
"""What the two files are called in LightGCN's repository, and among the raw files."""

_ENDINGS = (".train", ".test")

_BESIDE = ("", "{name}", "Data/{name}", "data/{name}")
"""Where a folder given for import may hold them; the third is that of LightGCN's repository."""


def two_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Returns the training and the test file of a folder.

    Args:
        folder: with `train.txt` and `test.txt`, or `NAME.train` and `NAME.test`.
        name: of the dataset, which is the one of several NAMEs that is meant.

    Raises:
        DataError: one is missing, or nobody can say which are meant.
    """
    found = _pairs_of(folder)
    named = [pair for pair in found if pair[0].stem == name]
    if len(named) == 1 or len(found) == 1:
        return (named or found)[0]
    if found:
        raise DataError(
            f"Files of more than one dataset are here: {', '.join(train.name for train, _ in found)}.",
            where=str(folder),
            fix="put those of one dataset into a folder of their own",
        )
    raise DataError(
        f"There is {_missing(folder)} here.",
        where=str(folder),
        fix="give the folder that holds train.txt and test.txt, or NAME.train and NAME.test",
    )


def _candidates(folder: Path) -> list[tuple[Path, Path]]:
    """Returns what the training and test files of a folder may be called."""
    trains = sorted(folder.glob("*.train"))
    return [(folder / NAMES[0], folder / NAMES[1]), *((path, path.with_suffix(".test")) for path in trains)]


def _pairs_of(folder: Path) -> list[tuple[Path, Path]]:
    """Returns every training file of a folder that has its test file beside it."""
    return [(train, test) for train, test in _candidates(folder) if train.is_file() and test.is_file()]


def _missing(folder: Path) -> str:
    """Returns what is missing of a folder's files, in words."""
    for train, test in _candidates(folder):
        if train.is_file() != test.is_file():
            return f"no {test.name if train.is_file() else train.name}"
    return "no train.txt with a test.txt, and no NAME.train with a NAME.test,"


def take_in(path: Path, target: Path, name: str) -> None:
    """Copies the two files of a folder or an archive, or one of them and its other, into `target`.

    Raises:
        DataError: they are not there, or an archive is damaged or holds several datasets.
    """
    if path.name in NAMES or path.suffix in _ENDINGS:
        path = path.parent
    if path.is_dir():
        homes = [path / each.format(name=name) for each in _BESIDE]
        home = next((each for each in homes if each.is_dir() and _pairs_of(each)), path)
        _copy(two_files(home, name), target)
        return
    if bare_names(path).count(NAMES[0]) > 1:
        raise DataError(
            "This archive holds more than one train.txt.",
            where=str(path),
            fix=f"unpack it, then `effrec data import {name} FOLDER` with the one that is meant",
        )
    aside = target / "unpacked"
    aside.mkdir()
    unpack(path, aside, lambda bare: bare in NAMES or bare.endswith(_ENDINGS))
    _copy(two_files(aside, name), target)
    shutil.rmtree(aside)


def _copy(files: tuple[Path, Path], target: Path) -> None:
    for file, name in zip(files, NAMES, strict=True):
        with disk_faults(target):
            shutil.copyfile(file, target / name)
