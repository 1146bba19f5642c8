"""Method cadc: sweeps of its factorisation, runs on samples of the rows, and steps of its networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from effrec_cli.bench.cadc_fit import FITTERS, fitters, sweeping
from effrec_cli.bench.cadc_runs import FULL, FULL_FROZEN, OF_ALL, PERCENT, RUNS, running, strategies
from effrec_cli.bench.cadc_steps import STRATEGIES, TRAIN, stepping
from effrec_cli.bench.suites import Cell, Options, Trial

UNITS = {
    "cells": "",
    "sweep": "s",
    "before": "s",
    "objective": "a cell",
    "over implicit cg": "",
    "factorise": "s",
    "sample": "s",
    "train": "s",
    "in all": "s",
    "time of 100 %, rand": "%",
    "epochs": "",
    "ndcg@10": "",
    "share of ceiling": "%",
    "ndcg@10 of 100 %, init_frz": "%",
    "ndcg@10 of the factorisation": "%",
    "step": "ms",
    "over tables that train": "",
    "peak memory": "MiB",
    "trainable parameters": "",
}

Shape = dict[str, Any]
MATRIX, LARGE_MATRIX = "sweeps, MovieLens 1M's shape", "sweeps, MovieLens 20M's shape"
WHOLE, BY_RATE = "whole runs", "strategies"
RATES = (1, 5, 10, 25, 50, 100)
"""Percent of the training rows that networks train on."""


def _sweeps(users: int, items: int, draws: int, dim: int, sweeps: int) -> Shape:
    # With frequency exponent 0 a row's regulariser is reg itself, which is of the size of a row's degree.
    shape = {"users": users, "items": items, "draws": draws, "dim": dim, "sweeps": sweeps}
    return {**shape, "reg": 5.0, "weight": 0.1}


def _runs(users: int, items: int, length: float, dim: int, epochs: int, patience: int) -> Shape:
    shape = {"users": users, "items": items, "mean length": length}
    return {**shape, "dim": dim, "epochs": epochs, "patience": patience}


def _equal_steps(users: int, items: int, length: float, dim: int, batch: int, steps: int) -> Shape:
    shape = {"users": users, "items": items, "mean length": length}
    return {**shape, "dim": dim, "batch": batch, "steps": steps}


def _steps(users: int, items: int, batch: int, dim: int, steps: int) -> Shape:
    return {"users": users, "items": items, "batch": batch, "dim": dim, "steps": steps}


# Draws of which as many different pairs are left as there are ratings, about.
_ML_1M, _ML_20M = (6040, 3706, 1_300_000), (138_493, 26_744, 22_700_000)
_GPU = {
    MATRIX: _sweeps(*_ML_1M, dim=64, sweeps=12),
    LARGE_MATRIX: _sweeps(*_ML_20M, dim=64, sweeps=12),
    WHOLE: _runs(50_000, 20_000, 60.0, dim=64, epochs=200, patience=15),
    BY_RATE: _equal_steps(50_000, 20_000, 60.0, dim=64, batch=4096, steps=2000),
    "steps": _steps(138_493, 26_744, batch=4096, dim=64, steps=20),
}
_CPU = {
    MATRIX: _sweeps(*_ML_1M, dim=64, sweeps=6),
    WHOLE: _runs(4000, 2000, 40.0, dim=64, epochs=200, patience=15),
    "steps": _steps(138_493, 26_744, batch=4096, dim=64, steps=4),
    BY_RATE: _equal_steps(4000, 2000, 40.0, dim=64, batch=512, steps=300),
    LARGE_MATRIX: _sweeps(*_ML_20M, dim=64, sweeps=2),
}
_QUICK = {
    "quick sweeps": _sweeps(60, 40, 900, dim=8, sweeps=2),
    "quick runs": _runs(60, 40, 10.0, dim=8, epochs=2, patience=1),
    "quick strategies": _equal_steps(60, 40, 10.0, dim=8, batch=64, steps=4),
    "quick steps": _steps(60, 40, batch=16, dim=8, steps=2),
}


def cells(options: Options) -> list[Cell]:
    """Returns the cells for a device; the fit of MovieLens 20M's shape is a CPU's last, and long."""
    shapes = _QUICK if options.quick else _GPU if options.device.type == "cuda" else _CPU
    return [cell for name, shape in shapes.items() for cell in _cells(name, shape, options)]


def _by_rate(name: str, shape: Shape, rates: Sequence[int]) -> list[Cell]:
    return [
        Cell(
            f"{name} at {rate} %",
            tuple(strategies(rate)),
            {**shape, PERCENT: rate},
            repeats=1,
            timeout_s=1200.0,
        )
        for rate in rates
    ]


def _cells(name: str, shape: Shape, options: Options) -> list[Cell]:
    if "sweeps" in shape:
        repeats = 1 if options.quick or name == LARGE_MATRIX else 3
        return [Cell(name, fitters(options.device), shape, repeats, timeout_s=1200.0)]
    if "patience" in shape:
        return [Cell(name, tuple(RUNS), shape, repeats=1, timeout_s=1800.0)]
    if "mean length" in shape:
        return _by_rate(name, shape, (50,) if options.quick else RATES)
    repeats = 1 if options.quick else 3
    return [
        Cell(f"{name} of {model}", tuple(STRATEGIES), {**shape, "model": model}, repeats)
        for model in ("two_tower", "dlrm")
    ]


def trial(cell: Cell, peer: str, device: torch.device) -> Trial:
    """Returns a fit, a run or some steps, by what the cell has and who the peer is."""
    runs = "mean length" in cell.parameters
    doing = running if runs else sweeping if peer in FITTERS else stepping
    return doing(cell.parameters, peer, device)


_BESIDE = (
    # figure, the peer it is beside, what is compared, whether the peer's is above, its factor
    ("over implicit cg", "implicit cg", "sweep", True, 1),
    ("time of 100 %, rand", FULL, "in all", False, 100),
    ("ndcg@10 of 100 %, init_frz", FULL_FROZEN, "ndcg@10", False, 100),
    ("ndcg@10 of the factorisation", OF_ALL, "ndcg@10", False, 100),
    ("over tables that train", TRAIN, "step", True, 1),
)


def compared(samples: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """Returns the samples of all peers with how each turn compares to that of the peer it is measured by."""
    return {
        peer: [_beside(samples, at, own) for at, own in enumerate(turns)] for peer, turns in samples.items()
    }


def _beside(samples: dict[str, list[dict[str, float]]], turn: int, own: dict[str, float]) -> dict[str, float]:
    found = dict(own)
    for name, base, figure, above, factor in _BESIDE:
        if turn < len(samples.get(base, [])):
            ratio = own[figure] / samples[base][turn][figure]
            found[name] = factor * (1 / ratio if above else ratio)
    return {name: found[name] for name in UNITS if name in found}
