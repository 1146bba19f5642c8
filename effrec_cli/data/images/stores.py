"""What kind of place images are kept in, by what is there."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from effrec_cli.data.images.columns import ParquetStore
from effrec_cli.data.images.folder import FolderStore
from effrec_cli.data.images.found import Store
from effrec_cli.data.images.tar import TarStore
from effrec_cli.data.parquet import is_parquet
from effrec_cli.errors import ConfigError


def open_store(path: Path, columns: Sequence[str]) -> Store:
    """Returns the images at `path`.

    Args:
        path: folder, tar or parquet.
        columns: names that a parquet's column of ids may have, the first wins.

    Raises:
        ConfigError: there is no such path, or it is neither.
    """
    if not path.exists():
        raise ConfigError(
            "There is no such file or folder.", where=f"dataset.images={path}", fix="dataset.images=PATH"
        )
    if path.is_dir() and not any(path.glob("*.parquet")):
        return FolderStore(path)
    if is_parquet(path):
        return ParquetStore(path, columns)
    try:
        if tarfile.is_tarfile(path):
            return TarStore(path)
    except (OSError, EOFError):  # such as of a gzip that is cut short
        pass
    raise ConfigError(
        "Images are read from a folder, a .tar or a parquet file, and this is none.",
        where=f"dataset.images={path}",
        fix="unpack it, and name the folder by dataset.images=PATH",
    )
