"""What the engine is fed: batches that are a pure function of (seed, epoch, position)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from effrec_cli.errors import ConfigError

PAD_ITEM = -1
"""Stands where a batch's tensor of items has no item."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank.

    Attributes:
        tensors: what the model needs, by name; first dimension is the sample.
        size: samples in this micro-batch.
        total_targets: rows with a loss in the whole step, over all micro-batches and ranks.
        step: optimizer step, counted from 0 over the whole run: a key for random draws.
        first_target: number, within the whole step, of the first row with a loss; the others follow in order.
            With it rows are numbered through over micro-batches and ranks, which random draws go by.
        host: what stays on the host, by name; not moved by `to`.
    """

    tensors: dict[str, Tensor]
    size: int
    total_targets: int
    step: int
    first_target: int = 0
    host: dict[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on `device`, copying asynchronously where it can."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)


@dataclass(frozen=True)
class Share:
    """Which part of a step's samples is meant: one rank's, one micro-batch's.

    Attributes:
        rank: this process.
        ranks: processes in all.
        micro: this micro-batch.
        micros: micro-batches in a step.
    """

    rank: int = 0
    ranks: int = 1
    micro: int = 0
    micros: int = 1


class Batches(Protocol):
    """Training batches of a method.

    Attributes:
        num_samples: samples in an epoch.
        steps_per_epoch: optimizer steps in an epoch.
    """

    num_samples: int
    steps_per_epoch: int

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns the `share` of the step at `position` of `epoch`; the same arguments give the same bytes.

        An empty share (more ranks than samples) is a batch of size 0.
        """
        ...


def refuse_empty_shares(batches: Batches, micros: int, ranks: int) -> None:
    """Refuses more micro-batches in a step than its samples make; of those too many do nothing but take time.

    Ranks alone may be more than a step has samples.

    Args:
        batches: of the run.
        micros: micro-batches in a step.
        ranks: processes that share each of them.

    Raises:
        ConfigError: with the most that `run.accumulate` can be.
    """
    samples = -(-batches.num_samples // max(1, batches.steps_per_epoch))
    most = max(1, samples // ranks)
    if micros <= most:
        return
    shared = f" for {ranks} ranks" if ranks > 1 else ""
    raise ConfigError(
        f"A step has {samples:,} samples{shared}, fewer than shares: run.accumulate={most} at most.",
        where=f"run.accumulate={micros}",
        fix=f"run.accumulate={most}",
    )
