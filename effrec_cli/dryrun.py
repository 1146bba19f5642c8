"""A run looked at without training: its data, the size of its model, the memory it will need."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from effrec_cli import env, registry
from effrec_cli.backbone import model_for
from effrec_cli.data import cache, load
from effrec_cli.data.batches import Batches, Share
from effrec_cli.data.types import RecData
from effrec_cli.diagnose import existing_parent, folder_bytes
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.blocks import free_bytes
from effrec_cli.methods.base import Method
from effrec_cli.precision import autocast, resolve_precision
from effrec_cli.schema import Config
from effrec_cli.standin import stand_in

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

# Above these a forward pass just to look would cost more than it tells.
LARGEST_WEIGHTS_BYTES = 4 << 30
LARGEST_CATALOGUE = 2_000_000

HOW = (
    "weights, gradients and optimizer state are counted; activations are what a forward pass of a few "
    "samples on this device keeps for the backward pass, scaled to a micro-batch; temporaries of kernels and "
    "validation, and what the device's libraries take (about 0.5 GiB on a GPU), come on top"
)


@dataclass(frozen=True)
class Dataset:
    """What is there of a dataset.

    Attributes:
        name: of the dataset.
        state: `prepared`, `raw` (to be prepared), `generated` (to be drawn) or `absent` (to be fetched).
        folder: where it is or will be, as far as known.
        bytes: it takes on disk now.
        download_bytes: of the archive still to be fetched, where its publisher says.
        num_users: None as long as nobody knows.
        num_items: likewise.
        num_interactions: likewise.
    """

    name: str
    state: str
    folder: str | None = None
    bytes: int = 0
    download_bytes: int | None = None
    num_users: int | None = None
    num_items: int | None = None
    num_interactions: int | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes that training will need on one device.

    Attributes:
        weights: all parameters and buffers.
        gradients: of the trainable parameters; of a table that gets rows, about those of a step.
        optimizer: its state.
        activations: kept from forward to backward, for one micro-batch; None where not tried.
        total: of these.
        free: on the device now.
        fits: whether `total`, which is too little rather than too much, is free.
        how: what is counted and measured, and what is not.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int | None
    total: int
    free: int
    fits: bool
    how: str = HOW


def look(config: Config, num_items: int | None = None) -> dict[str, Any]:
    """Returns what is known of a run before it starts, JSON-able; trains and downloads nothing.

    Args:
        config: checked settings.
        num_items: size of the catalogue, to size the model by as long as the data are not prepared.

    Raises:
        ConfigError: the run's folder is taken, or model and method do not fit.
        DataError: the data are there and cannot be read.
        EnvironmentFault: the device that is asked for is not there.
    """
    device = env.resolve_device(config.run.device)
    _check_folder(config)
    task = registry.implementation("methods", config.method.name).task
    model_for(task, config.model.name)
    dataset, data = _dataset(config)
    if data is None and num_items is not None:
        data = stand_in(num_items, dataset.name)
    found: dict[str, Any] = {
        "method": config.method.name,
        "model": config.model.name,
        "device": env.device_name(device),
        "dataset": asdict(dataset),
        "disk_free_bytes": shutil.disk_usage(existing_parent(Path(config.run.dir or "outputs"))).free,
        "parameters": None,
        "memory": None,
    }
    if task == "none":
        return {
            **found,
            "parameters": {"all": 0, "trainable": 0},
            "note": "no network trains: nothing to size",
        }
    if data is None:
        note = "the model is sized once the data are prepared, or for a catalogue of --items N"
        return {**found, "note": note}
    return {**found, **_size(config, data, device)}


def _check_folder(config: Config) -> None:
    """Refuses what the run itself would refuse: a folder that holds another run."""
    folder = Path(config.run.dir) if config.run.dir else None
    if folder and (folder / "status.json").exists() and config.run.resume == "never":
        raise ConfigError(
            "The folder holds a run already.",
            where=f"run.dir={folder}",
            fix="another run.dir, or run.resume=auto to go on with it",
        )


def _dataset(config: Config) -> tuple[Dataset, RecData | None]:
    """Returns what is there of the dataset, and its data or a stand-in of their shape."""
    settings, root = config.dataset, Path(config.data_root)
    source = load.open_source(settings, root)
    raw = getattr(source, "raw", None)
    if raw is not None and not raw.present:
        return Dataset(settings.name, "absent", download_bytes=settings.archive_bytes), None
    source.ensure(lambda line: None)
    folder = load.prepared_folder(settings, root, source)
    try:
        data = cache.open_cache(folder)
    except cache.BadCache:
        return _unprepared(config, folder)
    there = Dataset(
        data.name,
        "prepared",
        str(folder),
        folder_bytes(folder),
        num_users=data.num_users,
        num_items=data.num_items,
        num_interactions=len(data.sequences.items),
    )
    return there, data


def _unprepared(config: Config, folder: Path) -> tuple[Dataset, RecData | None]:
    settings = config.dataset
    raw = Path(config.data_root) / "raw" / settings.name
    users, items = getattr(settings, "num_users", None), getattr(settings, "num_items", None)
    if items is not None:
        drawn = Dataset(settings.name, "generated", str(folder), num_users=users, num_items=items)
        return drawn, stand_in(items, settings.name)
    size = folder_bytes(raw) if raw.is_dir() else 0
    return Dataset(settings.name, "raw", str(folder), size), None


def _size(config: Config, data: RecData, device: torch.device) -> dict[str, Any]:
    """Returns the parameters and the memory of the run's model on these data."""
    world = World(size=config.run.devices, device=device)
    method = registry.implementation("methods", config.method.name)(config, world)
    data = method.prepare(data)
    with torch.device("meta"):
        model = method.build(data)
    trainable = [each for each in model.parameters() if each.requires_grad]
    rows = method.row_sparse(model)
    dense = [each for each in trainable if each not in rows]
    weights = _bytes([*model.parameters(), *model.buffers()])
    activations = None
    if weights <= LARGEST_WEIGHTS_BYTES and data.num_items <= LARGEST_CATALOGUE:
        method.build(data).to(device)
        activations = _activations(method, method.batches(data), device)
    gradients, state = _bytes(dense) + _row_bytes(rows), _optimizer_bytes(method, model)
    total = weights + gradients + state + (activations or 0)
    counts = {
        "all": sum(each.numel() for each in model.parameters()),
        "trainable": sum(each.numel() for each in trainable),
    }
    free = free_bytes(device)
    memory = Memory(weights, gradients, state, activations, total, free, total <= free)
    return {"parameters": counts, "memory": asdict(memory), "choices": method.choices()}


