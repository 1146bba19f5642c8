"""A lock is had, refused or waited for, whatever the file system makes of locks."""

import errno
import os
from pathlib import Path

import pytest

from effrec_cli import lock
from effrec_cli.data.atomic import locked
from effrec_cli.errors import ConfigError
from effrec_cli.lock import FileLock, FolderLock, is_locked


def failing(code):
    def flock(handle, how):
        raise OSError(code, os.strerror(code))

    return flock


def test_the_refused_learn_who_holds_it(tmp_path):
    mine, other = FolderLock(tmp_path), FolderLock(tmp_path)
    mine.take()
    with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        other.take()
    mine.release()
    other.take()
    assert is_locked(tmp_path)
    other.release()
    assert not is_locked(tmp_path)


def test_those_who_wait_are_told_and_then_have_it(tmp_path):
    mine, other = FileLock(tmp_path / "x"), FileLock(tmp_path / "x")
    mine.take()

    def waiting(holder):
        assert f"process {os.getpid()} on" in holder
        mine.release()  # or it would wait for ever

    other.take(waiting)
    with pytest.raises(ConfigError):
        mine.take()
    other.release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_does_not_stop_work(tmp_path, monkeypatch, code):
    monkeypatch.setattr(lock.fcntl, "flock", failing(code))
    said = []
    with locked(tmp_path / "data" / ".x.lock", said.append, "preparing x"):
        assert not said
    FolderLock(tmp_path).take()
    assert not is_locked(tmp_path)


def test_another_fault_is_raised_and_leaves_nothing_open(tmp_path, monkeypatch):
    handles = len(list(Path("/dev/fd").iterdir()))
    monkeypatch.setattr(lock.fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="nput/output"):
        FileLock(tmp_path / "x").take()
    assert len(list(Path("/dev/fd").iterdir())) == handles
