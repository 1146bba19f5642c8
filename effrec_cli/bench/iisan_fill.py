"""What keeping the hidden states of a catalogue takes, beside one forward pass over its items."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from effrec_cli.bench.clock import median_seconds
from effrec_cli.bench.iisan_work import config_of, data_of
from effrec_cli.data.contents import contents_of
from effrec_cli.data.features.build import kept_features
from effrec_cli.data.features.spec import FeatureSpec
from effrec_cli.data.types import Int64
from effrec_cli.methods.multimodal.sources import Wanted, item_reader
from effrec_cli.models.encoders.network import Network
from effrec_cli.models.encoders.rows import ImageRows
from effrec_cli.models.encoders.sources import HostImages, ItemReader
from effrec_cli.models.taps import tap_rule
from effrec_cli.precision import autocast, resolve_precision

MODALITIES = ("text", "image")


def filling(parameters: dict[str, Any], device: torch.device) -> Callable[[], None]:
    """Returns what keeps the taps of all texts and of all images, on the disk, by backbones that are there.

    Contents come from the host's memory. What tells kept taps from others, a digest of all contents, is not
    part of it. Each turn has a folder of its own; they go when the process ends.
    """
    wanted = _wanted(parameters, device)
    jobs = [_job(wanted, modality) for modality in MODALITIES]
    for _, reader in jobs:
        first = next(reader.chunks(np.arange(len(wanted.contents))))
        reader.read(reader.load(first))

    root = TemporaryDirectory(prefix="effrec-bench-", ignore_cleanup_errors=True)
    turns = itertools.count()

    def fill() -> None:
        folder = Path(root.name) / str(next(turns))
        for spec, reader in jobs:
            kept_features(spec, folder, partial(_same, reader), rebuild=False, say=_unheard)

    return fill


def forward_pass(parameters: dict[str, Any], device: torch.device) -> Callable[[], None]:
    """Returns what runs both backbones over all items, contents on the device, by the best of some batches.

    Items of like length go together. What the backbones give is passed by.
    """
    wanted = _wanted(parameters, device)
    passes = [_fastest(wanted, modality, parameters["at_once"]) for modality in MODALITIES]

    def run() -> None:
        for one in passes:
            one()

    return run


def _wanted(parameters: dict[str, Any], device: torch.device) -> Wanted:
    config = config_of(parameters, {}, device, "")
    precision = resolve_precision(config.run.precision, device)
    return Wanted(
        settings=config.method,
        contents=contents_of(data_of(parameters)),
        data_root=None,
        device=device,
        precision=precision,
        autocast=partial(autocast, precision, device),
        rehearses=False,
        say=_unheard,
    )


def _job(wanted: Wanted, modality: str) -> tuple[FeatureSpec, ItemReader]:
    """Returns what is kept of a modality, and what reads it."""
    about, own = wanted.describe(modality), wanted.settings
    taps = tap_rule(about.num_layers, min(own.num_taps, about.num_layers))
    spec = FeatureSpec(
        modality=modality,
        backbone={},
        pooling=about.pooling.kind,
        taps=taps,
        dtype=own.cache.dtype,
        precision=wanted.precision,
        items="",
        num_items=len(wanted.contents),
        dim=about.dim,
    )
    return spec, item_reader(wanted, modality, taps).to(wanted.device)


def _fastest(wanted: Wanted, modality: str, sizes: str) -> Callable[[], None]:
    """Returns a pass over all items, by the number of them at once that some of them take least time with."""
    backbone, device = wanted.build(modality), wanted.device
    rows: nn.Module = backbone.rows
    if isinstance(rows, HostImages):
        rows = ImageRows(torch.from_numpy(rows.images))
    network, rows = backbone.network.to(device).eval(), rows.to(device)
    order = np.argsort(-backbone.costs, kind="stable")
    work = partial(_pass, wanted, network, rows, backbone.costs)
    tried = [int(word) for word in sizes.split() if word.isdigit()]
    some = order[:: max(1, len(order) // (2 * max(tried)))]
    seconds = {size: median_seconds(partial(work, some, size), device, times=2) for size in tried}
    return partial(work, order, min(seconds, key=lambda size: seconds[size]))


@torch.inference_mode()
def _pass(wanted: Wanted, network: Network, rows: nn.Module, costs: Int64, order: Int64, size: int) -> None:
    """Runs a network over items [n] in their order, `size` at once."""
    with wanted.autocast():
        for first in range(0, len(order), size):
            items = order[first : first + size]
            there = torch.from_numpy(items).to(wanted.device)
            network(*rows(there, int(costs[items].max())))


def _same(reader: ItemReader) -> ItemReader:
    return reader


def _unheard(line: str) -> None:
    """Takes a line that nobody waits for."""
