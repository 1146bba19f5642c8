"""Builds backbones over the contents of a dataset's items, and tells what they are without their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from effrec_cli.data.contents import Contents
from effrec_cli.errors import ConfigError
from effrec_cli.methods.content import networks, pretrained
from effrec_cli.methods.multimodal import identities
from effrec_cli.methods.multimodal.families import pooling_of, refuse_classless, shape_of
from effrec_cli.models.encoders.network import Network
from effrec_cli.models.encoders.reader import RowPooling
from effrec_cli.schema.backbone import BackboneConfig

Say = Callable[[str], None]
_HUB = {"text": networks.hub_text, "image": networks.hub_image}
_SMALL = {"text": networks.small_text, "image": networks.small_image}


@dataclass(frozen=True)
class Description:
    """What is known of a backbone before its weights are read.

    Attributes:
        modality: `text` or `image`.
        dim: width D of its hidden states.
        num_layers: layers L; it has hidden states 0 (what layer 1 reads) to L.
        pooling: which row of a hidden state stands for an item.
        identify: makes `identity`.
    """

    modality: str
    dim: int
    num_layers: int
    pooling: RowPooling
    identify: Callable[[], dict[str, Any]]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What its hidden states depend on beside the contents, as JSON; weights are read for a digest."""
        return self.identify()


@dataclass(frozen=True)
class Backbone:
    """A backbone and what it reads of all items.

    Attributes:
        about: what it is.
        network: contents to states; on the CPU, or on the meta device where that is the default.
        rows: the contents of all items, as it reads them.
        costs: int64 [V], tokens of each item.
    """

    about: Description
    network: Network
    rows: networks.Rows
    costs: NDArray[np.int64]

    @property
    def dim(self) -> int:
        """Width D of its hidden states."""
        return self.about.dim

    @property
    def num_layers(self) -> int:
        """Its layers L."""
        return self.about.num_layers

    @property
    def pooling(self) -> RowPooling:
        """Which row of a hidden state stands for an item."""
        return self.about.pooling

    @property
    def identity(self) -> dict[str, Any]:
        """What its hidden states depend on beside the contents."""
        return self.about.identity


def describe_backbone(
    settings: BackboneConfig,
    contents: Contents,
    modality: str,
    cache: Path | None,
    say: Say,
    path: str | None = None,
) -> Description:
    """Returns what a backbone is, from its config.json; it is not built.

    Args:
        settings: without problems (see `schema.backbone.backbone_problems`).
        contents: of all items.
        modality: `text` or `image`.
        cache: where digests of files are remembered, so that each is read once; None reads them every time.
        say: receives a line about what takes time.
        path: the full key that holds the settings; None is `method.text` or `method.image`.

    Raises:
        ConfigError: a folder that is not there, or holds no backbone of this modality.
        EnvironmentFault: a package is missing, or the hub cannot be reached.
    """
    wanted = _wanted(settings, contents, modality, cache, say, path)
    return _described(wanted, modality, _folder(wanted))


def build_backbone(
    settings: BackboneConfig,
    contents: Contents,
    modality: str,
    cache: Path | None,
    say: Say,
    path: str | None = None,
    *,
    pooler: bool = False,
) -> Backbone:
    """Returns a backbone; what is random in it does not depend on torch's generator, nor move it.

    Args:
        settings: without problems (see `schema.backbone.backbone_problems`).
        contents: of all items.
        modality: `text` or `image`.
        cache: where texts split into tokens and digests of files are kept; None keeps nothing.
        say: receives a line about what takes time or memory.
        path: the full key that holds the settings; None is `method.text` or `method.image`.
        pooler: keep the pooler of a text model, though nothing reads it.

    Raises:
        ConfigError: a folder that is not there, or a backbone that cannot do what is asked of it.
        DataError: the dataset lacks what the backbone reads.
        EnvironmentFault: a package is missing, or the hub cannot be reached.
    """
    wanted = _wanted(settings, contents, modality, cache, say, path)
    folder = _folder(wanted)
    about = _described(wanted, modality, folder)
    chosen = replace(settings, pooling=about.pooling.kind)
    wanted = replace(wanted, settings=chosen, pooler=pooler and modality == "text")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(identities.SEED)
        made = _SMALL[modality](wanted) if folder is None else _HUB[modality](wanted, folder)
    network, rows, costs = made
    layers = network.layers()
    if layers is None or len(layers) != about.num_layers:
        raise _without_layers(wanted)
    return Backbone(about, network, rows, costs)


def _wanted(
    settings: BackboneConfig,
    contents: Contents,
    modality: str,
    cache: Path | None,
    say: Say,
    path: str | None,
) -> networks.Wanted:
    path = path or f"method.{modality}"
    instead = f"name a model of this kind as {path.rpartition('.')[0]}.{{}}.name"
    return networks.Wanted(settings, contents, cache, say, path, path, instead, backbone=True)


def _folder(wanted: networks.Wanted) -> Path | None:
    """Returns the folder of a named backbone."""
    settings = wanted.settings
    if settings.name is None:
        return None
    pretrained.require_transformers(wanted.path)
    return pretrained.folder_of(settings.name, settings.revision, wanted.say, wanted.path)


def _described(wanted: networks.Wanted, modality: str, folder: Path | None) -> Description:
    settings = wanted.settings
    if folder is None:
        kind = "mean" if settings.pooling == "auto" else settings.pooling
        identify = identities.small_identity(wanted, modality)
        return Description(modality, settings.dim, settings.num_layers, RowPooling(kind), identify)
    config = pretrained.read_config(folder, text=modality == "text", dropout=None, path=wanted.path)
    # Here and not as it is built: the other modality's cache may be filled before.
    refuse = networks.refuse_wordless if modality == "text" else networks.refuse_sightless
    refuse(config, wanted)
    shape = shape_of(config)
    if shape is None:
        raise _without_layers(wanted)
    pooling = pooling_of(config, folder, settings.pooling, modality)
    refuse_classless(config, pooling, wanted.path)
    if modality == "text" and networks.ready_tokens(settings, wanted.contents, folder):
        pooling = RowPooling(pooling.kind)
    identify = identities.hub_identity(wanted, modality, folder, config, pooling.eos)
    return Description(modality, *shape, pooling, identify)


def _without_layers(wanted: networks.Wanted) -> ConfigError:
    return ConfigError(
        f"'{wanted.settings.name}' is no Transformer with one list of layers of one width.",
        where=f"{wanted.path}.name",
        fix="name a backbone whose hidden states can be told apart, such as BERT, ViT, CLIP or Llama",
    )