def _bytes(tensors: list[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _row_bytes(rows: dict[Tensor, int]) -> int:
    """Returns the bytes of row-sparse gradients: a step's slots, and the sums by row."""
    return sum(
        slots * (2 * each.shape[1] * each.element_size() + torch.int64.itemsize)
        for each, slots in rows.items()
    )


def _optimizer_bytes(method: Method, model: nn.Module) -> int:
    """Returns the state of Adam and its kin, two numbers a weight (and one a row); plain SGD keeps none."""
    kinds = {"SGD": 0}
    counts = sum(len(each) * each.element_size() for each in method.row_sparse(model))
    return counts + sum(
        kinds.get(type(optimizer).__name__, 2) * _bytes(group["params"])
        for optimizer in method.optimizers(model)
        for group in optimizer.param_groups
    )


def _activations(method: Method, batches: Batches, device: torch.device) -> int:
    """Returns the bytes that one micro-batch keeps for its backward pass, judged by two small ones.

    Raises:
        EffrecError: the model, the method and the data do not fit each other.
    """
    step = batches.batch(0, 0, Share(), 0).size
    settings = method.config.run
    micro_batch = -(-step // (settings.accumulate * settings.devices))
    engine = _DryEngine(settings.precision, device)
    few = [_kept(method, batches, Share(micros=-(-step // count)), engine) for count in (1, 3)]
    (size_1, kept_1), (size_2, kept_2) = few
    per_sample = (kept_2 - kept_1) / (size_2 - size_1) if size_2 > size_1 else kept_1 / max(1, size_1)
    return int(max(kept_1, kept_1 + per_sample * (micro_batch - size_1)))


def _kept(method: Method, batches: Batches, share: Share, engine: _DryEngine) -> tuple[int, int]:
    """Returns the samples of one share and the bytes its forward pass keeps, parameters left out."""
    batch = batches.batch(0, 0, share, 0).to(engine.device)
    own = {each.untyped_storage().data_ptr() for each in method.model.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    method.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = method.training_step(batch, cast("Engine", engine))
    loss = losses.get("loss")
    if loss is None or loss.ndim:
        raise ConfigError("The method's loss is not one number.", where=f"method={method.config.method.name}")
    return batch.size, sum(storages.values())


class _DryEngine:
    """Stands in for the engine in a `training_step` that is to move nothing."""

    last_micro_batch = False

    def __init__(self, precision: str, device: torch.device) -> None:
        self.precision, self.device = resolve_precision(precision, device), device

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context of the run's precision."""
        return autocast(self.precision, self.device)

    def backward(self, loss: Tensor) -> None:
        """Computes no gradient."""

    def update(self) -> None:
        """Moves no weight."""
