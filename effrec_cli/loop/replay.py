"""Keeps the step that went wrong, so that it can be run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from effrec_cli.data.batches import Batches, Share
from effrec_cli.loop.finite import Failure
from effrec_cli.seeds import mix
from effrec_cli.tensorfile import write_tensors

BATCH = "failed_batch.safetensors"
WEIGHTS = "failed_model.safetensors"


def describe(failure: Failure, batches: Batches, seed: int, ranks: int, micros: int) -> dict[str, Any]:
    """Returns where the failing step is in the data, and the random state of each of its parts."""
    epoch, position = divmod(failure.step, batches.steps_per_epoch)
    return {
        "cause": failure.cause,
        "step": failure.step,
        "epoch": epoch,
        "position": position,
        "seed": seed,
        "torch_seeds": {
            _part(share): mix(seed, failure.step, share.rank, share.micro) for share in _shares(ranks, micros)
        },
    }


def keep(
    folder: Path, note: dict[str, Any], batches: Batches, model: dict[str, Tensor], ranks: int, micros: int
) -> None:
    """Writes the batch of the failing step, all ranks' and micro-batches' parts, and the weights it met.

    The weights are those before the step: no update happens from the failing step on.

    Raises:
        EnvironmentFault: the disk is full, read-only or broken.
    """
    tensors = {
        f"{_part(share)}.{name}": tensor
        for share in _shares(ranks, micros)
        for name, tensor in batches.batch(
            note["epoch"], note["position"], share, note["step"]
        ).tensors.items()
    }
    write_tensors(folder / BATCH, tensors, note)
    write_tensors(folder / WEIGHTS, model, note)


def _shares(ranks: int, micros: int) -> list[Share]:
    return [Share(rank, ranks, micro, micros) for rank in range(ranks) for micro in range(micros)]


def _part(share: Share) -> str:
    return f"rank{share.rank}.micro{share.micro}"
