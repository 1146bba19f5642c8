"""Where a run's taps come from: a cache, filled first where there is none yet, or backbones in every step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effrec_cli.data.contents import Contents
from effrec_cli.data.features.build import kept_features
from effrec_cli.data.features.digests import array_digest, texts_digest
from effrec_cli.data.features.spec import FeatureSpec
from effrec_cli.data.features.store import Features
from effrec_cli.evaluation.blocks import free_bytes
from effrec_cli.methods.multimodal.backbones import Backbone, Description, build_backbone, describe_backbone
from effrec_cli.methods.multimodal.known import of_known_shape
from effrec_cli.models.encoders.reader import TapReader
from effrec_cli.models.encoders.rows import ImageRows
from effrec_cli.models.encoders.sources import BackboneTaps, CachedTaps, HostImages, ItemReader
from effrec_cli.models.taps import Taps, TapShape
from effrec_cli.schema.backbone import BackboneConfig
from effrec_cli.schema.method_iisan import IISANConfig

Say = Callable[[str], None]
Context = Callable[[], AbstractContextManager[Any]]
Taken = dict[str, tuple[int, ...]]
"""By modality, the hidden states that are read of its backbone."""


@dataclass(frozen=True)
class Wanted:
    """What sources are made of.

    Attributes:
        settings: of the method.
        contents: of all items.
        data_root: where what is made once is kept; None keeps nothing.
        device: where backbones run to fill a cache.
        precision: what they compute in.
        autocast: the context of that.
        rehearses: nothing is made that outlasts a look at what a run would take.
        say: receives a line about what takes time or memory.
        ranks: processes that may all hold a cache in the memory of this host.
    """

    settings: IISANConfig
    contents: Contents
    data_root: Path | None
    device: torch.device
    precision: str
    autocast: Context
    rehearses: bool
    say: Say
    ranks: int = 1

    @property
    def keeps_nothing(self) -> bool:
        """Whether no cache is filled, and weights are not read to tell which they are."""
        return self.rehearses or self.data_root is None

    def describe(self, modality: str) -> Description:
        """Returns what a modality's backbone is, without its weights."""
        settings = self._backbone(modality)
        return describe_backbone(settings, self.contents, modality, self.data_root, self.say)

    def build(self, modality: str, *, pooler: bool = False) -> Backbone:
        """Returns a modality's backbone, on the CPU."""
        settings = self._backbone(modality)
        tokens = self.data_root / "tokens" if self.data_root else None
        return build_backbone(settings, self.contents, modality, tokens, self.say, pooler=pooler)

    def free_bytes(self, device: torch.device) -> int:
        """Returns the memory that this rank may take on a device; of the host's each has its part."""
        return free_bytes(device) // (self.ranks if device.type == "cpu" else 1)

    def _backbone(self, modality: str) -> BackboneConfig:
        settings: BackboneConfig = getattr(self.settings, modality)
        return of_known_shape(settings, modality, f"method.{modality}") if self.rehearses else settings


class UnderAutocast(ItemReader):
    """Reads taps in the run's precision, which frozen backbones are run in.

    Args:
        reader: as it is.
        autocast: the context.
    """

    def __init__(self, reader: ItemReader, autocast: Context) -> None:
        super().__init__(reader.rows, reader.costs, reader.reader, reader.batch_tokens)
        self._autocast = autocast

    def read(self, loaded: Any) -> Tensor:
        """Returns the taps, at least float32 [n, T, D], of items that were loaded, without gradients."""
        with self._autocast():
            return super().read(loaded)


class StandIn(nn.Module):
    """Stands for a source where only shapes are asked for.

    Args:
        shape: of the taps that it would give.
    """

    def __init__(self, shape: TapShape) -> None:
        super().__init__()
        self.shape = shape

    def prepare(self) -> None:
        """Does nothing."""

    def forward(self, items: Tensor) -> Taps:
        """Returns taps of the right shapes."""
        own = self.shape
        return Taps(
            tuple(torch.zeros(len(items), own.text_dim, device=items.device) for _ in range(own.text_taps)),
            tuple(torch.zeros(len(items), own.image_dim, device=items.device) for _ in range(own.image_taps)),
        )


def shape_of(abouts: dict[str, Description], taken: Taken) -> TapShape:
    """Returns the shape of what is read of the modalities that are there."""
    sizes = [(abouts[name].dim, len(taken[name])) if name in abouts else (0, 0) for name in ("text", "image")]
    return TapShape(*sizes[0], *sizes[1])


