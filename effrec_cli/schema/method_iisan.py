"""Settings of method iisan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from effrec_cli.schema.backbone import BackboneConfig, backbone_problems
from effrec_cli.schema.content_next_item import NextItemSettings, next_item_problems
from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem, unused_problems

MODES = ("iisan", "fft", "adapter", "lora", "bitfit", "frozen")
CACHED = ("iisan", "frozen")
"""Modes whose backbones stand still, so that what they give can be kept."""
TRAINED = ("fft", "adapter", "lora", "bitfit")
"""Modes that train inside the backbones, through a graph of them."""
# Where each of these is looked at: any other setting of its would change nothing, and is refused. What a mode
# alone looks at is passed by in other modes where a sweep over modes names it (`mode` itself, rates).
LOOKED_AT: dict[str, tuple[str, tuple[object, ...]]] = {
    "towers": ("mode", ("iisan",)),
    "num_taps": ("mode", ("iisan",)),
    "text_taps": ("mode", ("iisan",)),
    "image_taps": ("mode", ("iisan",)),
    "rank": ("mode", ("iisan",)),
    "activation": ("mode", ("iisan",)),
    "fusion": ("mode", ("iisan",)),
    "head": ("mode", ("iisan",)),
    "transform": ("mode", ("iisan",)),
    "transform_rank": ("transform", ("low_rank",)),
    "modality_dropout": ("mode", ("iisan",)),
    "compile": ("mode", ("iisan",)),
    "adapter_rank": ("mode", ("adapter",)),
    "lora_rank": ("mode", ("lora",)),
    "recompute": ("mode", TRAINED),
    "memory_share": ("mode", TRAINED),
}


@dataclass
class FeatureCacheConfig:
    """What frozen backbones give, kept for all items between runs (docs/iisan.md).

    Attributes:
        use: read a cache, filled first where there is none yet; false runs the backbones in every step. None
            does so where they are frozen.
        dtype: what is kept: `fp32`, `fp16`, `bf16`, or, with a scale for each item and tap, `int8` and `fp8`.
        residence: where it is read from: the `device`'s memory, the host's (`ram`) or the `disk` by memory
            map; `auto` is the first of these into a quarter of whose free memory it fits.
        rebuild: fill it anew.
    """

    use: bool | None = None
    dtype: str = setting("bf16", choices=("fp32", "fp16", "bf16", "int8", "fp8"))
    residence: str = setting("auto", choices=("auto", "device", "ram", "disk"))
    rebuild: bool = False


@dataclass
class RatesConfig:
    """Peak learning rates beside `optimizer.lr`, which None stands for.

    Attributes:
        side: of the side network's blocks and gates, of adapters and of LoRA.
        text: of what trains of the text backbone's own weights (fft, bitfit).
        image: of what trains of the image backbone's own weights.
    """

    side: float | None = setting(None, above=0)
    text: float | None = setting(None, above=0)
    image: float | None = setting(None, above=0)


def in_batch() -> NextItemSettings:
    """Returns how the paper tells next items: from the step's other windows (papers/iisan section 1.8)."""
    return NextItemSettings(
        window="last", candidates="batch", correction="popularity", temperature=1.0, projection=False
    )


@dataclass
class IISANConfig:
    """A side network beside frozen text and image backbones, and what it is compared with (papers/iisan).

    Attributes:
        name: always `iisan`.
        mode: `iisan` trains a side network over hidden states of frozen backbones; `fft` all weights;
            `adapter` Houlsby's bottlenecks inside the backbones, `lora` low-rank updates of their queries and
            values, `bitfit` their biases; `frozen` nothing of them.
        modality: `text`, `image`, or `both`; `auto` is what the dataset says of its items.
        towers: of the side network: one each inside text and images (`intra`), one between them (`inter`), or
            `both`.
        num_taps: layers read of each backbone, evenly stepped up to the last, beside what its first layer
            reads; of both as many as the shallower one has at most (section 1.10).
        text_taps: hidden states of the text backbone that are read, by number; null is the rule.
        image_taps: of the image backbone likewise.
        rank: width of a block's bottleneck.
        activation: `relu` or `gelu`, inside blocks.
        fusion: of a tap with what is below: `gated`, or their `sum`.
        head: after a tower: `wide` keeps its width in between, `narrow` does not (IISAN-Versa); `auto` is
            wide where both backbones have one width.
        transform: of the wider backbone's taps for the tower between both: a map for each tap (`separate`),
            one for all (`shared`), or `low_rank`.
        transform_rank: of `low_rank`.
        modality_dropout: share of the items of a step that lose their text in training, and as many lose
            their image, so that neither is leant on alone.
        adapter_rank: bottleneck of Houlsby's adapters.
        lora_rank: of LoRA.
        dim: width of item vectors.
        batch_size: windows in a step; None chooses by the data.
        batch_tokens: tokens, padding among them, that a backbone encodes at once.
        recompute: encode a second time for the backward pass (fft, adapter, lora, bitfit), so that memory
            does not grow with the step; None does so where the backbones' graph would take more than
            `memory_share`. Frozen backbones leave no graph: to run them twice would save the side network's
            alone.
        memory_share: of the free memory, what the backbones' graph may take.
        compile: run the side network through `torch.compile`; of the filter `run.compile` decides.
        text: the text backbone.
        image: the image backbone.
        cache: of what frozen backbones give.
        rates: learning rates beside `optimizer.lr`.
        next_item: what next items are told from.
    """

    name: str = "iisan"
    mode: str = setting("iisan", choices=MODES)
    modality: str = setting("auto", choices=("auto", "both", "text", "image"))
    towers: str = setting("both", choices=("both", "intra", "inter"))
    num_taps: int = setting(6, low=1)
    text_taps: list[int] | None = None
    image_taps: list[int] | None = None
    rank: int = setting(64, low=1)
    activation: str = setting("relu", choices=("relu", "gelu"))
    fusion: str = setting("gated", choices=("gated", "sum"))
    head: str = setting("auto", choices=("auto", "wide", "narrow"))
    transform: str = setting("separate", choices=("separate", "shared", "low_rank"))
    transform_rank: int = setting(64, low=1)
    modality_dropout: float = setting(0.0, low=0, high=0.5)
    adapter_rank: int = setting(64, low=1)
    lora_rank: int = setting(8, low=1)
    dim: int = setting(64, low=1)
    batch_size: int | None = setting(None, low=1)
    batch_tokens: int = setting(8192, low=2)
    recompute: bool | None = None
    memory_share: float = setting(0.5, above=0, high=1)
    compile: bool = False
    text: BackboneConfig = field(default_factory=BackboneConfig)
    image: BackboneConfig = field(default_factory=BackboneConfig)
    cache: FeatureCacheConfig = field(default_factory=FeatureCacheConfig)
    rates: RatesConfig = field(default_factory=RatesConfig)
    next_item: NextItemSettings = field(default_factory=in_batch)

    @property
    def cached(self) -> bool:
        """Whether training reads a cache in the backbones' place."""
        return self.mode in CACHED and self.cache.use is not False


