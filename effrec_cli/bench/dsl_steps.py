"""Steps of bpr_mf over tables of method dsl and over dense ones: what each takes, and its bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from effrec_cli.bench.clock import extra_bytes, median_seconds
from effrec_cli.bench.drawn import nobody, popular
from effrec_cli.bench.dsl_blocks import give_back, kept_blocks
from effrec_cli.bench.steps import BareEngine
from effrec_cli.bench.suites import Trial
from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.types import Catalogue, RecData, Sequences
from effrec_cli.distributed import World
from effrec_cli.evaluation.held import held_bytes, optimizer_bytes, weights_bytes
from effrec_cli.methods.dsl import DSL, STATE_BYTES
from effrec_cli.methods.sparse.network import tables_in
from effrec_cli.methods.sparse.rewiring import Rewiring
from effrec_cli.models.bpr_mf import BPRMF
from effrec_cli.models.sparse.growth import GradientScores
from effrec_cli.models.sparse.start import budget
from effrec_cli.optim import make_optimizer
from effrec_cli.schema import Config, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.method_dsl import SPARSE, DSLConfig, column_bytes
from effrec_cli.schema.model_bpr_mf import BPRMFConfig

DENSE, DENSE_ADAM = "dense", "dense, dense Adam"
TABLES: dict[str, dict[str, Any]] = {
    "packed row": {"mode": "dsl", "structure": "row", "storage": "packed"},
    "packed global": {"mode": "dsl", "structure": "global", "storage": "packed"},
    "static": {"mode": "static", "storage": "packed"},
    "masked": {"mode": "dsl", "storage": "masked"},
    DENSE: {"mode": "dense"},
    DENSE_ADAM: {"mode": "dense"},
}
"""Settings of method dsl, by who trains; the last one is trained as it is usually done."""
_UPDATES = 3
_SUM_BYTES = GradientScores(1, 1, 0, 1, torch.device("cpu")).sums.element_size()
_MIB = 1 << 20


class Whole(nn.Embedding):
    """PyTorch's table, whose gradients are as large as it is."""

    def forward(self, rows: Tensor, folded: Tensor | None = None) -> Tensor:
        """Returns vectors of rows; `folded` is none."""
        return super().forward(rows)


class Usual(DSL):
    """Matrix factorisation as PyTorch does it: dense gradients, and fused Adam over all rows."""

    def build(self, data: RecData) -> nn.Module:
        """Returns the network, with the numbers that dense tables of method dsl begin with."""
        tables = tables_in(super().build(data)).values()
        made = [Whole.from_pretrained(each.weights.detach(), freeze=False) for each in tables]
        self.model = BPRMF(*made)
        return self.model

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Returns the one that moves all."""
        return [make_optimizer(model.parameters(), self.config.optimizer)]


class Engine(BareEngine):
    """One whose steps are all the first of an interval, so that none changes places of itself."""

    def loop(self) -> None:
        """Does nothing."""


@dataclass
class Work:
    """Some steps, to be done again and again, and an update of places after them.

    Attributes:
        method: whose steps they are.
        model: what trains.
        engine: moves the weights.
        batches: of each step, on the device.
        dim: width of the vectors.
    """

    method: DSL
    model: nn.Module
    engine: Any
    batches: list[Batch]
    dim: int

    @property
    def moving(self) -> Rewiring | None:
        """What changes places; None where they stay."""
        return cast(Rewiring | None, self.method._rewiring)

    def run(self) -> None:
        """Does all steps, whose gradients are summed where places change."""
        for batch in self.batches:
            self.method.training_step(batch, self.engine)

    def update(self) -> None:
        """Changes places as after the first interval; steps must have been done since the last time."""
        if self.moving is not None:
            self.moving.after(self.moving.plan.interval)

    def cycle(self) -> None:
        """Does all steps and an update."""
        self.run()
        self.update()

    def figures(self) -> dict[str, float]:
        """Returns what a step and an update take, times by medians, and what stands in memory."""
        peak = self._peak(self.run)
        self.update()
        with_update = self._peak(self.cycle)
        with kept_blocks():
            times = self._times()
        state = self.state_bytes()
        weights = list(self.model.parameters())
        return {
            **times,
            "values": sum(each.nbytes for each in weights) / _MIB,
            "table": weights_bytes(self.model) / _MIB,
            "training state": state / _MIB,
            "of the formula": 100 * state / self.formula_bytes(),
            "peak memory": peak / _MIB,
            **({"peak with an update": with_update / _MIB} if self.moving else {}),
        }

    def _peak(self, work: Callable[[], None]) -> float:
        """Returns the most that is there at once, steps' own tensors too; no gradient is summed before."""
        give_back()
        return self.between_bytes() + max(0.0, extra_bytes(work, self.engine.world.device))

    def _times(self) -> dict[str, float]:
        """Returns what a step and an update take, in ms, and a step with its share of one; sums are left."""
        device = self.engine.world.device
        step = 1000 * median_seconds(self.run, device) / len(self.batches)
        if self.moving is None:
            return {"step": step, "step with updates": step}
        update, interval = self._update_ms(), self.moving.plan.interval
        self.run()
        return {
            "step": step,
            "update": update,
            "steps between updates": float(interval),
            "step with updates": step + update / interval,
        }

    def _update_ms(self) -> float:
        found = []
        for _ in range(_UPDATES):
            self.run()
            found.append(1000 * median_seconds(self.update, self.engine.world.device, times=1, warm_ups=0))
        return statistics.median(found)

    def between_bytes(self) -> int:
        """Returns what is there between updates, as allocated: tables and the optimizers' states."""
        return weights_bytes(self.model) + optimizer_bytes(self.engine.optimizers)

    def state_bytes(self) -> int:
        """Returns that, the most that gradients have taken, and sums of them, after some steps."""
        sums = held_bytes(self.moving.tensors().values()) if self.moving else 0
        return self.between_bytes() + int(self.engine.gradient_bytes) + sums

    def formula_bytes(self) -> float:
        """Returns what `state_bytes` should be by the shapes alone (papers/dsl section 4.2)."""
        read = [_rows_read(batch) for batch in self.batches]
        return sum(
            _usual_bytes(rows, self.dim)
            if isinstance(self.method, Usual)
            else formula_bytes(self.method.own, rows, self.dim, max(each[at] for each in read))
            for at, rows in enumerate((self.method.data.num_users, self.method.data.num_items))
        )


