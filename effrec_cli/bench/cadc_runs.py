"""Runs on simulated data with content: samples and factorisations against all rows."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effrec_cli.bench.e2e import train
from effrec_cli.bench.suites import Trial
from effrec_cli.result import Result
from effrec_cli.schema import Config, EvaluationConfig, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_synthetic import SyntheticConfig
from effrec_cli.schema.factors import FactorsConfig
from effrec_cli.schema.method_cadc import CADCConfig
from effrec_cli.schema.method_ials import IALSConfig
from effrec_cli.schema.method_pop import PopularityConfig
from effrec_cli.schema.model_none import NoModelConfig
from effrec_cli.schema.model_two_tower import TwoTowerConfig
from effrec_cli.schema.sample import SampleConfig

Shape = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """What sets a run apart from the others of its cell.

    Attributes:
        method: makes its method's settings from the cell's parameters.
        model: makes its model's; without a network none.
        rate: share of the dataset's training rows that anything of the run reads.
    """

    method: Callable[[Shape], object]
    model: Callable[[], object] = NoModelConfig
    rate: float = 1.0


def factorisation(rate: float = 1.0) -> Peer:
    """Returns implicit ALS of so large a share of the rows, without a network."""
    return Peer(lambda size: IALSConfig(dim=size["dim"]), rate=rate)


def network(strategy: str, rate: float, factorise: str = "auto") -> Peer:
    """Returns two towers that train on a share of the rows, over factors of `all` or of the `rest`."""

    def method(size: Shape) -> CADCConfig:
        return CADCConfig(
            embedding=strategy,
            factors=FactorsConfig(dim=size["dim"]),
            sample=SampleConfig(rate=rate),
            factorise=factorise,
            batch_size=size.get("batch"),
        )

    return Peer(method, TwoTowerConfig)


ALONE, FULL, FULL_FROZEN = "factorisation alone", "100 %, rand", "100 %, init_frz"
RUNS: dict[str, Peer] = {
    FULL: network("rand", 1.0),
    FULL_FROZEN: network("init_frz", 1.0),
    "10 %, rand": network("rand", 0.1),
    "10 %, init_frz": network("init_frz", 0.1),
    "10 %, residual": network("residual", 0.1),
    ALONE: factorisation(),
}
"""Whole runs under one stopping rule."""
PERCENT = "% of the rows"
"""The parameter of a cell of strategies that says which share of the rows a network trains on."""
OF_ALL = "factorisation of all rows"


def strategies(percent: int) -> dict[str, Peer]:
    """Returns who trains on so many percent of the rows, and what stands beside them."""
    rate = percent / 100
    found = {
        "pop": Peer(lambda size: PopularityConfig()),
        OF_ALL: factorisation(),
        "factorisation of the sample": factorisation(rate),
        **{name: network(name, rate) for name in ("rand", "init_frz", "init_upd", "residual")},
        "residual over the rest": network("residual", rate, "rest"),
    }
    of_samples = ("factorisation of the sample", "residual over the rest") if percent == 100 else ()
    return {name: peer for name, peer in found.items() if name not in of_samples}


def peers_of(size: Shape) -> dict[str, Peer]:
    """Returns the peers of a cell by its parameters."""
    return strategies(size[PERCENT]) if PERCENT in size else RUNS


_METRIC = "ndcg@10"
_WORK = ("factorise", "sample", "train")


def running(parameters: Shape, peer: str, device: torch.device) -> Trial:
    """Returns a run as `effrec train` does it, which finds nothing that another has made.

    Args:
        parameters: `users`, `items`, `mean length` and `dim` of the factors; of a whole run `epochs` at most
            and `patience`, of one in a cell of strategies `PERCENT`, `batch` and `steps`.
        peer: one of `peers_of` these.
        device: where.
    """

    def once() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="effrec-bench-") as folder:
            return figures_of(train(config_of(parameters, peer, device, Path(folder))))

    return once


def config_of(size: Shape, peer: str, device: torch.device, folder: Path) -> Config:
    """Returns the settings of a run, made without Hydra, which a bare machine may lack."""
    own = peers_of(size)[peer]
    return Config(
        dataset=SyntheticConfig(
            name="synthetic",
            family="synthetic",
            num_users=size["users"],
            num_items=size["items"],
            interactions_per_user=size["mean length"],
            side=["text", "features"],
            sample=SampleConfig(rate=own.rate),
        ),
        model=own.model(),
        method=own.method(size),
        optimizer=OptimizerConfig(),
        run=RunConfig(dir=str(folder / "run"), device=device.type, **_until(size)),
        evaluation=EvaluationConfig(ks=[10], metrics=["ndcg", "hr"]),
        data_root=str(folder / "data"),
    )


_ENDLESS = 1_000_000
_LOOKS = 5
"""Validations of a run of so many steps, about; fewer where it is over within fewer epochs."""


def _until(size: Shape) -> dict[str, Any]:
    """Returns when a run validates and stops: by patience, or after equal steps."""
    if PERCENT not in size:
        return {"max_epochs": size["epochs"], "patience": size["patience"]}
    rows = size[PERCENT] / 100 * size["users"] * size["mean length"]
    an_epoch = math.ceil(rows / size["batch"])
    every = math.ceil(size["steps"] / (_LOOKS * an_epoch))
    return {"max_epochs": _ENDLESS, "max_steps": size["steps"], "patience": None, "validate_every": every}


def figures_of(found: Result) -> dict[str, float]:
    """Returns what a run took and reached, without preparing the data, which is the same for all."""
    cost, score = found.cost, found.metrics["test"][_METRIC]
    ceiling = (found.ceiling or {}).get(_METRIC)
    every = zip(_WORK, (cost.seconds_factorise, cost.seconds_sample, cost.seconds_total), strict=True)
    seconds = {name: value for name, value in every if value is not None}
    return {
        **seconds,
        "in all": sum(seconds.values()),
        "epochs": float(cost.epochs),
        _METRIC: score,
        **({"share of ceiling": 100 * score / ceiling} if ceiling else {}),
    }
