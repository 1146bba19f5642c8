"""A run looked at without training: its data, the size of its model, the memory it will need."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effrec_cli import env, registry
from effrec_cli.backbone import task_of_run
from effrec_cli.checkpoint import method_state
from effrec_cli.data import cache, load
from effrec_cli.data.batches import refuse_empty_shares
from effrec_cli.data.source import Source
from effrec_cli.data.types import RecData
from effrec_cli.diagnose import existing_parent, folder_bytes
from effrec_cli.distributed import Imagined, World
from effrec_cli.early import refuse_lost_encoders
from effrec_cli.errors import ConfigError, EffrecError
from effrec_cli.evaluation.blocks import BYTES_PER_SCORE, block_rows, free_bytes
from effrec_cli.kept_settings import refuse_other_settings
from effrec_cli.methods.base import Method
from effrec_cli.optim import state_bytes
from effrec_cli.precision import refuse_precision
from effrec_cli.runfolder import RunFolder, refuse_taken
from effrec_cli.schema import Config
from effrec_cli.schema.sample import SampleConfig, is_sampled
from effrec_cli.standin import SIDES, stand_in
from effrec_cli.trial import Trial, try_run

# Above these a try would cost more than it tells.
LARGEST_WEIGHTS_BYTES = 4 << 30
LARGEST_CATALOGUE = 2_000_000

FEW_ITEMS = 64
"""Items of a stand-in, where a model's size does not depend on how many there are."""
MARGIN = 1.5
ROOM_BYTES = 256 << 20
"""Room that a run is to have besides: the allocator of a CPU keeps freed blocks, it tells on small runs."""

