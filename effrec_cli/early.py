"""What settings and files alone can tell is wrong with a run, said before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path

from effrec_cli import paths, registry
from effrec_cli.errors import ConfigError
from effrec_cli.runfolder import DONE, read_state, refuse_taken
from effrec_cli.schema import Config
from effrec_cli.schema.encoder import refuse_lost_folder

ENCODERS = ("encoder", "text", "image")
"""Settings of a method that name one."""


def refuse_early(config: Config, experiment: str | None = None) -> None:
    """Refuses a run that could not start; the run itself checks again, under its lock.

    Args:
        config: checked settings.
        experiment: the experiment they come from, whose file says what data it is for.

    Raises:
        ConfigError: its folder is taken, or its dataset's files or its encoder's folder are not there.
    """
    folder = Path(config.run.dir) if config.run.dir else None
    if folder is not None and not _among_others():
        refuse_taken(folder, config.run.resume)
    if folder is None or read_state(folder) != DONE:  # a finished run needs no data
        refuse_lost_encoders(config)
        try:
            _refuse_data(config)
        except ConfigError as error:
            error.fix = _with_file(error.fix, experiment)
            raise


def _with_file(fix: str | None, experiment: str | None) -> str | None:
    path = paths.conf_dir() / "experiment" / f"{experiment}.yaml"
    return f"{fix or ''}; {path} says which file".lstrip("; ") if path.is_file() else fix


def _among_others() -> bool:
    """Returns whether this may be one of a launcher's ranks, of which another may have made the folder."""
    return any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def _refuse_data(config: Config) -> None:
    kind = registry.implementation("datasets", config.dataset.family)
    check = getattr(kind(config.dataset, Path(config.data_root)), "check", None)
    if check is not None:
        check()


def refuse_lost_encoders(config: Config) -> None:
    """Checks the encoders that a run names.

    Raises:
        ConfigError: one is a folder that is not there.
    """
    for part in ENCODERS:
        name = getattr(getattr(config.method, part, None), "name", None)
        if name is not None:
            refuse_lost_folder(name, f"method.{part}.name")
