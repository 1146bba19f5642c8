"""Settings of method gram."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from effrec_cli.schema.encoder import EncoderConfig, encoder_problems
from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem
from effrec_cli.schema.values import shown

MODES = ("single_step", "multi_step", "e2e", "e2e_dedup", "frozen")
UPDATES = ("auto", "inject_single", "inject_multi", "regress")
# Where each of these is looked at: any other setting of its would change nothing, and is refused. `period`,
# `period_unit` and `update` are not among them, so that one value may stand in a sweep over all modes.
LOOKED_AT: dict[str, tuple[str, tuple[object, ...]]] = {
    "recompute": ("mode", ("single_step",)),
    "memory_share": ("mode", ("single_step",)),
    "refresh": ("mode", ("multi_step",)),
    "probe_every": ("mode", ("multi_step",)),
    "adapt_period": ("mode", ("multi_step",)),
    "update_items": ("learns_by", ("inject_multi", "regress")),
    "update_share": ("learns_by", ("inject_multi", "inject_single")),
    "update_by": ("learns_by", ("inject_multi", "inject_single")),
    "passes": ("learns_by", ("regress",)),
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
            drifted vectors; `auto` is the first for a period in steps and the second for one in epochs.
        update_items: items of an update of `inject_multi` and `regress`; None is as many as
            `encoder.batch_tokens` holds.
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
        num_negatives: what a click is told from: of task news, non-clicks of the same impression (None is 4).
        encoder: what turns contents into vectors (docs/encoders.md).
    """

    name: str = "gram"
    mode: str = setting("single_step", choices=MODES)
    recompute: bool | None = None
    memory_share: float = setting(0.5, above=0, high=1)
    period: float = setting(10.0, above=0)
    period_unit: str = setting("steps", choices=("steps", "epochs"))
    update: str = setting("auto", choices=UPDATES)
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
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    @property
    def learns_by(self) -> str:
        """What `update` comes to."""
        if self.update != "auto":
            return self.update
        return "inject_single" if self.period_unit == "steps" else "inject_multi"

    @property
    def drift_rate(self) -> float:
        """What a vector's gradient is multiplied with to move it inside a cycle."""
        if self.drift is not None:
            return self.drift
        return 1.0 if self.learns_by == "regress" else 0.0


def gram_problems(own: GRAMConfig) -> Iterator[Problem]:
    """Yields settings that would do nothing, and what contradicts what."""
    yield from _unused(own)
    yield from _multi_step(own)
    yield from encoder_problems(own.encoder)


def _unused(own: GRAMConfig) -> Iterator[Problem]:
    """Yields settings that are not their defaults, and that nothing would look at."""
    defaults = GRAMConfig()
    for name, (key, values) in LOOKED_AT.items():
        given, default = getattr(own, name), getattr(defaults, name)
        if key == "learns_by" and own.mode != "multi_step":
            key, values = "mode", ("multi_step",)
        if given == default or getattr(own, key) in values:
            continue
        setting = "update" if key == "learns_by" else key
        what = f"{name}={_typed(given)} would do nothing: it is for {setting}={' or '.join(map(str, values))}"
        fix = f"method.{setting}={values[0]}, or method.{name}={_typed(default)}"
        yield Problem(f"method.{name}", f"{what}, not {getattr(own, key)}.", fix=fix)


def _typed(value: object) -> str:
    """Returns a value as it is written on the command line."""
    return value if isinstance(value, str) else shown(value)


def _multi_step(own: GRAMConfig) -> Iterator[Problem]:
    if own.mode != "multi_step":
        if own.drift is not None:
            what = "drift would do nothing: vectors move within a cycle, which only multi_step has."
            yield Problem("method.drift", what, fix="method.mode=multi_step, or method.drift=null")
        return
    if own.period_unit == "steps" and own.period != int(own.period):
        what = f"A cycle has whole steps, not {own.period:g}."
        yield Problem("method.period", what, fix=f"method.period={max(1, round(own.period))}")
    if own.update == "regress" and own.drift == 0:
        what = "regress fits the encoder to where vectors have moved: without drift nothing is to learn."
        yield Problem("method.drift", what, fix="method.drift=1, or method.update=inject_multi")
    if own.update_share == 1 and own.update_by != "gradient":
        what = f"update_by={own.update_by} would do nothing: with update_share=1 no item has to wait."
        yield Problem("method.update_by", what, fix="method.update_share=0.5, or leave update_by out")
    if own.adapt_period and not own.probe_every:
        what = "The period is adapted by what a probe finds, and probe_every=0 never probes."
        yield Problem("method.adapt_period", what, fix="method.probe_every=1")
