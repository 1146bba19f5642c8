"""Datasets of files that settings name by their paths: what users have met, and what items say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effrec_cli.errors import ConfigError

TWO = ("path", "items_path")


def files_of(config: Any, keys: tuple[str, ...] = TWO) -> dict[str, Path]:
    """Returns the files, or folders of them, that are named, by the settings `keys` that name them."""
    named = {key: getattr(config, key) for key in keys}
    return {key: Path(value).expanduser() for key, value in named.items() if value is not None}


def check_files(config: Any, words: str) -> None:
    """Checks that the `TWO` files are there.

    Args:
        config: the dataset's settings.
        words: overrides that name both.

    Raises:
        ConfigError: no path is given, or a file is missing.
    """
    if config.path is None:
        raise ConfigError(f"dataset={config.name} needs a file.", where="dataset.path is not set", fix=words)
    for key, path in files_of(config).items():
        if not path.is_file():
            where = f"dataset.{key}={path}"
            raise ConfigError("There is no such file.", where=where, fix=f"dataset.{key}=FILE")
