"""Steps of method cadc with tables of ids that train and that do not: what each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effrec_cli.bench.clock import extra_bytes, median_seconds
from effrec_cli.bench.drawn import nobody, popular
from effrec_cli.bench.steps import BareEngine
from effrec_cli.bench.suites import Trial
from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.types import Catalogue, RecData, Sequences
from effrec_cli.distributed import World
from effrec_cli.methods.cadc import CADC
from effrec_cli.methods.factors.kept import Kept
from effrec_cli.schema import Config, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.factors import FactorsConfig
from effrec_cli.schema.method_cadc import CADCConfig
from effrec_cli.schema.model_dlrm import DLRMConfig
from effrec_cli.schema.model_two_tower import TwoTowerConfig
from effrec_cli.schema.sample import SampleConfig

MODELS: dict[str, Any] = {"two_tower": TwoTowerConfig, "dlrm": DLRMConfig}
STRATEGIES = {"tables train": "init_upd", "tables frozen": "init_frz", "frozen, small ones beside": "concat"}
TRAIN, FROZEN, _ = STRATEGIES
FEATURES = 8
"""Numbers that are known of each user and each item."""
_MIB = 1 << 20


class Given(CADC):
    """Method cadc with vectors that are drawn in the place of a factorisation's: a step costs the same."""

    def factorised(self, settings: FactorsConfig, data: RecData) -> Kept:
        """Returns vectors that are drawn."""
        draw, dim = torch.Generator().manual_seed(0), self.own.factors.dim
        users, items = (torch.randn(rows, dim, generator=draw) for rows in (data.num_users, data.num_items))
        return Kept(users, items, 0.0, "drawn", True, "ials", {"users": users, "items": items}, {})


@dataclass
class Work:
    """Some steps, to be done again and again.

    Attributes:
        method: whose steps they are.
        model: what trains.
        engine: moves the weights.
        batches: of each step, on the device.
    """

    method: CADC
    model: nn.Module
    engine: Any
    batches: list[Batch]

    def run(self) -> None:
        """Does all steps."""
        for batch in self.batches:
            self.method.training_step(batch, self.engine)

    def figures(self) -> dict[str, float]:
        """Returns what a step takes, by the median of five passes."""
        device = self.engine.world.device
        held = self.held_bytes()
        peak = extra_bytes(self.run, device)
        trained = [each.numel() for each in self.model.parameters() if each.requires_grad]
        return {
            "step": 1000 * median_seconds(self.run, device, warm_ups=0) / len(self.batches),
            "peak memory": (held + max(0.0, peak)) / _MIB,
            "trainable parameters": float(sum(trained)),
        }

    def held_bytes(self) -> int:
        """Returns what is there between steps: weights, tables that stand still too, optimizer states."""
        states = [state for each in self.engine.optimizers for state in each.state.values()]
        there: list[Tensor] = [*self.model.parameters(), *self.model.buffers()]
        there += [value for state in states for value in state.values() if torch.is_tensor(value)]
        return sum({each.data_ptr(): each.nbytes for each in there}.values())


def stepping(parameters: dict[str, Any], peer: str, device: torch.device) -> Trial:
    """Returns some steps, all done once before; arguments as of `make_work`."""
    work = make_work(parameters, peer, device)
    work.run()
    return work.figures


def make_work(parameters: dict[str, Any], peer: str, device: torch.device) -> Work:
    """Returns the first steps of an epoch, none done yet.

    Args:
        parameters: `model`, `users`, `items`, `dim`, `batch` and `steps`.
        peer: one of STRATEGIES.
        device: where.
    """
    config = config_of(parameters, STRATEGIES[peer], device)
    method = Given(config, World(device=device))
    data = method.prepare(drawn_data(parameters))
    model = method.build(data).to(device).train()
    source = method.batches(data)
    steps = range(parameters["steps"])
    engine = BareEngine(method.optimizers(model), device, config.run.precision, len(steps))
    batches = [source.batch(0, step, Share(), step).to(device) for step in steps]
    return Work(method, model, engine, batches)


def config_of(parameters: dict[str, Any], strategy: str, device: torch.device) -> Config:
    """Returns the settings of a cell's run, made without Hydra, which a bare machine may lack."""
    method = CADCConfig(
        embedding=strategy,
        factors=FactorsConfig(dim=parameters["dim"]),
        sample=SampleConfig(rate=1.0),
        batch_size=parameters["batch"],
    )
    return Config(
        dataset=DatasetConfig(name="drawn"),
        model=MODELS[parameters["model"]](),
        method=method,
        optimizer=OptimizerConfig(),
        run=RunConfig(device=device.type),
    )


def drawn_data(parameters: dict[str, Any]) -> RecData:
    """Returns as many training rows as the steps have, users drawn alike and items by Zipf's law."""
    rng = np.random.default_rng(0)
    users, items = parameters["users"], parameters["items"]
    rows = parameters["batch"] * parameters["steps"]
    counts = np.bincount(rng.integers(0, users, rows), minlength=users)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    side = {
        f"{who}_features": rng.standard_normal((count, FEATURES), dtype=np.float32)
        for who, count in (("user", users), ("item", items))
    }
    return RecData(
        "drawn",
        "0" * 12,
        Sequences(offsets, popular(rng, items, rows)),
        offsets[1:],
        nobody(),
        nobody(),
        Catalogue(np.arange(users)),
        Catalogue(np.arange(items)),
        side=side,
    )
