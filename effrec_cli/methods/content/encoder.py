"""Builds the encoder that the settings ask for, over the contents of a dataset's items."""

from __future__ import annotations

from pathlib import Path

from effrec_cli.data.contents import Contents
from effrec_cli.evaluation.blocks import free_bytes
from effrec_cli.methods.content import networks, pretrained
from effrec_cli.models.encoders.hub import HubNetwork
from effrec_cli.models.encoders.item import ItemEncoder
from effrec_cli.models.encoders.network import Network
from effrec_cli.models.encoders.pooling import Pooling
from effrec_cli.models.encoders.sources import HostImages
from effrec_cli.models.encoders.training import train_adapters, train_top
from effrec_cli.schema.encoder import EncoderConfig


def build_encoder(
    settings: EncoderConfig, contents: Contents, cache: Path | None, say: networks.Say
) -> ItemEncoder:
    """Returns the encoder on the CPU, random weights drawn from torch's generator.

    Args:
        settings: without problems (see `schema.encoder.encoder_problems`).
        contents: of all items.
        cache: where texts split into tokens are kept; None keeps nothing.
        say: receives a line about what takes time or memory.

    Raises:
        ConfigError: a folder that is not there, or an encoder that cannot do what is asked of it.
        DataError: the dataset lacks what the encoder reads.
        EnvironmentFault: a package is missing, or the hub cannot be reached.
    """
    network, rows, costs = _made(settings, networks.Wanted(settings, contents, cache, say))
    _choose_weights(settings, network)
    assert not isinstance(rows, HostImages)
    return ItemEncoder(
        rows,
        costs,
        network,
        Pooling(network.dim, settings.pooling),
        keep=settings.cache_lower,
        batch_tokens=settings.batch_tokens,
        free_bytes=free_bytes,
        compiled=settings.compile,
        say=say,
    )


def _made(settings: EncoderConfig, wanted: networks.Wanted) -> networks.Made:
    """Returns the network that reads what the settings say, and its contents."""
    text = settings.modality == "text"
    if settings.name is None:
        return networks.small_text(wanted) if text else networks.small_image(wanted)
    pretrained.require_transformers()
    folder = pretrained.folder_of(settings.name, settings.revision, wanted.say)
    return networks.hub_text(wanted, folder) if text else networks.hub_image(wanted, folder)


def _choose_weights(settings: EncoderConfig, network: Network) -> None:
    """Freezes what is not to train, and adds adapters."""
    if settings.train == "top":
        assert settings.top_layers is not None
        train_top(network, settings.top_layers)
    elif settings.train == "lora":
        assert isinstance(network, HubNetwork)
        train_adapters(network, network.model, settings.lora_rank, settings.top_layers)