def formula_bytes(own: DSLConfig, rows: int, dim: int, read: int) -> float:
    """Returns bytes of one table [N, d] in float32, its gradient, what Adam remembers of it, and growth sums.

    A live number takes 4 bytes and its column's; two moments and, where places change, its age. A row that
    a step has read takes its number and its gradient, in a ragged table each of its live numbers does.

    Args:
        own: says how the table is stored.
        rows: N.
        dim: d.
        read: different rows that a step reads.
    """
    packed, moving = own.mode in SPARSE and own.storage == "packed", own.mode == "dsl"
    ragged = packed and own.structure == "global"
    live = budget(rows, dim, own.density, own.structure) if packed else rows * dim
    number = 4 + (column_bytes(dim) if packed else own.mode in SPARSE)
    state = live * STATE_BYTES if moving else live * 8 + 4 * rows
    of_row = live / rows * (4 + 8) if ragged else live / rows * 4 + 8
    sums = _SUM_BYTES * dim * math.ceil(rows / (own.turns or 1)) if moving else 0
    return live * number + (8 * (rows + 1) if ragged else 0) + state + read * of_row + sums


def _usual_bytes(rows: int, dim: int) -> float:
    """Returns bytes of a table of PyTorch's with a dense gradient and Adam's two moments and its count."""
    return 4 * 4 * rows * dim + 4


def stepping(parameters: dict[str, Any], peer: str, device: torch.device) -> Trial:
    """Returns some steps, all done once before, and an update; arguments as of `make_work`."""
    work = make_work(parameters, peer, device)
    work.cycle()
    return work.figures


def make_work(parameters: dict[str, Any], peer: str, device: torch.device) -> Work:
    """Returns the first steps of an epoch, none done yet.

    Args:
        parameters: `users`, `items`, `interactions`, `dim`, `density`, `batch` and `steps`.
        peer: one of TABLES.
        device: where.
    """
    config = config_of(parameters, peer, device)
    method = (Usual if peer == DENSE_ADAM else DSL)(config, World(device=device))
    data = method.prepare(drawn_data(parameters))
    model = method.build(data).to(device).train()
    source = method.batches(data)
    engine = Engine(method.optimizers(model), device, "fp32", source.steps_per_epoch)
    batches = [source.batch(0, step, Share(), step).to(device) for step in range(parameters["steps"])]
    method.fit(engine)  # type: ignore[arg-type]
    return Work(method, model, engine, batches, parameters["dim"])


def config_of(parameters: dict[str, Any], peer: str, device: torch.device) -> Config:
    """Returns the settings of a cell's run, made without Hydra, which a bare machine may lack."""
    settings = dict(TABLES[peer])
    if settings["mode"] in SPARSE:
        settings["density"] = parameters["density"]
    return Config(
        dataset=DatasetConfig(name="drawn"),
        model=BPRMFConfig(),
        method=DSLConfig(dim=parameters["dim"], batch_size=parameters["batch"], **settings),
        optimizer=OptimizerConfig(lr=1e-3),
        run=RunConfig(device=device.type),
    )


def drawn_data(parameters: dict[str, Any]) -> RecData:
    """Returns training rows, users drawn alike and items by Zipf's law."""
    rng = np.random.default_rng(0)
    users, items, rows = (parameters[name] for name in ("users", "items", "interactions"))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rng.integers(0, users, rows), minlength=users))])
    return RecData(
        "drawn",
        "0" * 12,
        Sequences(offsets, popular(rng, items, rows)),
        offsets[1:],
        nobody(),
        nobody(),
        Catalogue(np.arange(users)),
        Catalogue(np.arange(items)),
    )


def _rows_read(batch: Batch) -> tuple[int, int]:
    """Returns how many different users and items a step reads."""
    tensors = batch.tensors
    items = torch.cat([tensors["items"], tensors["negatives"].flatten()])
    return len(tensors["users"].unique()), len(items.unique())
