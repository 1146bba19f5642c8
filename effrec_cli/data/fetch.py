"""Downloads a file: several sources in order, resumed where it broke off, checked, moved into place."""

from __future__ import annotations

import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from effrec_cli.data.atomic import disk_faults, make_folder
from effrec_cli.data.cache import hash_file
from effrec_cli.errors import ConfigError, DataError, EnvironmentFault

Say = Callable[[str], None]

_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 20
_SAY_EVERY_S = 5.0
_TRIES = 3
_BROKEN = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Attributes:
        name: the dataset it is for.
        urls: where it is, tried in order.
        size: published bytes, or None.
        digest: `md5:...` or `sha256:...` as published or recorded, or None.
        license: what the publisher asks for.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    digest: str | None = None
    license: str = ""


class _SourceError(Exception):
    """One source did not deliver; the message says why."""


def megabytes(size: int) -> str:
    """Returns a size such as `198.7 MB`."""
    return f"{size / 1e6:,.1f} MB"


def check_free_space(folder: Path, needed: int) -> None:
    """Raises EnvironmentFault where the disk of `folder` has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentFault(
            f"This needs {megabytes(needed)}, and the disk has {megabytes(free)} left.",
            where=str(folder),
            fix="free some space, or choose another data_root=PATH",
        )


def check_digest(path: Path, digest: str) -> str | None:
    """Returns the digest found where it differs from `digest` (`algorithm:hex`), else None.

    Raises:
        ConfigError: the algorithm is neither md5 nor sha256.
    """
    algorithm, _, expected = digest.partition(":")
    if algorithm not in ("md5", "sha256") or not expected:
        raise ConfigError("A digest is written md5:HEX or sha256:HEX.", where=f"dataset.digest={digest}")
    found = hash_file(path, algorithm)
    return None if found == expected.lower() else f"{algorithm}:{found}"


def fetch(remote: Remote, target: Path, say: Say) -> None:
    """Downloads `remote` to `target`.

    A part that was downloaded before stays beside it as `.part` and is gone on with, where a digest allows
    to check the whole.

    Raises:
        DataError: no source delivers the file.
        EnvironmentFault: the disk is full or may not be written.
    """
    make_folder(target.parent)
    with disk_faults(target.parent):
        check_free_space(target.parent, remote.size or 0)
        size = megabytes(remote.size) if remote.size else "of unknown size"
        say(f"Downloading {remote.name}, {size}. Licence: {remote.license or 'not stated'}")
        reasons = []
        for url in remote.urls:
            try:
                _from_source(url, remote, target, say)
            except _SourceError as error:
                reasons.append(f"{url}: {error}")
            else:
                return
    raise DataError(
        f"The dataset {remote.name} could not be downloaded.",
        where="; ".join(reasons) or "dataset.urls is empty",
        fix=f"get the archive by other means, then `effrec data import {remote.name} FILE`",
    )


def _from_source(url: str, remote: Remote, target: Path, say: Say) -> None:
    """Downloads from one source; a broken transfer is gone on with, a wrong file started anew once."""
    part = target.with_name(f"{target.name}.part")
    for attempt in range(_TRIES):
        resumed = remote.digest is not None and part.exists() and part.stat().st_size > 0
        try:
            _transfer(url, part, part.stat().st_size if resumed else 0, remote, say)
            _check(part, remote)
        except _SourceError:
            part.unlink(missing_ok=True)
            if not resumed:
                raise
        except _BROKEN as error:
            if isinstance(error, urllib.error.HTTPError) or attempt == _TRIES - 1:
                raise _SourceError(_reason(error)) from error
        else:
            part.replace(target)
            return
    raise _SourceError("broke off again and again")


def _reason(error: Exception) -> str:
    """Returns what went wrong in a few words; urllib wraps the cause of an unreachable server."""
    cause = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
    return str(cause) or type(cause).__name__


def _transfer(url: str, part: Path, start: int, remote: Remote, say: Say) -> None:
    """Appends to `part` what is missing from byte `start` on, or writes it anew if the server starts over."""
    if not url.startswith(("http://", "https://")):
        raise _SourceError("only http and https are downloaded")
    request = urllib.request.Request(url, headers={"User-Agent": "effrec"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # Nothing lies beyond `start`: the part is whole already, or too long.
            return
        raise
    with response:
        start = start if response.status == 206 else 0
        total = _total(response, start, remote)
        say(f"  from {url}" + (f", going on at {megabytes(start)}" if start else ""))
        with part.open("ab" if start else "wb") as handle:
            done = _copy(response, handle.write, start, total, say)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _total(response: HTTPResponse, start: int, remote: Remote) -> int | None:
    """Returns the bytes of the whole file by the server's word, or by the published size."""
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else remote.size
    if remote.size is not None and total != remote.size:
        raise _SourceError(f"it offers {total:,} bytes instead of {remote.size:,}")
    return total


def _copy(
    response: HTTPResponse, write: Callable[[bytes], int], start: int, total: int | None, say: Say
) -> int:
    """Copies the response and returns the bytes of the file so far; says now and then how far it is."""
    done, began = start, time.monotonic()
    next_word = began + _SAY_EVERY_S
    while chunk := response.read(_CHUNK_BYTES):
        write(chunk)
        done += len(chunk)
        now = time.monotonic()
        if now >= next_word:
            rate = (done - start) / (now - began)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            say(f"  {megabytes(done)} at {rate / 1e6:.1f} MB/s{left}")
            next_word = now + _SAY_EVERY_S
    return done


def _check(part: Path, remote: Remote) -> None:
    """Raises _SourceError where the file is not what was published."""
    size = part.stat().st_size
    if remote.size is not None and size != remote.size:
        raise _SourceError(f"the file has {size:,} bytes instead of {remote.size:,}")
    differs = check_digest(part, remote.digest) if remote.digest else None
    if differs:
        raise _SourceError(f"the file's digest is {differs} instead of {remote.digest}")
