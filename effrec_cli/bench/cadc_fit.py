"""Sweeps of implicit alternating least squares, by this project's solvers and by `implicit`.

Both start from the same vectors and minimise one objective. `implicit` weighs cells that are not there 1 and
the others c, of which it wants 1; effrec's objective, divided by a0, is the same at c = 1 + 1 / a0 but wants
1 / (1 + a0) of them. Vectors k times as long, k^2 = 1 + a0, and reg (1 + a0) / a0 make one of the other. The
frequency exponent is 0, since `implicit` holds all rows alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effrec_cli.bench.clock import extra_bytes
from effrec_cli.bench.drawn import popular
from effrec_cli.bench.suites import Trial
from effrec_cli.models.factors.ials import IALS, first_vectors
from effrec_cli.models.factors.matrix import Interactions

FLAT = 40
"""Lets the most popular item have as large a share of all cells as in MovieLens 20M."""
SPREAD = 1.4
"""Deviation of the logarithm of what users have beyond FEWEST; gives MovieLens 20M's mean over median."""
FEWEST = 20
_SEED = 0
_MIB = 1 << 20


@dataclass
class Fit:
    """Vectors after some sweeps.

    Attributes:
        users: [U, d], on the scale of effrec's objective.
        items: [V, d].
        sweeps: seconds of each.
    """

    users: Tensor
    items: Tensor
    sweeps: list[float]


def drawn_matrix(users: int, items: int, draws: int) -> Interactions:
    """Returns who met what, on the CPU; a pair that is drawn twice is one cell.

    Args:
        users: U, with FEWEST draws or more each, as long as there are enough.
        items: V, popular by Zipf's law, flatter at its top.
        draws: of pairs, about.
    """
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(0.0, SPREAD, users)
    fewest = min(FEWEST, draws // (2 * users))
    degrees = fewest + np.floor((draws - users * fewest) * sizes / sizes.sum()).astype(np.int64)
    degrees = np.minimum(degrees, max(1, items // 2))
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(degrees)]))
    columns = torch.from_numpy(popular(rng, items, int(offsets[-1]), FLAT))
    return Interactions.distinct(offsets, columns, items)


def by_effrec(solver: str) -> Callable[[Interactions, dict[str, Any]], Fit]:
    """Returns what fits by one of this project's solvers."""

    def fit(matrix: Interactions, parameters: dict[str, Any]) -> Fit:
        made = IALS(matrix, solver=solver, seed=_SEED, **_terms(parameters))
        sweeps = []
        for _ in range(parameters["sweeps"]):
            begun = _now(matrix)
            made.sweep()
            sweeps.append(_now(matrix) - begun)
        return Fit(made.users, made.items, sweeps)

    return fit


def by_implicit(*, conjugate: bool) -> Callable[[Interactions, dict[str, Any]], Fit]:
    """Returns what fits by `implicit` on a CPU, with as many threads as torch has.

    Args:
        conjugate: by three steps of conjugate gradients, its default, in place of exact solutions.
    """

    def fit(matrix: Interactions, parameters: dict[str, Any]) -> Fit:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix

        weight, dim = parameters["weight"], parameters["dim"]
        long = (1 + weight) ** 0.5
        model = AlternatingLeastSquares(
            factors=dim,
            regularization=parameters["reg"] * (1 + weight) / weight,
            iterations=parameters["sweeps"],
            use_cg=conjugate,
            num_threads=torch.get_num_threads(),
        )
        first = (first_vectors(each.degrees(), dim, _SEED + at, torch.float32) for at, each in _sides(matrix))
        model.user_factors, model.item_factors = (long * each.numpy() for each in first)
        values = np.full(len(matrix), 1 + 1 / weight, np.float32)
        shape = (matrix.num_rows, matrix.num_columns)
        told = csr_matrix((values, matrix.columns.numpy(), matrix.offsets.numpy()), shape)
        sweeps: list[float] = []
        model.fit(told, show_progress=False, callback=lambda _, seconds, __: sweeps.append(seconds))
        users, items = (
            torch.from_numpy(each / np.float32(long)) for each in (model.user_factors, model.item_factors)
        )
        return Fit(users, items, sweeps)

    return fit


FITTERS = {
    "effrec cg": by_effrec("cg"),
    "effrec cholesky": by_effrec("cholesky"),
    "effrec blocks": by_effrec("blocks"),
    "implicit cg": by_implicit(conjugate=True),
    "implicit cholesky": by_implicit(conjugate=False),
}
"""What makes a `Fit` of a matrix, by who does."""


def fitters(device: torch.device) -> tuple[str, ...]:
    """Returns who can fit on a device: `implicit` on a CPU, where it is installed."""
    there = device.type == "cpu" and find_spec("implicit") is not None
    return tuple(name for name in FITTERS if there or not name.startswith("implicit"))


def sweeping(parameters: dict[str, Any], peer: str, device: torch.device) -> Trial:
    """Returns a fit of some sweeps, from the rows' cells on the device to the vectors; a tiny one was done.

    Args:
        parameters: `users`, `items`, `draws`, `dim`, `sweeps`, `reg` and `weight`.
        peer: one of FITTERS.
        device: where.
    """
    matrix = drawn_matrix(parameters["users"], parameters["items"], parameters["draws"]).to(device)
    FITTERS[peer](drawn_matrix(64, 64, 512).to(device), parameters)
    return lambda: _figures(matrix, parameters, FITTERS[peer])


def _figures(
    matrix: Interactions, parameters: dict[str, Any], fit: Callable[[Interactions, dict[str, Any]], Fit]
) -> dict[str, float]:
    made: list[Fit] = []
    times: list[float] = []

    def whole() -> None:
        begun = _now(matrix)
        made.append(fit(matrix, parameters))
        times.append(_now(matrix) - begun)

    peak = extra_bytes(whole, matrix.columns.device)
    (found,), (seconds,) = made, times
    return {
        "cells": float(len(matrix)),
        "sweep": statistics.median(found.sweeps),
        "before": seconds - sum(found.sweeps),
        "peak memory": max(0.0, peak) / _MIB,
        "objective": objective(matrix, parameters, found) / len(matrix),
    }


def objective(matrix: Interactions, parameters: dict[str, Any], fit: Fit) -> float:
    """Returns effrec's objective at these vectors."""
    judge = IALS(matrix, solver="cg", **_terms(parameters))
    judge.users, judge.items = fit.users, fit.items
    return judge.objective()


def _terms(parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "dim": parameters["dim"],
        "reg": parameters["reg"],
        "unobserved_weight": parameters["weight"],
        "frequency_exponent": 0.0,
    }


def _sides(matrix: Interactions) -> enumerate[Interactions]:
    return enumerate((matrix, matrix.transposed()))


def _now(matrix: Interactions) -> float:
    if matrix.columns.is_cuda:
        torch.cuda.synchronize(matrix.columns.device)
    return time.perf_counter()