def live_taps(wanted: Wanted, taken: Taken) -> BackboneTaps:
    """Returns the source that runs the backbones for every step."""
    readers = {name: item_reader(wanted, name, taps) for name, taps in taken.items()}
    abouts = {name: wanted.describe(name) for name in taken}
    return BackboneTaps(readers.get("text"), readers.get("image"), _facts(wanted, abouts))


def cached_taps(wanted: Wanted, abouts: dict[str, Description], taken: Taken) -> tuple[CachedTaps, float]:
    """Returns the source that reads a cache, and the seconds that filling it took, then or now.

    Raises:
        DataError: what is kept is damaged, or the dataset lacks what a backbone reads.
        EnvironmentFault: the disk is full or may not be written.
    """
    found = {name: _features(wanted, abouts[name], taps) for name, taps in taken.items()}
    seconds = sum(float(each.build.get("seconds", 0.0)) for each in found.values())
    source = CachedTaps(
        found.get("text"),
        found.get("image"),
        residence=wanted.settings.cache.residence,
        free_bytes=wanted.free_bytes,
        say=wanted.say,
        backbones=_facts(wanted, abouts),
    )
    return source, seconds


def _facts(wanted: Wanted, abouts: dict[str, Description]) -> dict[str, Any]:
    """Returns what backbones are; nothing where it is only looked at, since weights are read for it."""
    return {} if wanted.keeps_nothing else {name: about.identity for name, about in abouts.items()}


def _features(wanted: Wanted, about: Description, taps: tuple[int, ...]) -> Features:
    if wanted.keeps_nothing or wanted.data_root is None:
        return _blank(wanted, about, taps)
    spec = _spec(wanted, about, taps)
    settings = wanted.settings.cache
    try:
        return kept_features(
            spec,
            wanted.data_root,
            lambda: _working(wanted, about.modality, taps),
            rebuild=settings.rebuild,
            say=wanted.say,
        )
    finally:
        if wanted.device.type == "cuda":
            torch.cuda.empty_cache()  # the backbone is gone, and training is to be measured without it


def _working(wanted: Wanted, modality: str, taps: tuple[int, ...]) -> ItemReader:
    return item_reader(wanted, modality, taps).to(wanted.device)


def _spec(wanted: Wanted, about: Description, taps: tuple[int, ...]) -> FeatureSpec:
    return FeatureSpec(
        modality=about.modality,
        backbone=about.identity,
        pooling=about.pooling.kind,
        taps=taps,
        dtype=wanted.settings.cache.dtype,
        precision=wanted.precision,
        items=_items_digest(wanted, about.modality),
        num_items=len(wanted.contents),
        dim=about.dim,
    )


def _items_digest(wanted: Wanted, modality: str) -> str:
    """Returns what tells what the items say; ready-made tokens are told by the backbone's identity."""
    contents = wanted.contents
    if modality == "image":
        return "" if contents.images is None else array_digest(contents.images, wanted.data_root)
    return "" if contents.texts is None else texts_digest(contents.texts.tolist())


def _blank(wanted: Wanted, about: Description, taps: tuple[int, ...]) -> Features:
    """Returns features of the right size that say nothing."""
    width = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16, "int8": np.int8, "fp8": np.uint8}
    dtype, items = wanted.settings.cache.dtype, len(wanted.contents)
    scaled = dtype in ("int8", "fp8")
    return Features(
        rows=np.zeros((items, len(taps), about.dim), width[dtype]),
        scales=np.ones((items, len(taps)), np.float32) if scaled else None,
        constant=np.zeros((0, about.dim), np.float32),
        constant_taps=(),
        taps=taps,
        dtype=dtype,
        build={},
        error={},
    )


def item_reader(wanted: Wanted, modality: str, taps: tuple[int, ...]) -> ItemReader:
    """Returns what reads the taps of items from a modality's backbone, on the CPU, in the run's precision."""
    backbone = wanted.build(modality)
    rows: nn.Module = backbone.rows
    if isinstance(rows, ImageRows) and wanted.contents.images is not None:
        rows = HostImages(wanted.contents.images)  # as many as are asked for, and never all, on a device
    reader = ItemReader(
        rows,
        backbone.costs,
        TapReader(backbone.network, backbone.pooling, taps),
        wanted.settings.batch_tokens,
    )
    return UnderAutocast(reader, wanted.autocast)