TRIED = (
    "weights, gradients and optimizer state are counted; activations, temporaries of the loss and validation "
    "are measured on this device with up to a micro-batch, a larger one judged by smaller ones. 'fits' means "
    f"that {MARGIN:g} times as much and {ROOM_BYTES >> 20} MiB more are free: runs on CPUs stayed within. "
    "What Python and torch take by themselves comes on top"
)
NOT_TRIED = (
    "only weights, gradients and optimizer state are counted: the model is too large to be tried, and "
    "activations, temporaries and validation come on top"
)
AND_FITTED = (
    ". Factorising comes before the network, and is counted from the numbers of users, items and rows: the "
    "total is that of the larger of both"
)
UNPREPARED = (
    "the data are not prepared yet: sized for a whole catalogue and full windows, which filters and short "
    "histories make smaller"
)
ENCODER = "method.encoder"
"""What is wrong with an encoder does not depend on the data that are drawn."""
FITTED = (
    "counted from the numbers of items and users: the most that fitting holds, then the scores of a block of "
    f"users; 'fits' means that {MARGIN:g} times as much and {ROOM_BYTES >> 20} MiB more are free"
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
    """Bytes that a run will need on one device.

    Attributes:
        weights: all parameters and buffers.
        gradients: of the trainable parameters; of a table that gets rows, about those of a step.
        optimizer: its state.
        activations: kept from forward to backward, for one micro-batch; None where not tried.
        temporaries: what forward and backward hold besides at their peak, the loss's above all; None where
            not tried. For a method without a loop, what fitting holds besides the weights.
        validation: ranking a block of users, when gradients and activations are gone; None where not tried.
        best: on a CPU, the weights of the best validation; a GPU keeps them on the host.
        data: on a CPU, the pages of the prepared data that are read.
        factorising: the most that fitting vectors to start from takes, before the rest is there.
        total: at the peak of all phases; without a trial, the least.
        free: on the device now.
        verdict: `fits` (with `MARGIN` and `ROOM_BYTES`), `tight` (the total is free), `does not fit`, or
            `unknown` where the total is but the least.
        how: what is counted and measured, and what is not.
    """

    weights: int
    gradients: int
    optimizer: int
    total: int
    free: int
    verdict: str
    how: str
    activations: int | None = None
    temporaries: int | None = None
    validation: int | None = None
    best: int = 0
    data: int = 0
    factorising: int = 0

    @property
    def fits(self) -> bool:
        """Whether the run fits, with the margin."""
        return self.verdict == "fits"

    def record(self) -> dict[str, Any]:
        """Returns it as JSON-able data."""
        return {**asdict(self), "fits": self.fits}


def look(config: Config, num_items: int | None = None) -> dict[str, Any]:
    """Returns what is known of a run before it starts, JSON-able; trains and downloads nothing.

    Args:
        config: checked settings.
        num_items: size of the catalogue, to size the model by as long as the data are not prepared.

    Raises:
        ConfigError: the run's folder is taken by another run or other files, model and method do not fit,
            the device does not train in the run's precision, or a step of prepared data has fewer samples
            than micro-batches.
        DataError: the data are there and cannot be read.
        EnvironmentFault: the device that is asked for is not there.
    """
    device = env.resolve_device(config.run.device)
    refuse_precision(config.run.precision, device)
    _refuse_taken(config)
    refuse_lost_encoders(config)
    task = task_of_run(config)
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
    if data is None:
        note = "the model is sized once the data are prepared, or for a catalogue of --items N"
        return {**found, "note": note}
    sized: dict[str, Any] = {} if dataset.state == "prepared" else {"note": UNPREPARED}
    try:
        sized |= _size_fitted(config, data, device) if task == "none" else _size(config, data, device)
    except ConfigError as refusal:
        if dataset.state != "generated" or (refusal.where or "").startswith(ENCODER):
            raise
        return {**found, "note": f"{UNPREPARED}. Were nothing filtered, train would refuse: {refusal}"}
    return {**found, **sized}


def _refuse_taken(config: Config) -> None:
    """Refuses the folders that the run itself would."""
    if config.run.dir is None:
        return
    folder = Path(config.run.dir)
    refuse_taken(folder, config.run.resume)
    if config.run.resume == "auto":
        refuse_other_settings(folder, config)


def _dataset(config: Config) -> tuple[Dataset, RecData | None]:
    """Returns what is there of the dataset, and its data or a stand-in of their shape."""
    settings, root = config.dataset, Path(config.data_root)
    source = load.open_source(settings, root)
    raw = getattr(source, "raw", None)
    fetched = getattr(settings, "urls", None)  # what is only imported is refused, as training would
    if fetched and raw is not None and not raw.present:
        return Dataset(settings.name, "absent", download_bytes=settings.archive_bytes), None
    source.ensure(lambda line: None)
    folder = load.prepared_folder(settings, root, source)
    try:
        data = cache.open_cache(folder)
    except cache.BadCache:
        return _unprepared(config, folder, source)
    there = Dataset(
        data.name,
        "prepared",
        str(folder),
        folder_bytes(folder),
        num_users=data.num_users,
        num_items=data.num_items,
        num_interactions=data.num_interactions,
    )
    return there, data


def _unprepared(config: Config, folder: Path, source: Source) -> tuple[Dataset, RecData | None]:
    settings = config.dataset
    if is_sampled(settings.sample):
        whole, data = _dataset(replace(config, dataset=replace(settings, sample=SampleConfig())))
        state = "raw" if whole.state == "prepared" else whole.state
        return replace(whole, state=state, folder=str(folder)), data
    raw = Path(config.data_root) / "raw" / settings.name
    users, items = getattr(settings, "num_users", None), getattr(settings, "num_items", None)
    if items is not None:
        drawn = Dataset(settings.name, "generated", str(folder), num_users=users, num_items=items)
        image_size = getattr(settings, "image_size", 16)
        return drawn, stand_in(items, settings.name, getattr(settings, "side", SIDES), image_size)
    size = getattr(source, load.BYTES_TO_READ, 0) or (folder_bytes(raw) if raw.is_dir() else 0)
    return Dataset(settings.name, "raw", str(folder), size), None


def _size(config: Config, data: RecData, device: torch.device) -> dict[str, Any]:
    """Returns the parameters and the memory of the run's model on these data."""
    world = Imagined(size=config.run.devices, device=device)
    method = registry.implementation("methods", config.method.name)(config, world)
    method.rehearses = True
    if config.run.dir and config.run.resume == "auto":
        method.recall(method_state(RunFolder(Path(config.run.dir)).checkpoints))
    whole, data = data, method.prepare(data)
    before = method.bytes_before(whole) if whole.content_hash else 0  # a stand-in has few users
    with torch.device("meta"):
        model = method.build(data)
    trainable = [each for each in model.parameters() if each.requires_grad]
    rows = method.row_sparse(model)
    dense = [each for each in trainable if each not in rows]
    weights = _bytes([*model.parameters(), *model.buffers()])
    trial, free = None, free_bytes(device)
    gradients = _bytes(dense) + _row_bytes(rows)
    state = state_bytes(method.optimizers(model)) + method.bytes_beside(model)
    small = weights <= LARGEST_WEIGHTS_BYTES and data.num_items <= LARGEST_CATALOGUE
    if small and weights + gradients + state <= free:
        method.build(data).to(device)
        batches = method.batches(data)
        if data.content_hash:  # the samples of a stand-in tell nothing
            refuse_empty_shares(batches, config.run.accumulate, config.run.devices)
        trial = try_run(method, batches, data, device)
    counts = _counts(model)
    memory = _memory(_Counted(weights, gradients, state, before), trial, data, device, free)
    found = {"parameters": counts, "memory": memory.record(), "choices": method.choices()}
    return {**found, "relief": method.relief()}


def counts_alone(config: Config) -> dict[str, int] | None:
    """Returns the numbers of parameters, `all` and `trainable`, of a model that is the same for any data.

    Neither data nor weights are read. None where the catalogue decides them, or they cannot be counted.

    Args:
        config: checked settings.
    """
    method: Method = registry.implementation("methods", config.method.name)(config, World())
    if not method.same_size_for_any_data:
        return None
    method.rehearses = True
    data = stand_in(FEW_ITEMS, config.dataset.name, ("text", "images"))
    with suppress(EffrecError), torch.device("meta"):
        return _counts(method.build(method.prepare(data)))
    return None


def _counts(model: nn.Module) -> dict[str, int]:
    sizes = [(each.numel(), each.requires_grad) for each in model.parameters()]
    return {"all": sum(n for n, _ in sizes), "trainable": sum(n for n, trains in sizes if trains)}


def _size_fitted(config: Config, data: RecData, device: torch.device) -> dict[str, Any]:
    """Returns the parameters and the memory of a method without a loop; it refuses what training would."""
    method: Method = registry.implementation("methods", config.method.name)(config, World(device=device))
    method.build(method.prepare(data))
    held = method.footprint(data)
    scores = block_rows(data.num_items, device) * data.num_items * BYTES_PER_SCORE
    pages = _data_bytes(data, device)
    total, free = max(held.peak_bytes, held.saved_bytes + scores) + pages, free_bytes(device)
    memory = Memory(
        weights=held.saved_bytes,
        gradients=0,
        optimizer=0,
        temporaries=held.peak_bytes - held.saved_bytes,
        validation=scores,
        data=pages,
        total=total,
        free=free,
        verdict=_verdict(total, free),
        how=FITTED,
    )
    return {"parameters": {"all": held.parameters, "trainable": 0}, "memory": memory.record()}


@dataclass(frozen=True)
class _Counted:
    """What needs no trial, in bytes."""

    weights: int
    gradients: int
    optimizer: int
    factorising: int


def _memory(counted: _Counted, trial: Trial | None, data: RecData, device: torch.device, free: int) -> Memory:
    """Returns what a run with a loop needs: the larger of a step and a validation, over what always stays."""
    known, how = asdict(counted), (AND_FITTED if counted.factorising else "")
    if trial is None:
        least = max(counted.weights + counted.gradients + counted.optimizer, counted.factorising)
        verdict = _verdict(least, free) if least > free else "unknown"
        return Memory(**known, total=least, free=free, verdict=verdict, how=NOT_TRIED + how)
    best = counted.weights if device.type == "cpu" else 0
    pages = _data_bytes(data, device)
    step = max(trial.step, counted.gradients + trial.activations)
    trained = counted.weights + counted.optimizer + best + max(step, trial.validation)
    total = pages + max(trained, counted.factorising)
    return Memory(
        **known,
        activations=trial.activations,
        temporaries=step - counted.gradients - trial.activations,
        validation=trial.validation,
        best=best,
        data=pages,
        total=total,
        free=free,
        verdict=_verdict(total, free),
        how=TRIED + how,
    )


def _verdict(total: int, free: int) -> str:
    if max(MARGIN * total, total + ROOM_BYTES) <= free:
        return "fits"
    return "tight" if total <= free else "does not fit"


def _data_bytes(data: RecData, device: torch.device) -> int:
    """Returns what the arrays of the interactions and of the cases take; they are read on the host."""
    if device.type != "cpu":
        return 0
    sequences = data.sequences
    cases = (getattr(part, f.name) for part in (data.valid, data.test) for f in fields(part))
    ends = (data.train_end, data.train_start if data.sample is not None else data.train_end[:0])
    return sum(each.nbytes for each in (sequences.items, sequences.offsets, *ends, *cases))


def _bytes(tensors: list[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _row_bytes(rows: dict[Tensor, int]) -> int:
    """Returns the bytes of row-sparse gradients: a step's slots, and the sums by row."""
    return sum(
        slots * (2 * each.shape[1] * each.element_size() + torch.int64.itemsize)
        for each, slots in rows.items()
    )
