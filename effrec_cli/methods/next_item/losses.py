"""The losses of method cce: from a micro-batch's rows to one number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import effrec_kernels
import torch
import torch.nn.functional as F
from torch import Tensor

from effrec_cli.data.types import RecData
from effrec_cli.schema.method_cce import RUN, SOFTMAX, CCEConfig


@dataclass(frozen=True)
class Rows:
    """The rows with a loss of one micro-batch.

    Attributes:
        hidden: [M, D].
        items: [V, D], the item table.
        targets: int64 [M].
        lengths: int64 [b], how many of them each window has.
        first: number of the first row within the step, which the others follow: the key of random draws.
        step: optimizer step.
        normalizer: rows with a loss in the whole step.
    """

    hidden: Tensor
    items: Tensor
    targets: Tensor
    lengths: Tensor
    first: int
    step: int
    normalizer: int


@dataclass(frozen=True)
class Draws:
    """What negatives are drawn by: a sampler, and log q of its slots where they need a table of their own.

    Attributes:
        sampler: `uniform`, `block` or a table.
        log_q: float32 [V], or None where the sampler knows.
        device: where both are.
    """

    sampler: str | effrec_kernels.Popularity
    log_q: Tensor | None
    device: torch.device


def full_loss(rows: Rows, settings: CCEConfig) -> Tensor:
    """Returns the softmax over all items: `ce` makes its [M, V] logits, `cce` a chunk at a time."""
    if settings.loss == "ce":
        logits = F.linear(rows.hidden, rows.items).float() / settings.temperature
        return F.cross_entropy(logits, rows.targets, reduction="sum") / rows.normalizer
    return effrec_kernels.linear_cross_entropy(
        rows.hidden,
        rows.items,
        rows.targets,
        normalizer=rows.normalizer,
        temperature=settings.temperature,
        kernel=settings.kernel,
    )


def drawn_loss(rows: Rows, settings: CCEConfig, seed: int, sampling: dict[str, Any]) -> Tensor:
    """Returns a loss against drawn negatives, the same ones for any split of the step.

    Args:
        rows: to compute.
        settings: whose `loss` is none of the full softmax.
        seed: the run's.
        sampling: of `sampling_options`, or none of it for uniform draws of each row.
    """
    options: dict[str, Any] = {
        "hidden": rows.hidden,
        "items": rows.items,
        "targets": rows.targets,
        "num_negatives": 1 if settings.loss == "bce" else settings.num_negatives,
        "seed": seed,
        "step": rows.step,
        "row_offset": rows.first,
        "normalizer": rows.normalizer,
        "temperature": settings.temperature,
    }
    options |= sampling
    if settings.loss == "ce_sampled":
        return effrec_kernels.sampled_cross_entropy_dense(**options)
    options["kernel"] = settings.kernel
    if settings.loss == "cce_sampled":
        return effrec_kernels.sampled_cross_entropy(**options)
    if settings.loss == "gbce":
        return effrec_kernels.gbce(t=settings.gbce_t, **options)
    return effrec_kernels.binary_cross_entropy_sampled(**options)


def mined_loss(rows: Rows, settings: CCEConfig, seed: int, *, sparse: bool = False) -> Tensor:
    """Returns SCE over buckets of the micro-batch's rows: their mean loss times their share of the step.

    How many positions all buckets of a step cover is known after the last: so covered ones stand for the
    rows of their own micro-batch, and micro-batches count by their rows.

    Args:
        rows: to compute.
        settings: whose `loss` is `sce`.
        seed: the run's.
        sparse: whether the gradient of the item table is to be rows.
    """
    loss = effrec_kernels.scalable_cross_entropy(
        rows.hidden,
        rows.items,
        rows.targets,
        num_buckets=settings.sce_buckets,
        bucket_rows=settings.sce_targets,
        bucket_items=settings.sce_items,
        mix=settings.sce_mix,
        seed=seed,
        step=rows.step,
        row_offset=rows.first,
        temperature=settings.temperature,
        sparse=sparse,
        kernel=settings.kernel,
    )
    return loss * (len(rows.targets) / rows.normalizer)


def sampling_options(rows: Rows, settings: CCEConfig, draws: Draws, longest: int) -> dict[str, Any]:
    """Returns who shares negatives, what draws them and, for a softmax, what corrects them.

    Args:
        rows: of a micro-batch.
        settings: of method cce.
        draws: what the settings ask for.
        longest: most rows that a window can have.
    """
    options = {
        "sampler": draws.sampler,
        "in_batch": settings.in_batch,
        **_sharing(rows, settings, longest),
    }
    if settings.loss in SOFTMAX:
        options |= {"correction": settings.correction, "log_q": draws.log_q}
    return options


def draws_for(settings: CCEConfig, data: RecData, device: torch.device) -> Draws:
    """Returns what the settings ask for, on `device`.

    Args:
        settings: of method cce.
        data: whose training items are counted, where counts are needed.
        device: where the model is.
    """
    if settings.sampler != "popularity" and not _mixed(settings):
        return Draws(settings.sampler, None, device)
    table = effrec_kernels.popularity(torch.from_numpy(data.train_counts()), settings.popularity_power)
    log_q = _mixed_log_q(settings, table, data.num_items).to(device) if _mixed(settings) else None
    sampler = table.to(device) if settings.sampler == "popularity" else settings.sampler
    return Draws(sampler, log_q, device)


def _mixed(settings: CCEConfig) -> bool:
    """Returns whether slots are of two kinds, and their probabilities are asked for."""
    return settings.loss in SOFTMAX and settings.in_batch > 0 and settings.correction == "logq"


def _mixed_log_q(settings: CCEConfig, table: effrec_kernels.Popularity, num_items: int) -> Tensor:
    share = settings.in_batch / settings.num_negatives
    if settings.sampler == "popularity":
        return table.mixed_log_q(share)
    slots = -(-num_items // RUN) * RUN if settings.sampler == "block" else num_items
    return effrec_kernels.mixed_log_q(-math.log(slots), table.log_frequency, share)


def _sharing(rows: Rows, settings: CCEConfig, longest: int) -> dict[str, Any]:
    """Returns which rows share negatives: the same ones however the step is split."""
    if settings.sharing == "tile":
        stride = tile_stride(rows.normalizer, settings.tile_rows, longest)
        return {"sharing": settings.tile_rows, "sharing_stride": stride}
    if settings.sharing == "sequence":
        return {"sharing": F.pad(rows.lengths.cumsum(0), (1, 0))}
    return {"sharing": settings.sharing}


def tile_stride(targets: int, tile_rows: int, longest: int) -> int:
    """Returns how far apart the rows of a tile are.

    At least as far as the longest window, so that they come from different ones, and so far that the step's
    rows fill their tiles; nearer, in a step with too few rows for that.

    Args:
        targets: rows of the whole step.
        tile_rows: T.
        longest: most rows that a window can have.
    """
    stretches = max(1, targets // (tile_rows * longest))
    return max(1, -(-targets // (tile_rows * stretches)))
