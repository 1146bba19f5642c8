"""Whole runs of method dsl on simulated data: what each mode reaches, and what it takes and serves."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import torch

from effrec_cli.bench.dsl_steps import DENSE
from effrec_cli.bench.e2e import train
from effrec_cli.bench.suites import Trial
from effrec_cli.evaluation.cost_record import state_bytes
from effrec_cli.paths import default_data_root
from effrec_cli.result import Result
from effrec_cli.schema import Config, EvaluationConfig, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_synthetic import SyntheticConfig
from effrec_cli.schema.method_dsl import MOVING, SPARSE, DSLConfig
from effrec_cli.schema.model_bpr_mf import BPRMFConfig

WIDER = 4
RUNS: dict[str, dict[str, Any]] = {
    "dsl": {"mode": "dsl"},
    "dsl, global": {"mode": "dsl", "structure": "global"},
    f"dsl, {WIDER} d": {"mode": "dsl"},
    "rigl": {"mode": "rigl"},
    "set": {"mode": "set"},
    "static": {"mode": "static"},
    DENSE: {"mode": "dense"},
    "dense_small": {"mode": "dense_small"},
    "magnitude": {"mode": "magnitude"},
    "dense_int8": {"mode": "dense_int8"},
}
"""Settings of method dsl, by what a run is called; one is wider, with as many live numbers in a row."""
_WIDE = f"dsl, {WIDER} d"
_BUDGETED = (*SPARSE, "dense_small", "magnitude")
_METRIC = "ndcg@10"
_MIB = 1 << 20


def running(parameters: dict[str, Any], peer: str, device: torch.device) -> Trial:
    """Returns a run as `effrec train` does it; each turn has a seed of its own, alike for all peers.

    The prepared data stay where `effrec train` keeps them, so that the peers share them.

    Args:
        parameters: `users`, `items`, `mean length`, `batch`, `dim`, `density` and `epochs`.
        peer: one of RUNS.
        device: where.
    """
    seeds = count(1)

    def once() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="effrec-bench-") as folder:
            return figures_of(train(config_of(parameters, peer, device, Path(folder), next(seeds))))

    return once


def config_of(size: dict[str, Any], peer: str, device: torch.device, folder: Path, seed: int = 1) -> Config:
    """Returns the settings of a run, made without Hydra, which a bare machine may lack.

    Users choose by interests that stay: what follows on what, and what is new, no product of two vectors
    knows.
    """
    return Config(
        dataset=SyntheticConfig(
            name="synthetic",
            family="synthetic",
            num_users=size["users"],
            num_items=size["items"],
            interactions_per_user=size["mean length"],
            follow=0.0,
            drift=0.0,
            fresh_share=0.0,
            side=[],
        ),
        model=BPRMFConfig(),
        method=method_of(size, peer),
        optimizer=OptimizerConfig(lr=1e-2),
        run=RunConfig(dir=str(folder / "run"), device=device.type, max_epochs=size["epochs"], patience=None),
        evaluation=EvaluationConfig(ks=[10], metrics=["ndcg", "hr"]),
        seed=seed,
        data_root=str(default_data_root()),
    )


def method_of(size: dict[str, Any], peer: str) -> DSLConfig:
    """Returns the settings of the method; a wider table has as many bytes."""
    settings, mode = dict(RUNS[peer]), RUNS[peer]["mode"]
    wider = WIDER if peer == _WIDE else 1
    if mode in _BUDGETED:
        settings["density"] = size["density"] / wider
    if mode in MOVING:
        settings["update_every"] = 3.0
    return DSLConfig(dim=wider * size["dim"], reg=0.02, batch_size=size["batch"], **settings)


def figures_of(found: Result) -> dict[str, float]:
    """Returns what a run reached, trained with and serves."""
    cost, score = found.cost, found.metrics["test"][_METRIC]
    ceiling = (found.ceiling or {}).get(_METRIC)
    state = sum(each or 0 for each in state_bytes(cost, found.sparsity).values())
    assert found.sparsity is not None
    return {
        _METRIC: score,
        **({"share of ceiling": 100 * score / ceiling} if ceiling else {}),
        "served": found.sparsity["served_bytes"] / _MIB,
        "file": (cost.model_bytes or 0) / _MIB,
        "training state": state / _MIB,
        "multiply-adds": found.sparsity["multiply_adds"],
        "train": cost.seconds_total,
    }
