"""A name for the folder of a run that was given none."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from effrec_cli.durable import writing
from effrec_cli.schema import Config

OUTPUTS = Path("outputs")


def new_run_dir(config: Config) -> Path:
    """Makes and returns a folder under `outputs/` that no other run has, named so that a person can find it.

    Raises:
        EnvironmentFault: `outputs/` cannot be written.
    """
    described = [config.dataset.name, config.method.name, getattr(config.method, "loss", None)]
    label = config.name or "-".join(part for part in described if part)
    stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{label}-seed{config.seed}"
    with writing(OUTPUTS):
        OUTPUTS.mkdir(exist_ok=True)
        for number in itertools.count(1):
            path = OUTPUTS / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()
            except FileExistsError:  # another run of the same second has it
                continue
            return path
    raise AssertionError("unreachable: the names never run out")