def iisan_problems(own: IISANConfig, task: str | None) -> Iterator[Problem]:
    """Yields settings that would do nothing, and what contradicts what.

    Args:
        own: the settings.
        task: how the run's model is fed; None where that is not known.
    """
    yield from unused_problems(own, LOOKED_AT, "method")
    if own.mode in LOOKED_AT["memory_share"][1]:
        yield from unused_problems(own, {"memory_share": ("recompute", (None,))}, "method")
    yield from _cache(own)
    for modality in ("text", "image"):
        yield from _backbone(own, modality)
    yield from _num_taps(own)
    yield from _towers(own)
    yield from next_item_problems(own.next_item, task)


def _cache(own: IISANConfig) -> Iterator[Problem]:
    if own.cache.use and own.mode not in CACHED:
        what = f"mode={own.mode} trains the backbones: what they give changes with every step."
        yield Problem("method.cache.use", what, fix="method.cache.use=null, or method.mode=iisan")
    if own.cached:
        return
    for name in ("dtype", "residence", "rebuild"):
        given = getattr(own.cache, name)
        if given != getattr(FeatureCacheConfig(), name):
            what = f"{name}={given} would do nothing: no cache is read."
            yield Problem(f"method.cache.{name}", what, fix=f"leave method.cache.{name} out")


def _backbone(own: IISANConfig, modality: str) -> Iterator[Problem]:
    settings: BackboneConfig = getattr(own, modality)
    path = f"method.{modality}"
    taps = getattr(own, f"{modality}_taps")
    if modality not in _read(own):
        for given, name in ((settings != BackboneConfig(), path), (taps is not None, f"{path}_taps")):
            if given:
                what = f"It would do nothing: modality={own.modality} leaves the {modality} backbone out."
                yield Problem(name, what, fix=f"leave {name} out, or method.modality=both")
        return
    yield from backbone_problems(settings, path, modality)
    if taps is not None and (taps != sorted(set(taps)) or not taps or taps[0] < 0):
        what = f"Hidden states are named by rising numbers from 0, the first layer's input, not {taps}."
        yield Problem(f"method.{modality}_taps", what, fix=f"method.{modality}_taps=[0,2,4,6]")


def _read(own: IISANConfig) -> tuple[str, ...]:
    """Returns the modalities that are read, if the dataset has both."""
    return (own.modality,) if own.modality in ("text", "image") else ("text", "image")


def _num_taps(own: IISANConfig) -> Iterator[Problem]:
    lists = [f"{name}_taps" for name in _read(own)]
    if own.num_taps != IISANConfig().num_taps and all(getattr(own, name) is not None for name in lists):
        what = f"num_taps={own.num_taps} would do nothing: {' and '.join(lists)} say which are read."
        yield Problem("method.num_taps", what, fix=f"leave method.num_taps out, or method.{lists[0]}=null")


def _towers(own: IISANConfig) -> Iterator[Problem]:
    if own.mode != "iisan":
        return
    alone = own.modality in ("text", "image")
    if alone and own.towers != "both":
        what = (
            f"With {own.modality} alone there is one tower, inside it: towers={own.towers} would do nothing."
        )
        yield Problem("method.towers", what, fix="leave method.towers out, or method.modality=both")
    if alone and own.modality_dropout:
        what = f"An item that loses its {own.modality} would have nothing left: modality={own.modality}."
        yield Problem(
            "method.modality_dropout", what, fix="method.modality_dropout=0, or method.modality=both"
        )
    if (alone or own.towers == "intra") and own.transform != IISANConfig().transform:
        what = f"transform={own.transform} would do nothing: it is for the tower between text and images."
        yield Problem("method.transform", what, fix="leave method.transform out, or method.towers=both")
