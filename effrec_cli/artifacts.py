"""What a run leaves behind so that it can be scored later, also where its dataset is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from effrec_cli import compose, paths, registry, result
from effrec_cli.data.load import load_prepared
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.durable import writing
from effrec_cli.errors import ConfigError
from effrec_cli.methods.base import Method
from effrec_cli.runfolder import RunFolder
from effrec_cli.schema import Config
from effrec_cli.tensorfile import move_to, read_tensors, write_tensors

IDS = "ids"


@dataclass(frozen=True)
class OpenRun:
    """A finished run, ready to score.

    Attributes:
        config: its settings.
        result: what its result.json holds.
        method: the method with the trained weights, on the device asked for.
        data: the dataset it was trained on, or None where that is not on this machine.
        users: raw ids of users by row.
        items: raw ids and titles of items by row.
    """

    config: Config
    result: result.Result
    method: Method
    data: RecData | None
    users: Catalogue
    items: Catalogue


def save(folder: RunFolder, method: Method, data: RecData) -> None:
    """Writes the weights (`model.safetensors`) and the maps from row numbers to raw ids (`ids/`).

    Raises:
        EnvironmentFault: the disk is full or read-only.
    """
    target = folder.path / IDS
    with writing(target):
        target.mkdir(exist_ok=True)
        np.save(target / "users.npy", data.users.ids, allow_pickle=False)
        np.save(target / "items.npy", data.items.ids, allow_pickle=False)
        if data.items.titles is not None:
            np.save(target / "titles.npy", data.items.titles, allow_pickle=False)
    write_tensors(folder.model_path, method.state_dict())


def open_run(path: Path, device: torch.device) -> OpenRun:
    """Returns a finished run with its weights on `device`; nothing is fetched or prepared.

    Raises:
        ConfigError: `path` is no run folder, or the run has not finished.
        DataError: the weights are damaged.
    """
    found = result.read(path)
    config = compose.from_yaml(path / "config.yaml")
    users, items = _catalogues(path)
    data = _dataset(config, found)
    method: Method = registry.implementation("methods", config.method.name)(config)
    shape = data if data is not None else _shape_only(found, users, items)
    method.data = shape
    method.model = method.build(shape)
    method.load_state_dict(move_to(read_tensors(path / "model.safetensors")[0], torch.device("cpu")))
    method.model.to(device).eval()
    return OpenRun(config, found, method, data, users, items)


def _catalogues(path: Path) -> tuple[Catalogue, Catalogue]:
    folder = path / IDS
    if not (folder / "items.npy").is_file():
        raise ConfigError("The run folder has lost its map to raw ids.", where=str(folder / "items.npy"))
    titles = folder / "titles.npy"
    return (
        Catalogue(np.load(folder / "users.npy", mmap_mode="r")),
        Catalogue(
            np.load(folder / "items.npy", mmap_mode="r"),
            np.load(titles, mmap_mode="r") if titles.is_file() else None,
        ),
    )


def _dataset(config: Config, found: result.Result) -> RecData | None:
    """Returns the prepared dataset with the content the run was trained on, if it is on this machine.

    It is looked for where the run found it and, since a run may have come from elsewhere, at `EFFREC_DATA`.
    """
    name, digest = found.dataset["name"], found.dataset["hash"]
    for root in (Path(config.data_root), paths.default_data_root()):
        folder = root / "prepared" / f"{name}-{digest[:12]}"
        if folder.is_dir():
            return load_prepared(folder)
    return None


def _shape_only(found: result.Result, users: Catalogue, items: Catalogue) -> RecData:
    """Returns a dataset without rows: enough to build a model of the right shape."""
    none, numbers = np.zeros(0, np.int64), np.zeros(0, np.int32)
    no_cases = EvalCases(numbers, none, none, none, none)
    return RecData(
        name=found.dataset["name"],
        content_hash=found.dataset["hash"],
        sequences=Sequences(np.zeros(len(users) + 1, np.int64), numbers),
        train_end=np.zeros(len(users), np.int64),
        valid=no_cases,
        test=no_cases,
        users=users,
        items=items,
    )
