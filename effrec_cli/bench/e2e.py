"""Whole training runs on simulated data, one for each loss: what each costs and gives in the end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from effrec_cli.bench.suites import Cell, Options, Trial
from effrec_cli.paths import default_data_root
from effrec_cli.result import Result
from effrec_cli.schema import Config, EvaluationConfig, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_synthetic import SyntheticConfig
from effrec_cli.schema.method_cce import LOSSES, CCEConfig
from effrec_cli.schema.model_sasrec import SASRecConfig

UNITS = {
    "ndcg@10": "",
    "share of ceiling": "%",
    "epoch": "s",
    "total": "s",
    "to 95 %": "s",
    "energy": "J",
    "peak memory": "MiB",
}

# users, items, mean length, epochs, negatives, sequences in a step.
_GPU = {"100k items": (20_000, 100_000, 40.0, 6, 511, 128), "10k items": (20_000, 10_000, 40.0, 6, 255, 128)}
_CPU = {"500 items": (1000, 500, 30.0, 8, 63, 32)}
_QUICK = {"quick": (100, 60, 10.0, 1, 15, 32)}


def cells(options: Options) -> list[Cell]:
    """Returns the worlds for a device; every loss trains in each."""
    sizes = _QUICK if options.quick else _GPU if options.device.type == "cuda" else _CPU
    names = ("users", "items", "mean length", "epochs", "negatives", "batch")
    return [
        Cell(name, LOSSES, dict(zip(names, size, strict=True)), repeats=1, timeout_s=300.0)
        for name, size in sizes.items()
    ]


def trial(cell: Cell, peer: str, device: torch.device) -> Trial:
    """Returns a run of `effrec train` with the loss `peer`, in a folder that is thrown away.

    The prepared data stay where `effrec train` keeps them, so that the peers share them.
    """

    def once() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            return _figures(train(config_of(cell.parameters, peer, device, Path(folder))))

    return once


def config_of(size: dict[str, Any], loss: str, device: torch.device, folder: Path) -> Config:
    """Returns the settings of a run, made without Hydra, which a bare machine may lack."""
    length = int(2 * size["mean length"])
    return Config(
        dataset=SyntheticConfig(
            name="synthetic",
            family="synthetic",
            num_users=size["users"],
            num_items=size["items"],
            interactions_per_user=size["mean length"],
            side=[],
        ),
        model=SASRecConfig(dim=64, max_length=min(100, length)),
        method=CCEConfig(loss=loss, num_negatives=size["negatives"], batch_size=size["batch"]),
        optimizer=OptimizerConfig(lr=3e-3),
        run=RunConfig(dir=str(folder / "run"), device=device.type, max_epochs=size["epochs"]),
        evaluation=EvaluationConfig(ks=[10], metrics=["ndcg", "hr"]),
        data_root=str(default_data_root()),
    )


def train(config: Config) -> Result:
    """Runs one training as `effrec train` does."""
    from effrec_cli.run import run

    return run(config, [])


def _figures(found: Result) -> dict[str, float]:
    """Returns the figures that are there, in the units of `UNITS`."""
    score, cost = found.metrics["test"]["ndcg@10"], found.cost
    ceiling = (found.ceiling or {}).get("ndcg@10")
    every = {
        "ndcg@10": score,
        "share of ceiling": 100 * score / ceiling if ceiling else None,
        "epoch": cost.seconds_per_epoch,
        "total": cost.seconds_total,
        "to 95 %": cost.seconds_to_95,
        "energy": cost.joules,
        "peak memory": None if cost.peak_memory_bytes is None else cost.peak_memory_bytes / (1 << 20),
    }
    return {name: value for name, value in every.items() if value is not None}
