"""Steps of method gram, and what they take."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from effrec_cli.bench.clock import extra_bytes, median_seconds
from effrec_cli.bench.gram_data import TEXTS, answers_data, clicks_data, lines_of
from effrec_cli.bench.steps import Steps, begun, fitting
from effrec_cli.data.batches import Batch
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.methods.content.modes import Frozen
from effrec_cli.methods.content.multi_step import MultiStep
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.methods.gram import GRAM
from effrec_cli.methods.multimodal.known import folder_of_shape
from effrec_cli.schema import Config, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_base import DatasetConfig, PartsConfig
from effrec_cli.schema.encoder import EncoderConfig
from effrec_cli.schema.method_gram import GRAMConfig
from effrec_cli.schema.model_dkt import DKTConfig
from effrec_cli.schema.model_nrms import NRMSConfig

FOLDER = "EFFREC_ENCODER"
"""Environment variable: a folder with a text encoder, in the place of the built-in one."""
SMALL, TINY, BASE = "built-in, 128 wide, 4 layers", "built-in, 16 wide, 1 layer", "BERT-base, random weights"
_BUILT_IN = {SMALL: (128, 4, 4), TINY: (16, 1, 2), BASE: (768, 12, 12)}
WARM_UP_STEPS = 2


class Work(Steps):
    """Some steps of one mode, to be done again and again."""

    @property
    def interactions(self) -> int:
        """Places of the steps that hold an item: answers, or clicks of histories and candidates."""
        return sum(_places(batch) for micros in self.steps for batch in micros)

    def warm_up(self) -> None:
        """Does a few steps, and the encoder's update that they lead to."""
        self.run(WARM_UP_STEPS)
        self.mode.settle(self.engine)
        counts = self.mode.parts.encoding.encoded
        counts.update(dict.fromkeys(counts, 0))  # what settling encoded no step has reported
        self.encoded = 0.0

    def figures(self) -> dict[str, float]:
        """Returns what doing the steps takes."""
        device, seconds = self.engine.world.device, []
        peak = extra_bytes(lambda: seconds.append(median_seconds(self.run, device, 1, 0)), device)
        return {
            "time": 1000 * seconds[0] / self.interactions,
            "encodes": self.encoded / len(self.steps),
            "interactions": self.interactions / len(self.steps),
            "peak memory": (max(0.0, peak) + self._held_bytes()) / (1 << 20),
        }

    def _held_bytes(self) -> int:
        """Returns the bytes of the vectors and gradients that the mode keeps from step to step."""
        if isinstance(self.mode, MultiStep):
            return self.mode.cycle.table.nbytes + self.mode.cycle.gradients.nbytes
        return self.mode.table(self.engine.autocast).nbytes if isinstance(self.mode, Frozen) else 0


def prepared(parameters: dict[str, Any], settings: dict[str, Any], steps: int, device: torch.device) -> Work:
    """Returns warmed-up work, in as few micro-batches a step as fit into memory.

    Args:
        parameters: of the cell.
        settings: of method gram, the mode's.
        steps: how many of an epoch are done.
        device: where.

    Raises:
        torch.cuda.OutOfMemoryError: not even a small part of a step fits.
    """

    def warmed_up(micros: int) -> Work:
        work = make_work(parameters, settings, steps, device, micros)
        work.warm_up()
        return work

    return fitting(warmed_up)


def make_work(
    parameters: dict[str, Any], settings: dict[str, Any], steps: int, device: torch.device, micros: int = 1
) -> Work:
    """Returns the first `steps` of an epoch, each in `micros` micro-batches; arguments as of `prepared`."""
    config = config_of(parameters, settings, device)
    method = GRAM(config, World(device=device))
    mode, engine, made = begun(method, data_of(parameters), steps, device, micros)
    if isinstance(mode, SingleStep):
        mode.recompute = bool(config.method.recompute)
    return Work(mode, engine, made)


def data_of(parameters: dict[str, Any]) -> RecData:
    """Returns the cell's data: windows of answers, or impressions after clicks."""
    make = answers_data if "windows" in parameters else clicks_data
    given = {name: parameters[name] for name in make.__annotations__ if name in parameters}
    if "texts" in given:
        given["texts"] = Path(os.environ[TEXTS])  # the cell bears the name alone
    return make(**given)


def config_of(parameters: dict[str, Any], settings: dict[str, Any], device: torch.device) -> Config:
    """Returns the settings of a cell's run, made without Hydra, which a bare machine may lack."""
    tracing = "windows" in parameters
    update = settings.get("update")
    return Config(
        dataset=DatasetConfig(name="drawn", parts=PartsConfig(cold_item_share=0.0)),
        model=DKTConfig(max_length=parameters["answers"])
        if tracing
        else NRMSConfig(max_length=parameters["history"]),
        method=GRAMConfig(
            batch_size=parameters["windows" if tracing else "clicks"],
            num_negatives=None if tracing else parameters["candidates"] - 1,
            encoder=_encoder(parameters),
            **settings,
        ),
        optimizer=OptimizerConfig(lr=1e-4),
        run=RunConfig(device=device.type, precision="fp32" if update == "regress" else "auto"),
    )


def encoder_name(device: torch.device) -> str:
    """Returns the encoder that cells have on a device."""
    if device.type == "cuda":
        return BASE if find_spec("transformers") else f"{BASE}, built-in"
    return Path(os.environ[FOLDER]).name if FOLDER in os.environ else SMALL


def texts_of(named: bool) -> dict[str, str]:
    """Returns which file of texts cells have in their parameters; nothing where none is asked for.

    Args:
        named: whether the user names the encoder: the built-in one reads tokens of made-up words.

    Raises:
        ConfigError: texts that nothing would read, or that cannot be read.
    """
    if TEXTS not in os.environ:
        return {}
    if not named:
        raise ConfigError(
            "Nothing would read the texts: they are for an encoder that you name, on a CPU.",
            where=f"{TEXTS}={os.environ[TEXTS]}",
            fix=f"{FOLDER}=FOLDER beside it, or leave it out",
        )
    lines_of(Path(os.environ[TEXTS]))  # now, and not in every peer's process
    return {"texts": Path(os.environ[TEXTS]).name}


def _encoder(parameters: dict[str, Any]) -> EncoderConfig:
    name, most = parameters["encoder"], parameters["batch_tokens"]
    if name == BASE:
        folder = folder_of_shape("bert-base-uncased").name
        return EncoderConfig(name=folder, weights="random", tokenizer="dataset", batch_tokens=most)
    if name.removesuffix(", built-in") in _BUILT_IN:
        dim, layers, heads = _BUILT_IN[name.removesuffix(", built-in")]
        return EncoderConfig(dim=dim, num_layers=layers, num_heads=heads, batch_tokens=most)
    # A tokenizer of its own makes more tokens of a word than one; a title is cut to the cell's.
    return EncoderConfig(name=os.environ[FOLDER], max_tokens=parameters["tokens"], batch_tokens=most)


def _places(batch: Batch) -> int:
    candidates = batch.tensors.get("candidates")
    return int(batch.tensors["lengths"].sum()) + (0 if candidates is None else candidates.numel())
