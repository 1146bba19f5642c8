"""Method iisan and what it is compared with: time, memory and parameters of every mode, and filling a cache.

Steps are those of `effrec train` (encoder, user encoder, loss, optimizers), their batches made before; an
epoch's time is that of some of its steps, scaled by their number.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from effrec_cli.bench.clock import median_seconds
from effrec_cli.bench.iisan_fill import filling, forward_pass
from effrec_cli.bench.iisan_work import TINY, backbones_on, prepared
from effrec_cli.bench.suites import Cell, Options, Trial
from effrec_cli.evaluation.tpme import tpme
from effrec_cli.schema.method_iisan import FeatureCacheConfig

CACHED, COMPILED, FFT = "iisan cached", "iisan cached compiled", "fft"
FORWARD, FILLING = "forward pass", "filling the cache"

PEERS: dict[str, dict[str, Any]] = {
    CACHED: {},
    COMPILED: {"compile": True},
    "iisan uncached": {"cache": FeatureCacheConfig(use=False)},
    FFT: {"mode": "fft"},
    "adapter": {"mode": "adapter"},
    "lora": {"mode": "lora"},
    "bitfit": {"mode": "bitfit"},
    "frozen cached": {"mode": "frozen"},
}
"""Settings of method iisan, by who trains; with `compile` there, `run.compile` is on, too."""

Shape = dict[str, Any]


def _shape(
    users: int, items: int, tokens: int, pixels: int, rank: int, batch_tokens: int, steps: int
) -> Shape:
    return {
        "users": users,
        "items": items,
        "tokens": tokens,
        "pixels": pixels,
        "rank": rank,
        "batch_tokens": batch_tokens,
        "steps": steps,
    }


_GPU = _shape(12_000, 20_000, 30, 224, rank=64, batch_tokens=8192, steps=20)
_CPU = _shape(1024, 1600, 30, 32, rank=16, batch_tokens=2048, steps=4)
_QUICK = _shape(64, 48, 4, 8, rank=4, batch_tokens=256, steps=2)
_WINDOWS = (64, 512)
_AT_ONCE = {"cuda": "64 256 1024 at once", "cpu": "16 64 256 at once"}

_EPOCHS = {f"epoch, from {shape['steps']} steps": "s" for shape in (_GPU, _CPU, _QUICK)}
UNITS = {
    **_EPOCHS,
    "over fft": "",
    "step": "ms",
    "encodes": "a step",
    "launches": "a step",
    "operators": "a step",
    "peak memory": "MiB",
    "memory over fft": "",
    "trainable parameters": "",
    "TPME": "%",
    "micro-batches": "",
    "all items": "s",
    "over a forward pass": "",
}


def cells(options: Options) -> list[Cell]:
    """Returns every mode on one shape, the filling of its cache, and the cached step of two batch sizes."""
    device, quick = options.device, options.quick
    backbones = TINY if quick else backbones_on(device)
    shape = {**(_QUICK if quick else _GPU if device.type == "cuda" else _CPU), "backbones": backbones}
    at_once = {"at_once": "8 16 at once" if quick else _AT_ONCE[device.type]}
    small, large = (8, 32) if quick else _WINDOWS
    found: list[tuple[str, tuple[str, ...], Shape]] = [
        ("modes", available(), {"windows": small, **shape}),
        ("cache", (FORWARD, FILLING), {"windows": small, **shape, **at_once}),
        *((f"{size} windows", (CACHED, COMPILED), {"windows": size, **shape}) for size in (small, large)),
    ]
    repeats = 1 if quick else 2
    return [Cell(name, peers, own, repeats=repeats, timeout_s=600.0) for name, peers, own in found]


def available() -> tuple[str, ...]:
    """Returns the modes that can train here: LoRA where peft is."""
    return tuple(peer for peer in PEERS if peer != "lora" or find_spec("peft"))


def trial(cell: Cell, peer: str, device: torch.device) -> Trial:
    """Returns some steps of a mode, all of which were done once before, or work over all items."""
    if peer in PEERS:
        work = prepared(cell.parameters, PEERS[peer], device)
        micros = len(work.steps[0])
        return lambda: work.figures() | ({"micro-batches": micros} if micros > 1 else {})
    over_all = (filling if peer == FILLING else forward_pass)(cell.parameters, device)
    return lambda: {"all items": median_seconds(over_all, device, 1, 0)}


def compared(samples: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """Returns the samples of all peers with how each turn compares to its others.

    TPME is over the peers that have the turn, where full fine-tuning is one of them.
    """
    turns = max(map(len, samples.values()), default=0)
    scores = [_scores(samples, turn) for turn in range(turns)]
    return {
        peer: [_beside(samples, turn, own) | scores[turn].get(peer, {}) for turn, own in enumerate(found)]
        for peer, found in samples.items()
    }


def _scores(samples: dict[str, list[dict[str, float]]], turn: int) -> dict[str, dict[str, float]]:
    """Returns the TPME of each peer that has a turn; of none where full fine-tuning has it not."""
    there = {peer: found[turn] for peer, found in samples.items() if turn < len(found)}
    if FFT not in there:
        return {}
    seconds, parameters, memory = (
        [own[name] for own in there.values()] for name in ("step", "trainable parameters", "peak memory")
    )
    found = tpme(seconds, parameters, memory)
    return {peer: {"TPME": 100 * score} for peer, score in zip(there, found, strict=True)}


def _beside(samples: dict[str, list[dict[str, float]]], turn: int, own: dict[str, float]) -> dict[str, float]:
    found = dict(own)
    if turn < len(samples.get(FFT, [])):
        base = samples[FFT][turn]
        found["over fft"] = base["step"] / own["step"]
        found["memory over fft"] = base["peak memory"] / own["peak memory"]
    if turn < len(samples.get(FORWARD, [])):
        found["over a forward pass"] = own["all items"] / samples[FORWARD][turn]["all items"]
    return found
