"""Whole runs on simulated data with content: a sample and a factorisation against all rows."""

from __future__ import annotations

import tempfile
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
from effrec_cli.schema.model_none import NoModelConfig
from effrec_cli.schema.model_two_tower import TwoTowerConfig
from effrec_cli.schema.sample import SampleConfig

ALONE, FULL, FULL_FROZEN = "factorisation alone", "100 %, rand", "100 %, init_frz"
RUNS: dict[str, tuple[str, float]] = {
    FULL: ("rand", 1.0),
    FULL_FROZEN: ("init_frz", 1.0),
    "10 %, rand": ("rand", 0.1),
    "10 %, init_frz": ("init_frz", 0.1),
    "10 %, residual": ("residual", 0.1),
    ALONE: ("", 1.0),
}
"""Strategy and rate, by what a run is called; the factorisation alone trains no network."""
_METRIC = "ndcg@10"
_WORK = ("factorise", "sample", "train")


def running(parameters: dict[str, Any], peer: str, device: torch.device) -> Trial:
    """Returns a run as `effrec train` does it, which finds nothing that another has made.

    Args:
        parameters: `users`, `items`, `mean length`, `dim` of the factors, `epochs` at most and `patience`.
        peer: one of RUNS.
        device: where.
    """

    def once() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="effrec-bench-") as folder:
            return figures_of(train(config_of(parameters, peer, device, Path(folder))))

    return once


def config_of(size: dict[str, Any], peer: str, device: torch.device, folder: Path) -> Config:
    """Returns the settings of a run, made without Hydra, which a bare machine may lack."""
    strategy, rate = RUNS[peer]
    factors = FactorsConfig(dim=size["dim"])
    alone = peer == ALONE
    return Config(
        dataset=SyntheticConfig(
            name="synthetic",
            family="synthetic",
            num_users=size["users"],
            num_items=size["items"],
            interactions_per_user=size["mean length"],
            side=["text", "features"],
        ),
        model=NoModelConfig() if alone else TwoTowerConfig(),
        method=IALSConfig(dim=size["dim"])
        if alone
        else CADCConfig(embedding=strategy, factors=factors, sample=SampleConfig(rate=rate)),
        optimizer=OptimizerConfig(),
        run=RunConfig(
            dir=str(folder / "run"),
            device=device.type,
            max_epochs=size["epochs"],
            patience=size["patience"],
        ),
        evaluation=EvaluationConfig(ks=[10], metrics=["ndcg", "hr"]),
        data_root=str(folder / "data"),
    )


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
