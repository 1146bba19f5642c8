"""What a run leaves behind so that it can be scored later, also where its dataset is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effrec_cli import checkpoint, compose, paths, registry, result
from effrec_cli.data.load import load_prepared
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.durable import write_json, writing
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.methods.base import Method
from effrec_cli.runfolder import DONE, RunFolder, read_state
from effrec_cli.schema import Config
from effrec_cli.schema.dataset_sample import SAMPLE
from effrec_cli.tensorfile import is_whole, move_to, read_tensors, write_tensors

IDS, DATASET = "ids", "dataset.json"
MODEL = "model.safetensors"
SERVED = "served.safetensors"
"""What a method keeps beside its weights to score with where its dataset is not."""


@dataclass(frozen=True)
class OpenRun:
    """A finished run, ready to score.

    Attributes:
        config: its settings.
        result: what its result.json holds; None where that is lost or damaged.
        dataset: `name` and `hash` of what it was trained on.
        method: the method with the trained weights, on the device asked for.
        data: the dataset it was trained on, or None where that is not on this machine.
        users: raw ids of users by row.
        items: raw ids and titles of items by row.
    """

    config: Config
    result: result.Result | None
    dataset: dict[str, Any]
    method: Method
    data: RecData | None
    users: Catalogue
    items: Catalogue


def save(folder: RunFolder, method: Method, data: RecData, kept: dict[str, torch.Tensor]) -> None:
    """Writes the weights (`model.safetensors`), what scores without the dataset, and raw ids (`ids/`).

    Args:
        folder: of the run.
        method: with the trained weights.
        data: what it was trained on.
        kept: the method's `keepsakes`.

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
    write_json(target / DATASET, {"name": data.name, "hash": data.content_hash})
    if kept:
        write_tensors(folder.path / SERVED, kept)
    write_tensors(folder.model_path, method.served_state_dict())


def lost(path: Path) -> list[str]:
    """Returns which files of the finished run in `path` are missing or damaged; `resume` writes them anew."""
    whole = {
        result.FILE_NAME: _result(path) is not None,
        MODEL: is_whole(path / MODEL),
        IDS: _dataset_of(path) is not None and all((path / IDS / name).is_file() for name in _MAPS),
    }
    return [name for name, there in whole.items() if not there]


_MAPS = ("users.npy", "items.npy")


def open_run(path: Path, device: torch.device, *, ranks_only: bool = False) -> OpenRun:
    """Returns a finished run with its weights on `device`; nothing is fetched or prepared.

    A finished run can do without its result.json: weights and the maps to raw ids are enough to score. What
    its last checkpoint says of frozen backbones, if it is there, is compared with what they are now.

    Args:
        path: the run's folder.
        device: where to put the weights.
        ranks_only: rank by what the run has kept for that, where it has: nothing is encoded, and neither the
            encoder's folder nor the contents are looked at. Otherwise only where the dataset is gone.

    Raises:
        ConfigError: `path` is no run folder, the run has not finished, or its map to raw ids is lost.
        DataError: the weights are missing or damaged, or the method reads items' contents, which lie with the
            dataset, and that is not here, nor anything kept to do without.
    """
    found = _result(path) if read_state(path) == DONE else result.read(path)
    config = compose.from_yaml(path / "config.yaml")
    users, items = _catalogues(path)
    dataset = found.dataset if found is not None else _dataset_of(path)
    if dataset is None:
        raise _lost_map(path, DATASET)
    data = _dataset(config, dataset)
    method: Method = registry.implementation("methods", config.method.name)(config)
    method.recall(checkpoint.method_state(RunFolder(path).checkpoints))
    method.reopen()
    serves = (path / SERVED).is_file() if data is None else ranks_only and is_whole(path / SERVED)
    if data is None and method.reads_contents and not serves:
        raise no_data(config, dataset)
    if method.reads_contents and serves:
        method.serve(move_to(read_tensors(path / SERVED)[0], torch.device("cpu")))
    shape = data if data is not None else _shape_only(dataset, users, items)
    method.data = shape
    method.model = method.build(shape)
    method.load_state_dict(_weights(path))
    method.model.to(device).eval()
    return OpenRun(config, found, dataset, method, data, users, items)


def no_data(config: Config, dataset: dict[str, Any]) -> DataError:
    """Returns the error for a run that cannot be scored, since its dataset is not on this machine."""
    own = getattr(config.dataset, "path", None) if config.dataset.family == SAMPLE else None
    again = f"effrec data describe {dataset['name']} data_root={config.data_root}"
    return DataError(
        f"The dataset of this run, {dataset['name']} ({dataset['hash'][:12]}), is not prepared here.",
        where=f"data_root={config.data_root}",
        fix=again if own is None else f"put the folder of the sample back: {own}",
    )


def _result(path: Path) -> result.Result | None:
    try:
        return result.read(path)
    except result.LostResult:
        return None


def _dataset_of(path: Path) -> dict[str, Any] | None:
    """Returns name and hash of the dataset as they are kept beside the ids."""
    try:
        found = json.loads((path / IDS / DATASET).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"name", "hash"} <= found.keys() else None


def _weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return move_to(read_tensors(path / MODEL)[0], torch.device("cpu"))
    except DataError as damage:
        damage.fix = f"effrec resume {path}, which writes the model anew from the run's last checkpoint"
        raise


def _lost_map(path: Path, name: str) -> ConfigError:
    return ConfigError(
        "The run folder has lost its map to raw ids.",
        where=str(path / IDS / name),
        fix=f"effrec resume {path} writes it anew",
    )


def _catalogues(path: Path) -> tuple[Catalogue, Catalogue]:
    folder = path / IDS
    for name in _MAPS:
        if not (folder / name).is_file():
            raise _lost_map(path, name)
    titles = folder / "titles.npy"
    return (
        Catalogue(np.load(folder / "users.npy", mmap_mode="r")),
        Catalogue(
            np.load(folder / "items.npy", mmap_mode="r"),
            np.load(titles, mmap_mode="r") if titles.is_file() else None,
        ),
    )


def _dataset(config: Config, dataset: dict[str, Any]) -> RecData | None:
    """Returns the prepared dataset with the content the run was trained on, if it is on this machine.

    It is looked for where the run found it and, since a run may have come from elsewhere, at `EFFREC_DATA`.
    """
    name, digest = dataset["name"], dataset["hash"]
    ready_made = getattr(config.dataset, "path", None) if config.dataset.family == SAMPLE else None
    if ready_made is not None and Path(ready_made).expanduser().is_dir():
        data = load_prepared(Path(ready_made).expanduser())
        if data.content_hash == digest:
            return data
    for root in (Path(config.data_root), paths.default_data_root()):
        folder = root / "prepared" / f"{name}-{digest[:12]}"
        if folder.is_dir():
            return load_prepared(folder)
    return None


def _shape_only(dataset: dict[str, Any], users: Catalogue, items: Catalogue) -> RecData:
    """Returns a dataset without rows: enough to build a model of the right shape."""
    none, numbers = np.zeros(0, np.int64), np.zeros(0, np.int32)
    no_cases = EvalCases(numbers, none, none, none, none)
    return RecData(
        name=dataset["name"],
        content_hash=dataset["hash"],
        sequences=Sequences(np.zeros(len(users) + 1, np.int64), numbers),
        train_end=np.zeros(len(users), np.int64),
        valid=no_cases,
        test=no_cases,
        users=users,
        items=items,
    )
