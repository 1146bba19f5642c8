"""Settings of method cce."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from effrec_cli.schema.factors import FactorsConfig, StartConfig, factor_problems, fitting
from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Needed, Problem, unread_problems, unused_problems

LOSSES = ("ce", "ce_sampled", "cce", "cce_sampled", "bce", "bce_sampled", "gbce", "sce")
FULL = ("ce", "cce")
# `auto` may become one of them.
SOFTMAX = ("cce_sampled", "ce_sampled", "auto")
# Those whose negatives may be shared, drawn otherwise than uniformly, and taken from the batch.
SAMPLED = (*SOFTMAX, "bce_sampled", "gbce")
# Those whose gradient of the item table can be rows, where targets share negatives or find them in buckets.
ROWS = ("cce_sampled", "bce_sampled", "gbce", "sce")
# Ids in a run of the block sampler (effrec_kernels.problem.RUN).
RUN = 64
# Where each of these is looked at: any other setting of its would change nothing, and is refused.
# `num_negatives` is not among them, so that one value may stand in a sweep or an experiment over all losses.
LOOKED_AT: dict[str, tuple[str, tuple[str, ...]]] = {
    "sharing": ("loss", SAMPLED),
    "tile_rows": ("sharing", ("tile",)),
    "sampler": ("loss", SAMPLED),
    "popularity_power": ("sampler", ("popularity",)),
    "in_batch": ("loss", SAMPLED),
    "correction": ("loss", SOFTMAX),
    "gbce_t": ("loss", ("gbce",)),
    "sce_buckets": ("loss", ("sce",)),
    "sce_targets": ("loss", ("sce",)),
    "sce_items": ("loss", ("sce",)),
    "sce_mix": ("loss", ("sce",)),
}


@dataclass
class CCEConfig:
    """Losses over a large catalogue (papers/cce sections 1.2 and 1.3).

    Attributes:
        name: always `cce`.
        loss: `ce` full softmax; `cce` the same value, a chunk of logits at a time; `ce_sampled` CE- with its
            [M, N, D] tensor; `cce_sampled` the same value without it; `bce` one negative; `bce_sampled` BCE+,
            N of them; `gbce` gSASRec's; `sce` items mined by random directions; `auto` what is cheaper of
            `cce` and `cce_sampled` on the device.
        num_negatives: N, negatives drawn for each target by `*_sampled` and `gbce`. The other losses draw
            none (`bce` one) and pass it by, so that a sweep over losses may name it once.
        sharing: which targets have the same negatives: `row` each its own, `tile` tiles of `tile_rows`
            targets, of different windows where the step has enough, `sequence` those of a window, `batch` all
            of the step. Like `sampler` and `in_batch`, for the losses `*_sampled` and `gbce`.
        tile_rows: T, targets of a tile, where `sharing=tile`.
        sampler: `uniform`; `popularity` in proportion to count ** `popularity_power`; `block` runs of 64
            neighbouring ids (N a multiple of 64).
        popularity_power: 1 as often as in training, 0 uniformly, 10 (the most) hardly any but the first.
        in_batch: of the N, how many are other targets of the micro-batch.
        correction: added to a sampled softmax's negatives: `exact` log((V-1)/(N-r)), r hits in the row,
            `constant` log((V-1)/(N+1)) (the official kernels'), `none`, `logq` -log(N q) with q the
            probability that a slot holds the item: for draws that are not uniform, each on its own.
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
        init_items: how the item table starts: `random` as the model draws it, `factors` from the item vectors
            of a factorisation of all training rows, those that `dataset.sample` drops included.
        factors: that factorisation, fitted once for all runs on the same rows.
    """

    name: str = "cce"
    loss: str = setting("cce_sampled", choices=(*LOSSES, "auto"))
    num_negatives: int = setting(255, low=1)
    sharing: str = setting("row", choices=("row", "tile", "sequence", "batch"))
    tile_rows: int = setting(64, low=1)
    sampler: str = setting("uniform", choices=("uniform", "popularity", "block"))
    popularity_power: float = setting(1.0, low=0, high=10)
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
    init_items: str = setting("random", choices=("random", "factors"))
    factors: StartConfig = field(default_factory=StartConfig)


def cce_problems(own: CCEConfig, dim: int | None = None) -> Iterator[Problem]:
    """Yields settings that would do nothing, and what contradicts what among those of negatives.

    Args:
        own: the method's settings.
        dim: width of the model; None where the catalogue decides it.
    """
    yield from unused_problems(own, LOOKED_AT, "method")
    yield from _start(own, dim)
    if own.loss in SAMPLED:
        yield from _slots(own)
        yield from _biased(own)


def _start(own: CCEConfig, dim: int | None) -> Iterator[Problem]:
    """Yields why the item table cannot start as asked, and what is asked of vectors that nothing reads."""
    if own.init_items == "random":
        needed = Needed("method.init_items", ("factors",), own.init_items)
        yield from unread_problems(own.factors, "method.factors", needed)
        return
    asked = own.factors.dim
    if None not in (dim, asked) and dim != asked:
        what = f"The item table is model.dim={dim} wide, and so must be vectors that it starts from."
        fix = f"method.factors.dim=null, or model.dim={asked}"
        yield Problem("method.factors.dim", what, fix=fix)
        return
    # A width that is left to the catalogue is wide enough for every kind.
    for problem in factor_problems(fitting(own.factors, dim or asked or FactorsConfig.dim), "method.factors"):
        if problem.path == "method.factors.dim":
            least = (problem.fix or "").rpartition("=")[2]
            yield replace(problem, path="model.dim", fix=f"model.dim={least} or more")
        else:
            yield problem


def _slots(own: CCEConfig) -> Iterator[Problem]:
    """Yields why N slots cannot be divided between targets of the batch and the sampler as asked."""
    name, what = _wrong_slots(own)
    if not what:
        return
    run = RUN if own.sampler == "block" else 1
    in_batch = -(-own.in_batch // run) * run
    least = in_batch if own.sampler == "uniform" or not in_batch else in_batch + run
    right = {"num_negatives": max(-(-own.num_negatives // run) * run, least), "in_batch": in_batch}
    changed = [f"method.{key}={value}" for key, value in right.items() if value != getattr(own, key)]
    yield Problem(f"method.{name}", what, fix=" ".join(changed))


def _wrong_slots(own: CCEConfig) -> tuple[str, str]:
    """Returns the setting of slots that is wrong, and why; two empty texts where none is."""
    if own.in_batch > own.num_negatives:
        return "in_batch", f"in_batch={own.in_batch} is a part of num_negatives={own.num_negatives}."
    if own.sampler == "block" and (own.num_negatives % RUN or own.in_batch % RUN):
        return "sampler", f"sampler=block draws runs of {RUN} ids: one in part would favour its first ids."
    if own.sampler != "uniform" and own.in_batch == own.num_negatives:
        return "in_batch", f"in_batch={own.in_batch} of as many leaves nothing to sampler={own.sampler}."
    return "", ""


def _biased(own: CCEConfig) -> Iterator[Problem]:
    """Yields a correction that is right for uniform draws alone, where draws are others.

    Block draws give each item the same chance, but slots depend on each other: both corrections then take the
    items of the target's run, and of the last one where it is cut short, for more or less than they are.
    """
    uniform = own.sampler == "uniform" and not own.in_batch
    if own.loss in SOFTMAX and own.correction in ("exact", "constant") and not uniform:
        drawn = f"in_batch={own.in_batch}" if own.sampler == "uniform" else f"sampler={own.sampler}"
        what = (
            f"correction={own.correction} is for uniform draws of their own; with {drawn} it biases the loss."
        )
        yield Problem("method.correction", what, fix="method.correction=logq, or method.correction=none")
