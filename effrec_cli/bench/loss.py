"""Losses over a large catalogue: time of forward and backward, extra memory, error against float64.

Extra memory is the peak beyond the inputs and their gradients, which every implementation has to make. On a
GPU a time is also compared with the roofline: the least time that the work takes at the rates for gathering
rows, adding to rows and multiplying matrices, measured by the same process.
"""

from __future__ import annotations

from functools import partial

import torch
from effrec_kernels.work import full_work, sampled_work
from torch import Tensor

from effrec_cli.bench.ceilings import rates_of
from effrec_cli.bench.clock import extra_bytes, median_seconds
from effrec_cli.bench.loss_peers import PEERS, Problem, available, oracle
from effrec_cli.bench.suites import Cell, Options, Trial

UNITS = {
    "time": "ms",
    "extra memory": "MiB",
    "error of loss": "",
    "error of gradient": "",
    "share of roofline": "",
}

# rows M, items V, negatives N, dim D; the ones of the CCE- paper's datasets are scaled in M alone.
_GPU = {
    "beauty": (16384, 176_450, 511, 256),
    "zvuk": (8192, 893_022, 2047, 256),
    "ml-20m": (32768, 15_405, 511, 256),
    "megamarket": (8192, 1_661_327, 1023, 256),
    "many rows": (131_072, 100_000, 255, 64),
    "many negatives": (4096, 100_000, 4095, 128),
    "ten million items": (4096, 10_000_000, 127, 64),
}
_CPU = {
    "small": (1024, 10_000, 127, 64),
    "few items": (2048, 2_000, 127, 64),
    "many items": (512, 100_000, 127, 64),
    "many negatives": (256, 20_000, 1023, 64),
}
_QUICK = {"quick": (128, 1_000, 31, 16)}

CHECKED_ROWS = 8
"""Rows whose loss and gradients are compared with float64's."""


def cells(options: Options) -> list[Cell]:
    """Returns the shapes for a device, with every peer that can be imported there."""
    gpu = options.device.type == "cuda"
    shapes = _QUICK if options.quick else _GPU if gpu else _CPU
    dtype = "bfloat16" if gpu else "float32"
    return [
        Cell(
            name,
            tuple(available(options.device)),
            {"rows": rows, "items": items, "negatives": negatives, "dim": dim, "dtype": dtype},
            repeats=3,
        )
        for name, (rows, items, negatives, dim) in shapes.items()
    ]


def trial(cell: Cell, peer: str, device: torch.device) -> Trial:
    """Returns forward and backward of a peer's loss; its error is measured once, on its first rows."""
    problem = make_problem(cell.parameters, device)
    errors = errors_of(peer, problem)
    work = partial(forward_backward, peer, problem)
    # After the warm-up of the errors and before the turns, when no other peer works.
    least = roofline_seconds(peer, problem) if device.type == "cuda" else None

    def once() -> dict[str, float]:
        problem.forget_gradients()
        memory = max(0.0, extra_bytes(work, device) - problem.gradient_bytes)
        seconds = median_seconds(work, device)
        share = {} if least is None else {"share of roofline": least / seconds}
        return {"time": 1000 * seconds, "extra memory": memory / (1 << 20), **errors, **share}

    return once


def make_problem(parameters: dict[str, int | str], device: torch.device) -> Problem:
    """Returns random states, a table with a spread as trained ones have, and targets."""
    rows, items, dim = (int(parameters[name]) for name in ("rows", "items", "dim"))
    dtype = getattr(torch, str(parameters["dtype"]))
    draw = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(rows, dim, generator=draw, device=device).to(dtype)
    table = (torch.randn(items, dim, generator=draw, device=device) / dim**0.5).to(dtype)
    targets = torch.randint(items, (rows,), generator=draw, device=device)
    return Problem(hidden.requires_grad_(), table.requires_grad_(), targets, int(parameters["negatives"]))


def forward_backward(peer: str, problem: Problem) -> Tensor:
    """Runs a peer's loss and its gradients, which replace those before; returns the loss."""
    problem.forget_gradients()
    loss = PEERS[peer].loss(problem)
    loss.backward()
    return loss.detach()


def errors_of(peer: str, problem: Problem) -> dict[str, float]:
    """Returns the relative errors of loss and gradients on a few rows; the worse of both gradients counts."""
    few = problem.first(CHECKED_ROWS)
    loss = forward_backward(peer, few)
    exact = few.doubled()
    true_loss = oracle(exact, PEERS[peer])
    true_loss.backward()
    return {
        "error of loss": _relative(loss, true_loss.detach()),
        "error of gradient": max(
            _relative(few.hidden.grad, exact.hidden.grad), _relative(few.items.grad, exact.items.grad)
        ),
    }


def roofline_seconds(peer: str, problem: Problem) -> float:
    """Returns the least time of a peer's work at the device's own rates."""
    rows, dim = problem.hidden.shape
    rates = rates_of(problem.items)
    if not PEERS[peer].sampled:
        return full_work(rows, len(problem.items), dim, item_bytes=problem.items.itemsize).seconds(rates)
    work = sampled_work(
        rows,
        problem.num_negatives,
        dim,
        group_rows=PEERS[peer].group_rows(rows),
        item_bytes=problem.items.itemsize,
        hidden_bytes=problem.hidden.itemsize,
    )
    return work.seconds(rates)


def _relative(found: Tensor | None, true: Tensor | None) -> float:
    """Returns |found - true| / |true|."""
    if found is None or true is None:
        raise ValueError("a gradient is missing")
    return float((found.double() - true).norm() / true.norm())
