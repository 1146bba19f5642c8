"""Settings of method cce."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem

LOSSES = ("ce", "ce_sampled", "cce", "cce_sampled", "bce", "bce_sampled", "gbce", "sce")
FULL = ("ce", "cce")
# `auto` may become one of them.
SOFTMAX = ("ce_sampled", "cce_sampled", "auto")
# Those whose negatives may be shared, drawn otherwise than uniformly, and taken from the batch.
SAMPLED = (*SOFTMAX, "bce_sampled", "gbce")
# Those whose gradient of the item table can be rows, where targets share negatives or find them in buckets.
ROWS = ("cce_sampled", "bce_sampled", "gbce", "sce")
# Ids in a run of the block sampler (effrec_kernels.problem.RUN).
RUN = 64


@dataclass
class CCEConfig:
    """Losses over a large catalogue (papers/cce sections 1.2 and 1.3).

    Attributes:
        name: always `cce`.
        loss: `ce` full softmax; `cce` the same value, a chunk of logits at a time; `ce_sampled` CE- with its
            [M, N, D] tensor; `cce_sampled` the same value without it; `bce` one negative; `bce_sampled` BCE+,
            N of them; `gbce` gSASRec's; `sce` items mined by random directions; `auto` what is cheaper of
            `cce` and `cce_sampled` on the device.
        num_negatives: N, negatives drawn for each target.
        sharing: which targets have the same negatives: `row` each its own, `tile` tiles of `tile_rows`
            targets, of different windows where the step has enough, `sequence` those of a window, `batch` all
            of the step. Like `sampler` and `in_batch`, for the losses `*_sampled` and `gbce`.
        tile_rows: T, targets of a tile.
        sampler: `uniform`; `popularity` in proportion to count ** `popularity_power`; `block` runs of 64
            neighbouring ids (N a multiple of 64).
        popularity_power: 1 as often as in training, 0 uniformly.
        in_batch: of the N, how many are other targets of the micro-batch.
        correction: added to a sampled softmax's negatives: `exact` log((V-1)/(N-r)), r hits in the row,
            `constant` log((V-1)/(N+1)) (the official kernels'), `none`, `logq` -log(N q) with q the
            probability of the item: for draws that are not uniform.
        temperature: divides the logits of every loss.
        gbce_t: calibration t of gBCE, 0 plain BCE and 1 unbiased.
        sce_buckets: random directions; None is 2 sqrt(targets of the micro-batch).
        sce_targets: targets of the micro-batch that each gathers; None is likewise.
        sce_items: items that each gathers.
        sce_mix: whether directions are mixtures of the micro-batch's states.
        kernel: who computes: `auto`, `triton`, `torch` or `reference`; never what is computed.
        batch_size: sequences in a step, over all processes and micro-batches; None chooses a power of two
            from 16 to 256 that makes about a hundred steps an epoch.
        window: `last` trains on the last L+1 items of each user, `slide` on all, cut into windows of L
            elsewhere each epoch.
    """

    name: str = "cce"
    loss: str = setting("cce_sampled", choices=(*LOSSES, "auto"))
    num_negatives: int = setting(255, low=1)
    sharing: str = setting("row", choices=("row", "tile", "sequence", "batch"))
    tile_rows: int = setting(64, low=1)
    sampler: str = setting("uniform", choices=("uniform", "popularity", "block"))
    popularity_power: float = setting(1.0, low=0)
    in_batch: int = setting(0, low=0)
    correction: str = setting("exact", choices=("exact", "constant", "none", "logq"))
    temperature: float = setting(1.0, above=0)
    gbce_t: float = setting(0.75, low=0, high=1)
    sce_buckets: int | None = setting(None, low=1)
    sce_targets: int | None = setting(None, low=1)
    sce_items: int = setting(256, low=1)
    sce_mix: bool = setting(True)
    kernel: str = setting("auto", choices=("auto", "triton", "torch", "reference"))
    batch_size: int | None = setting(None, low=1)
    window: str = setting("slide", choices=("last", "slide"))


def cce_problems(own: CCEConfig) -> Iterator[Problem]:
    """Yields what contradicts what among the settings of negatives."""
    if own.loss != "sce":
        yield from _unused_by_others(own)
    if own.loss not in SAMPLED:
        yield from _unused(own)
        return
    if own.in_batch > own.num_negatives:
        what = f"in_batch={own.in_batch} is a part of num_negatives={own.num_negatives} and cannot be more."
        yield Problem("method.in_batch", what, fix=f"method.num_negatives={own.in_batch}")
    if own.sampler == "block" and (own.num_negatives % RUN or own.in_batch % RUN):
        what = f"sampler=block draws runs of {RUN} ids: a run in part would favour its first ids."
        whole = {name: -(-getattr(own, name) // RUN) * RUN for name in ("num_negatives", "in_batch")}
        changed = [f"method.{name}={value}" for name, value in whole.items() if value != getattr(own, name)]
        yield Problem("method.sampler", what, fix=" ".join(changed))
    uniform = own.loss in SOFTMAX and own.correction in ("exact", "constant")
    if uniform and (own.sampler == "popularity" or own.in_batch):
        drawn = "sampler=popularity" if own.sampler == "popularity" else f"in_batch={own.in_batch}"
        what = f"correction={own.correction} is for uniform draws; with {drawn} it biases what is learnt."
        yield Problem("method.correction", what, fix="method.correction=logq, or method.correction=none")


def _unused(own: CCEConfig) -> Iterator[Problem]:
    """Yields settings that a loss without N drawn negatives would not look at."""
    for name, default in (("sharing", "row"), ("sampler", "uniform"), ("in_batch", 0)):
        value = getattr(own, name)
        if value != default:
            what = f"loss={own.loss} draws nothing that {name}={value} could change."
            if own.loss == "bce":
                what = f"loss={own.loss} draws one negative for each row, uniformly, without {name}={value}."
            yield Problem(f"method.{name}", what, fix=f"method.loss=cce_sampled, or method.{name}={default}")


def _unused_by_others(own: CCEConfig) -> Iterator[Problem]:
    """Yields settings that only `sce` looks at."""
    defaults = CCEConfig()
    for name in ("sce_buckets", "sce_targets", "sce_items", "sce_mix"):
        if getattr(own, name) != getattr(defaults, name):
            what = f"{name} is for loss=sce; loss={own.loss} has no buckets."
            yield Problem(f"method.{name}", what, fix="method.loss=sce, or leave it out")
