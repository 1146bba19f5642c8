"""Keeps a run that is to go on from being overwritten by another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effrec_cli import compose
from effrec_cli.errors import ConfigError
from effrec_cli.schema import Config

# What a run is. How long and where it goes (`run`), where data lie and the name may change on the way.
_IDENTITY = ("method", "model", "dataset", "optimizer", "evaluation", "seed")
_SHOWN = 3


def refuse_other_settings(folder: Path, config: Config) -> None:
    """Raises where `folder` holds a run of other settings; does nothing where it holds none.

    Without this, `run.resume=auto` would overwrite an interrupted run by a different one, or show a finished
    run's result for settings that it never had.

    Raises:
        ConfigError: names the first settings that differ; the run in the folder stays as it is.
    """
    kept = folder / "config.yaml"
    if not kept.is_file():
        return
    before, now = dict(_leaves(compose.from_yaml(kept))), dict(_leaves(config))
    # Those of another method that this one lacks go without saying: its name differs, too.
    differing = [key for key in before.keys() & now.keys() if before[key] != now[key]]
    if differing:
        differing.sort(key=list(now).index)
        shown = "; ".join(f"{key} was {before[key]}, now {now[key]}" for key in differing[:_SHOWN])
        more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise ConfigError(
            "This folder holds a run with other settings.",
            where=f"{folder}: {shown}{more}",
            fix=f"name another folder (run.dir=PATH), or go on with the run there: effrec resume {folder}",
        )


def _leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields every setting that makes the run what it is, by its dotted key."""
    everything = compose.resolved(config)
    yield from _flat({key: everything[key] for key in _IDENTITY}, "")


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
