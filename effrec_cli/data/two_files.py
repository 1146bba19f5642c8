"""Datasets of two files that are named by their paths: what users have met, and what items say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effrec_cli.errors import ConfigError


def files_of(config: Any) -> dict[str, Path]:
    """Returns the files that are named, by their settings: `path` and `items_path`."""
    named = {"path": config.path, "items_path": config.items_path}
    return {key: Path(value).expanduser() for key, value in named.items() if value is not None}


def check_files(config: Any, words: str) -> None:
    """Checks that the files are there.

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
