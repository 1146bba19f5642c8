"""Steps of method iisan, and what they take."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from effrec_cli.bench.clock import extra_bytes, median_seconds
from effrec_cli.bench.counts import launches, operators
from effrec_cli.bench.iisan_data import amazon_data
from effrec_cli.bench.steps import Steps, begun, fitting
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.methods.iisan import IISAN
from effrec_cli.methods.multimodal.known import folder_of_shape
from effrec_cli.models.encoders.reader import TapReader
from effrec_cli.schema import Config, OptimizerConfig, RunConfig
from effrec_cli.schema.backbone import BackboneConfig
from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.method_iisan import IISANConfig, RatesConfig
from effrec_cli.schema.model_sasrec import SASRecConfig

SMALL, TINY = "built-in, 64 wide, 4 layers", "built-in, 16 wide, 1 layer"
BASE = "BERT-base and ViT-base, random weights"
ALIKE = "built-in, 768 wide, 12 layers"
_BUILT_IN = {SMALL: (64, 4, 4), TINY: (16, 1, 2), ALIKE: (768, 12, 12)}
_SHAPES = {"text": "bert-base-uncased", "image": "google/vit-base-patch16-224"}
WINDOW = 11
"""Items of a window at most: ten inputs, and ten targets."""
QUICK_S = 1.0
_MIB = 1 << 20


@dataclass
class Work(Steps):
    """Some steps of one mode, to be done again and again.

    Attributes:
        model: what trains, and the encoder's frozen parts.
        epoch: steps of a whole epoch.
        counts: what a step gives the device to do, by name; see `warm_up`.
    """

    model: nn.Module
    epoch: int
    counts: dict[str, float] = field(default_factory=dict)

    def warm_up(self, *, compiled: bool) -> None:
        """Does all steps, so that each size was met, and counts what one of them gives the device to do.

        Args:
            compiled: whether graphs are among it, whose operators a CPU does not tell.
        """
        self.run()
        device = self.engine.world.device
        if device.type == "cuda":
            found = {"launches": launches(self._once, device)}
        else:
            found = {"operators": 0 if compiled else operators(self._once)}
        self.counts = {name: float(count) for name, count in found.items() if count}

    def _once(self) -> None:
        self.run(1)

    def figures(self) -> dict[str, float]:
        """Returns what doing the steps takes; time is the median of five passes where these are quick."""
        device, passes, held = self.engine.world.device, [], self.held_bytes()
        peak = extra_bytes(lambda: passes.append(median_seconds(self.run, device, 1, 0)), device)
        if passes[0] < QUICK_S:
            passes += [median_seconds(self.run, device, 1, 0) for _ in range(4)]
        count, seconds = len(self.steps), statistics.median(passes)
        return {
            f"epoch, from {count} steps": self.epoch * seconds / count,
            "step": 1000 * seconds / count,
            "encodes": self.encoded / count,
            **self.counts,
            "peak memory": (held + max(0.0, peak)) / _MIB,
            "trainable parameters": float(sum(each.numel() for each in self._trained())),
        }

    def held_bytes(self) -> int:
        """Returns what is there between steps: weights, frozen ones too, their optimizers' states, a cache.

        On a GPU it is all that tensors hold, since the process made them for nothing else.
        """
        device = self.engine.world.device
        if device.type == "cuda":
            return torch.cuda.memory_allocated(device)
        storages = [each.untyped_storage() for each in self._held()]
        return sum({each.data_ptr(): each.nbytes() for each in storages}.values())

    def _trained(self) -> Iterator[nn.Parameter]:
        return (each for each in self.model.parameters() if each.requires_grad)

    def _held(self) -> Iterator[Tensor]:
        readers = [each.network for each in self.model.modules() if isinstance(each, TapReader)]
        for module in (self.model, *readers):  # a reader's backbone is none of its modules
            yield from module.parameters()
            yield from module.buffers()
        for optimizer in self.engine.optimizers:
            for state in optimizer.state.values():
                yield from (each for each in state.values() if torch.is_tensor(each))


def prepared(parameters: dict[str, Any], settings: dict[str, Any], device: torch.device) -> Work:
    """Returns warmed-up work, in as few micro-batches a step as fit into memory.

    Args:
        parameters: of the cell.
        settings: of method iisan, the mode's.
        device: where.

    Raises:
        torch.cuda.OutOfMemoryError: not even a small part of a step fits.
    """

    def warmed_up(micros: int) -> Work:
        work = make_work(parameters, settings, device, micros)
        work.warm_up(compiled="compile" in settings)
        return work

    return fitting(warmed_up)


def make_work(
    parameters: dict[str, Any], settings: dict[str, Any], device: torch.device, micros: int = 1
) -> Work:
    """Returns the first steps of an epoch, each in `micros` micro-batches; arguments as of `prepared`."""
    with TemporaryDirectory(prefix="effrec-bench-", ignore_cleanup_errors=True) as root:
        method = IISAN(config_of(parameters, settings, device, root), World(device=device))
        made = begun(method, data_of(parameters), parameters["steps"], device, micros)
        method.encoder.prepare()  # a cache is taken in before its folder goes
    if "compile" in settings:
        method.model.compile()
    return Work(*made, method.model, method.content.batches().steps_per_epoch)


def data_of(parameters: dict[str, Any]) -> RecData:
    """Returns the cell's data."""
    return amazon_data(**{name: parameters[name] for name in ("users", "items", "tokens", "pixels")})


def config_of(
    parameters: dict[str, Any], settings: dict[str, Any], device: torch.device, data_root: str
) -> Config:
    """Returns the paper's settings of a run, made without Hydra, which a bare machine may lack."""
    user_encoder = SASRecConfig(
        dim=64,
        max_length=WINDOW - 1,
        dropout=0.1,
        activation="relu",
        init_std=None,
        attention_bias=False,
        input_norm=True,
    )
    method = IISANConfig(
        modality="both",
        batch_size=parameters["windows"],
        batch_tokens=parameters["batch_tokens"],
        rank=parameters["rank"],
        adapter_rank=parameters["rank"],
        text=backbone_of(parameters, "text"),
        image=backbone_of(parameters, "image"),
        rates=RatesConfig(side=1e-4, text=5e-5, image=1e-4),
        **settings,
    )
    return Config(
        dataset=DatasetConfig(name="drawn"),
        model=user_encoder,
        method=method,
        optimizer=OptimizerConfig(lr=2e-4),
        run=RunConfig(device=device.type, compile="compile" in settings),
        data_root=data_root,
    )


def backbones_on(device: torch.device) -> str:
    """Returns the backbones that cells have on a device."""
    if device.type != "cuda":
        return SMALL
    return BASE if find_spec("transformers") else ALIKE


def backbone_of(parameters: dict[str, Any], modality: str) -> BackboneConfig:
    """Returns the settings of one modality's backbone; all weights are random, the same in every process."""
    name = parameters["backbones"]
    if name != BASE:
        dim, layers, heads = _BUILT_IN[name]
        return BackboneConfig(dim=dim, num_layers=layers, num_heads=heads)
    folder = folder_of_shape(_SHAPES[modality]).name
    tokenizer = "dataset" if modality == "text" else "auto"
    return BackboneConfig(name=folder, weights="random", tokenizer=tokenizer)
