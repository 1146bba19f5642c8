"""Method dsl: steps of its tables and their bytes, scoring by them, and whole runs at equal bytes."""

from __future__ import annotations

from typing import Any

import torch

from effrec_cli.bench.dsl_runs import RUNS, running
from effrec_cli.bench.dsl_scores import SCORERS, scoring
from effrec_cli.bench.dsl_steps import DENSE, DENSE_ADAM, TABLES, stepping
from effrec_cli.bench.suites import Cell, Options, Trial

UNITS = {
    "step": "ms",
    "update": "ms",
    "steps between updates": "",
    "step with updates": "ms",
    "scores": "ms",
    "time of dense's": "%",
    "multiply-adds": "an item",
    "values": "MiB",
    "table": "MiB",
    "table of dense's": "%",
    "training state": "MiB",
    "of the formula": "%",
    "state of dense's": "%",
    "state of dense Adam's": "%",
    "peak memory": "MiB",
    "peak with an update": "MiB",
    "peak of dense's": "%",
    "ndcg@10": "",
    "share of ceiling": "%",
    "ndcg@10 of dense's": "%",
    "served": "MiB",
    "file": "MiB",
    "train": "s",
}

Shape = dict[str, Any]
WIDTHS = ((128, 0.25), (128, 0.1), (64, 0.5), (1024, 0.02))
"""d and p: few live numbers of wide rows, and half of narrow ones."""
_NARROW = ((8, 0.25), (16, 0.1))
SHAPES = {
    # Users, items and training rows of LightGCN's files.
    ", Yelp2018's shape": (31_668, 38_048, 1_237_259),
    ", Amazon-Book's shape": (52_643, 91_599, 2_380_730),
}
AT_ONCE = 256
"""Users that are scored together."""


def _steps(users: int, items: int, interactions: int, batch: int, steps: int) -> Shape:
    shape = {"users": users, "items": items, "interactions": interactions}
    return {**shape, "batch": batch, "steps": steps}


def _scores(items: int, at_once: int = AT_ONCE) -> Shape:
    return {"items": items, "at once": at_once}


def _runs(users: int, items: int, batch: int, dim: int, epochs: int) -> Shape:
    return {"users": users, "items": items, "mean length": 40.0, "batch": batch, "dim": dim, "epochs": epochs}


def cells(options: Options) -> list[Cell]:
    """Returns the cells for a device: bytes and quality at a quarter and a tenth first, wide rows last."""
    if options.quick:
        return _quick()
    if options.device.type == "cuda":
        return _on_gpu()
    steps = _stepping("", _steps(20_000, 20_000, 800_000, batch=1024, steps=4), WIDTHS)
    scores = _scoring("", _scores(20_000), WIDTHS)
    runs = _running(_runs(1000, 500, batch=1024, dim=64, epochs=20), (0.25, 0.1), repeats=1)
    wide = _stepping("", _steps(4000, 4000, 160_000, batch=1024, steps=4), WIDTHS[3:])
    return [steps[0], *runs, steps[1], *scores, steps[2], *wide]


def _on_gpu() -> list[Cell]:
    yelp, amazon = SHAPES
    steps, more = (
        _stepping(name, _steps(*SHAPES[name], batch=4096, steps=6), WIDTHS) for name in (yelp, amazon)
    )
    scores, other = (_scoring(name, _scores(SHAPES[name][1]), WIDTHS) for name in (yelp, amazon))
    runs = _running(_runs(6000, 3000, batch=4096, dim=64, epochs=20), (0.25, 0.1), repeats=1)
    return [*steps[:2], *scores[:2], *more[:2], *runs, *scores[2:], *other, *steps[2:], *more[2:]]


def _quick() -> list[Cell]:
    return [
        *_stepping(", quick", _steps(60, 40, 400, batch=16, steps=2), _NARROW, repeats=1),
        *_scoring(", quick", _scores(40, at_once=8), _NARROW, repeats=1),
        *_running(_runs(60, 40, batch=64, dim=8, epochs=2), (0.25,), repeats=1),
    ]


def _stepping(name: str, shape: Shape, widths: tuple[tuple[int, float], ...], repeats: int = 2) -> list[Cell]:
    return [
        Cell(
            f"steps, d = {dim}, density {density:g}{name}",
            tuple(TABLES),
            {**shape, "dim": dim, "density": density},
            repeats,
            timeout_s=600.0,
        )
        for dim, density in widths
    ]


def _scoring(name: str, shape: Shape, widths: tuple[tuple[int, float], ...], repeats: int = 3) -> list[Cell]:
    return [
        Cell(
            f"scoring, d = {dim}, density {density:g}{name}",
            tuple(SCORERS),
            {**shape, "dim": dim, "density": density},
            repeats,
        )
        for dim, density in widths
    ]


def _running(shape: Shape, densities: tuple[float, ...], repeats: int) -> list[Cell]:
    return [
        Cell(
            f"quality, density {density:g}",
            tuple(RUNS),
            {**shape, "density": density},
            repeats,
            timeout_s=600.0,
        )
        for density in densities
    ]


def trial(cell: Cell, peer: str, device: torch.device) -> Trial:
    """Returns a whole run, a scoring or some steps, by what the cell is."""
    doing = running if "epochs" in cell.parameters else scoring if "at once" in cell.parameters else stepping
    return doing(cell.parameters, peer, device)


_BESIDE = (
    # figure, the peer it is beside, what is compared
    ("time of dense's", DENSE, "step with updates"),
    ("time of dense's", DENSE, "scores"),
    ("time of dense's", DENSE, "train"),
    ("table of dense's", DENSE, "table"),
    ("state of dense's", DENSE, "training state"),
    ("state of dense Adam's", DENSE_ADAM, "training state"),
    ("peak of dense's", DENSE, "peak memory"),
    ("ndcg@10 of dense's", DENSE, "ndcg@10"),
)


def compared(samples: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """Returns the samples of all peers with what each turn takes of that of dense tables, in percent."""
    return {
        peer: [_beside(samples, at, own) for at, own in enumerate(turns)] for peer, turns in samples.items()
    }


def _beside(samples: dict[str, list[dict[str, float]]], turn: int, own: dict[str, float]) -> dict[str, float]:
    found = dict(own)
    for name, base, figure in _BESIDE:
        if figure in own and turn < len(samples.get(base, [])):
            found[name] = 100 * own[figure] / samples[base][turn][figure]
    return {name: found[name] for name in UNITS if name in found}
