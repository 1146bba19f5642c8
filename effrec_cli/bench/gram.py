"""Ways to train a content encoder: time, encoder calls and memory of whole steps and whole cycles.

An interaction is a place that holds an item: an answer, or a click of a history or a candidate. `e2e` encodes
each. Steps are those of `effrec train` (encoder, filter, task, mode, optimizers), their batches made before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from effrec_cli.bench.gram_work import SMALL, TINY, encoder_name, prepared, texts_of
from effrec_cli.bench.suites import Cell, Options, Trial

UNITS = {
    "time": "s per 1,000",
    "over e2e": "",
    "over e2e_dedup": "",
    "encodes": "a step",
    "interactions": "a step",
    "peak memory": "MiB",
    "memory of e2e's": "%",
    "micro-batches": "",
}

FEW = 2
"""Steps that a mode without cycles is timed over."""
PERIOD = 10
E2E, DEDUP = "e2e", "e2e_dedup"


@dataclass(frozen=True)
class Peer:
    """One way to train.

    Attributes:
        settings: of method gram.
        steps: that are timed, in whole cycles; None is an epoch.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    steps: int | None = FEW


def _cycles(update: str, unit: str) -> Peer:
    period = PERIOD if unit == "steps" else 1
    settings = {"mode": "multi_step", "update": update, "period": period, "period_unit": unit}
    return Peer(settings, PERIOD if unit == "steps" else None)


PEERS = {
    E2E: Peer({"mode": "e2e"}),
    DEDUP: Peer({"mode": "e2e_dedup"}),
    "single_step, fused": Peer({"mode": "single_step", "recompute": False}),
    "single_step, recomputed": Peer({"mode": "single_step", "recompute": True}),
    "multi_step, 10 steps, inject_multi": _cycles("inject_multi", "steps"),
    "multi_step, 10 steps, inject_single": _cycles("inject_single", "steps"),
    "multi_step, 10 steps, regress, fp32": _cycles("regress", "steps"),
    "multi_step, epoch, inject_multi": _cycles("inject_multi", "epochs"),
    "multi_step, epoch, inject_single": _cycles("inject_single", "epochs"),
    "multi_step, epoch, regress, fp32": _cycles("regress", "epochs"),
    "frozen": Peer({"mode": "frozen"}, PERIOD),
}
GROWING = (E2E, DEDUP, "single_step, fused", "single_step, recomputed")
"""Peers whose memory is looked at as the batch grows."""
_AS_TOEIC = (E2E, DEDUP, "multi_step, epoch, inject_multi", "frozen")

Shape = dict[str, Any]


def _tracing(
    windows: int, items: int, steps: int, tokens: int, batch_tokens: int, answers: int = 100
) -> Shape:
    return {
        "windows": windows,
        "answers": answers,
        "items": items,
        "steps": steps,
        "tokens": tokens,
        "batch_tokens": batch_tokens,
    }


def _news(clicks: int, items: int, steps: int, tokens: int, batch_tokens: int, history: int = 50) -> Shape:
    return {
        "clicks": clicks,
        "history": history,
        "candidates": 5,
        "items": items,
        "steps": steps,
        "tokens": tokens,
        "batch_tokens": batch_tokens,
    }


SMALL_BATCH, LARGE_BATCH = "small batch", "8 times the batch"

# On a GPU: the batches of the paper; POJ's items and answers of an epoch, with a quarter of its tokens; a
# sixteenth of MIND's news and clicks; TOEIC's 10,097 answers an item and its tokens, of few items.
_GPU = {
    "knowledge tracing": (tuple(PEERS), _tracing(32, 2597, 281, 68, 8192)),
    "news": (tuple(PEERS), _news(256, 6500, 825, 14, 8192)),
    SMALL_BATCH: (GROWING, _tracing(8, 2597, FEW, 68, 8192)),
    LARGE_BATCH: (GROWING, _tracing(64, 2597, FEW, 68, 8192)),
    "many answers an item": (_AS_TOEIC, _tracing(32, 256, 808, 147, 8192)),
}
_CPU = {
    "knowledge tracing": (tuple(PEERS), _tracing(8, 400, 30, 16, 1024)),
    "news": (tuple(PEERS), _news(8, 400, 60, 14, 1024)),
    SMALL_BATCH: (GROWING, _tracing(2, 400, FEW, 16, 1024)),
    LARGE_BATCH: (GROWING, _tracing(16, 400, FEW, 16, 1024)),
    "many answers an item": (_AS_TOEIC, _tracing(8, 40, 40, 16, 1024)),
}
# Of an encoder that the user names, which is larger than the built-in one on a CPU.
_NAMED = {
    "knowledge tracing": (tuple(PEERS), _tracing(2, 100, 30, 16, 512)),
    "news": (tuple(PEERS), _news(2, 100, 60, 14, 512)),
    SMALL_BATCH: (GROWING, _tracing(1, 200, FEW, 16, 512)),
    LARGE_BATCH: (GROWING, _tracing(8, 200, FEW, 16, 512)),
    "many answers an item": (_AS_TOEIC, _tracing(2, 10, 40, 16, 512)),
}
_QUICK = {
    "quick tracing": (tuple(PEERS), _tracing(2, 12, 4, 4, 32, answers=8)),
    "quick news": (tuple(PEERS), _news(2, 12, 4, 4, 32, history=6)),
}


def cells(options: Options) -> list[Cell]:
    """Returns the shapes for a device; on a CPU `EFFREC_ENCODER` and `EFFREC_TEXTS` bring what encodes what.

    Raises:
        ConfigError: there are texts, and no encoder of the user's to read them.
    """
    encoder = TINY if options.quick else encoder_name(options.device)
    named = encoder not in (TINY, SMALL) and options.device.type == "cpu"
    by_device = _GPU if options.device.type == "cuda" else _NAMED if named else _CPU
    shapes = _QUICK if options.quick else by_device
    texts = texts_of(named)
    # A named encoder's records stand beside those of the built-in one, not in their place.
    beside = [encoder] * named + [Path(text).stem for text in texts.values()]
    return [
        Cell(
            ", ".join([name, *beside]),
            peers,
            shape | {"encoder": encoder} | texts,
            repeats=1 if options.quick or named else 2,
            timeout_s=600.0,
        )
        for name, (peers, shape) in shapes.items()
    ]


def trial(cell: Cell, peer: str, device: torch.device) -> Trial:
    """Returns some steps of a peer, or a whole cycle; the encoder has trained once before."""
    own = PEERS[peer]
    work = prepared(cell.parameters, own.settings, own.steps or cell.parameters["steps"], device)
    micros = len(work.steps[0])
    return lambda: work.figures() | ({"micro-batches": micros} if micros > 1 else {})


def compared(samples: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """Returns the samples of all peers with how much faster than the end-to-end ones each turn was."""
    return {
        peer: [_beside(samples, at, own) for at, own in enumerate(turns)] for peer, turns in samples.items()
    }


def _beside(samples: dict[str, list[dict[str, float]]], turn: int, own: dict[str, float]) -> dict[str, float]:
    found = dict(own)
    for base in (E2E, DEDUP):
        if turn < len(samples.get(base, [])):
            found[f"over {base}"] = samples[base][turn]["time"] / own["time"]
    if turn < len(samples.get(E2E, [])):
        found["memory of e2e's"] = 100 * own["peak memory"] / samples[E2E][turn]["peak memory"]
    return {name: found[name] for name in UNITS if name in found}
