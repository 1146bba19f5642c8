"""Settings of method gram."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from effrec_cli.schema.content_next_item import NextItemSettings, next_item_problems
from effrec_cli.schema.encoder import EncoderConfig, encoder_problems
from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem, unused_problems

MODES = ("single_step", "multi_step", "e2e", "e2e_dedup", "frozen")
UPDATES = ("inject_single", "inject_multi", "regress")
# Where each of these is looked at: any other setting of its would change nothing, and is refused. `period`,
# `period_unit` and `update` are not among them, so that one value may stand in a sweep over all modes.
LOOKED_AT: dict[str, tuple[str, tuple[object, ...]]] = {
    "recompute": ("mode", ("single_step",)),
    "memory_share": ("mode", ("single_step",)),
    "refresh": ("mode", ("multi_step",)),
    "probe_every": ("mode", ("multi_step",)),
    "adapt_period": ("mode", ("multi_step",)),
}
OF_UPDATE: dict[str, tuple[str, ...]] = {
    "update_items": ("inject_multi", "regress"),
    "update_share": ("inject_multi", "inject_single"),
    "update_by": ("inject_multi", "inject_single"),
    "passes": ("regress",),
}


@dataclass
class GRAMConfig:
    """Content-based filtering whose encoder runs once an item (papers/gram).

    Attributes:
        name: always `gram`.
        mode: `single_step` encodes each item of a step once and injects its gradient; `multi_step` keeps
            vectors for a cycle of steps; and what they are compared with: `e2e` encodes every occurrence,
            `e2e_dedup` every item by ordinary autograd, `frozen` once for all.
        recompute: encode a second time for the backward pass (single_step), so that memory does not grow with
            the step; None does so where the graph would take more than `memory_share`.
        memory_share: of the free memory, what the encoder's graph may take.
        period: length of a cycle (multi_step), in `period_unit`; a cycle also ends with the epoch. Like
            `update`, other modes pass it by, so that a sweep over modes may name it once.
        period_unit: `steps` or `epochs`.
        update: how the encoder learns from a cycle: `inject_single` by one update, as if gradients had been
            accumulated; `inject_multi` by one for every `update_items` items; `regress` by the paper's fit to
            drifted vectors.
        update_items: items of an update of `inject_multi` and `regress`, over all processes; None is as many
            as `encoder.batch_tokens` holds, on each of them.
        passes: of `regress` over a cycle's items.
        drift: how far a cycle's vectors move along their gradients, as a learning rate; None is the paper's
            1 for `regress`, and 0.
        refresh: `lazy` encodes an item when a cycle first needs it, `eager` all as it begins.
        update_share: share of the items with gradients that an encoder update takes in; the others' wait.
        update_by: those with the largest `gradient`, the most `popularity`, or the longest `age` first.
        probe_every: cycles between two looks at how stale gradients have become; 0 never looks.
        adapt_period: let the probe halve or double the period.
        reduction: the loss is the `mean` over a step's rows, or their `sum`. Adam hides which, but `regress`,
            drift and clipping do not.
        batch_size: samples in a step, over all processes and micro-batches; None chooses by the data.
        num_negatives: K, the non-clicks of the same impression that a click is told from (task news); None is
            the paper's 4.
        next_item: what next items are told from (task next_item).
        encoder: what turns contents into vectors (docs/encoders.md).
    """

    name: str = "gram"
    mode: str = setting("single_step", choices=MODES)
    recompute: bool | None = None
    memory_share: float = setting(0.5, above=0, high=1)
    period: float = setting(10.0, above=0)
    period_unit: str = setting("steps", choices=("steps", "epochs"))
    update: str = setting("inject_single", choices=UPDATES)
    update_items: int | None = setting(32, low=1)
    passes: int = setting(1, low=1)
    drift: float | None = setting(None, low=0)
    refresh: str = setting("lazy", choices=("lazy", "eager"))
    update_share: float = setting(1.0, above=0, high=1)
    update_by: str = setting("gradient", choices=("gradient", "popularity", "age"))
    probe_every: int = setting(0, low=0)
    adapt_period: bool = False
    reduction: str = setting("mean", choices=("mean", "sum"))
    batch_size: int | None = setting(None, low=1)
    num_negatives: int | None = setting(None, low=1)
    next_item: NextItemSettings = field(default_factory=NextItemSettings)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    @property
    def drift_rate(self) -> float:
        """What a vector's gradient is multiplied with to move it inside a cycle."""
        if self.drift is not None:
            return self.drift
        return 1.0 if self.update == "regress" else 0.0


def gram_problems(own: GRAMConfig, task: str | None) -> Iterator[Problem]:
    """Yields settings that would do nothing, and what contradicts what.

    Args:
        own: the settings.
        task: how the run's model is fed; None where that is not known.
    """
    yield from unused_problems(own, LOOKED_AT, "method")
    if own.mode in LOOKED_AT["memory_share"][1]:
        yield from unused_problems(own, {"memory_share": ("recompute", (None,))}, "method")
    by_update = {name: ("update", values) for name, values in OF_UPDATE.items()}
    by_mode = dict.fromkeys(OF_UPDATE, ("mode", ("multi_step",)))
    multi_step = own.mode == "multi_step"
    yield from unused_problems(own, by_update if multi_step else by_mode, "method")
    yield from _multi_step(own)
    if task not in (None, "news") and own.num_negatives is not None:
        what = f"It would do nothing: it is for task news, and the run's is {task}."
        fix = "leave it out" + (
            "; method.next_item.num_negatives is for next items" if task == "next_item" else ""
        )
        yield Problem("method.num_negatives", what, fix=fix)
    yield from encoder_problems(own.encoder)
    yield from next_item_problems(own.next_item, task)


def _multi_step(own: GRAMConfig) -> Iterator[Problem]:
    if own.mode != "multi_step":
        if own.drift is not None:
            what = "drift would do nothing: vectors move within a cycle, which only multi_step has."
            yield Problem("method.drift", what, fix="method.mode=multi_step, or method.drift=null")
        return
    if own.period_unit == "steps" and own.period != int(own.period):
        what = f"A cycle has whole steps, not {own.period:g}."
        yield Problem("method.period", what, fix=f"method.period={max(1, round(own.period))}")
    if own.period_unit == "epochs" and own.period > 1:
        what = (
            f"period={own.period:g} would be one epoch: a cycle ends with it, before the encoder is judged."
        )
        yield Problem("method.period", what, fix="method.period=1")
    if own.update == "regress" and own.drift == 0:
        what = "regress fits the encoder to where vectors have moved: without drift nothing is to learn."
        yield Problem("method.drift", what, fix="method.drift=1, or method.update=inject_multi")
    if own.update_share == 1 and own.update_by != "gradient" and own.update != "regress":
        what = f"update_by={own.update_by} would do nothing: with update_share=1 no item has to wait."
        yield Problem("method.update_by", what, fix="method.update_share=0.5, or leave update_by out")
    if own.adapt_period and not own.probe_every:
        what = "The period is adapted by what a probe finds, and probe_every=0 never probes."
        yield Problem("method.adapt_period", what, fix="method.probe_every=1")
