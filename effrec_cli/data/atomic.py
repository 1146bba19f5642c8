"""Folders of data that appear whole or not at all, made by one process at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from effrec_cli import durable
from effrec_cli.errors import ConfigError
from effrec_cli.lock import FileLock


def disk_faults(path: Path) -> AbstractContextManager[None]:
    """Turns a full disk or a folder that may not be written into an EnvironmentFault about `path`."""
    return durable.writing(path, durable.DATA_ADVICE)


def make_folder(path: Path) -> None:
    """Makes a folder below the data root, and those it lies in, where they are missing.

    Raises:
        ConfigError: no folder can be there, such as below a file.
        EnvironmentFault: the disk is full, or the folder may not be written.
    """
    try:
        with disk_faults(path):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        what = f"The data cannot be kept there: {fault.strerror}."
        raise ConfigError(what, where=str(path), fix=durable.DATA_ADVICE.closed) from fault


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path`, whole or not at all, making the folder where it is missing."""
    make_folder(path.parent)
    durable.write_json(path, value, durable.DATA_ADVICE)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in `path`, or None where it is missing or not a whole JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `target` when the block ends, and vanishes if it raises.

    A folder already called `target` stays readable until the new one takes its place. Callers hold a lock.
    """
    aside = target.with_name(f".{target.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    make_folder(aside)
    try:
        yield aside
        with disk_faults(target):
            publish(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def publish(aside: Path, target: Path) -> None:
    """Renames `aside`, once it is on the disk, to `target`; what was there goes afterwards."""
    for path in [*aside.rglob("*"), aside]:
        durable.sync_file(path)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    durable.sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(path: Path, say: Callable[[str], None], doing: str) -> Iterator[None]:
    """Holds the lock file `path`, waiting while another process holds it."""
    lock = FileLock(path)
    make_folder(path.parent)
    with disk_faults(path):
        lock.take(waiting=lambda holder: say(f"Another process is {doing} ({holder}); waiting for it."))
    try:
        yield
    finally:
        lock.release()
