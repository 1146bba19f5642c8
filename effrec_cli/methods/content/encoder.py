"""Builds the encoder that the settings ask for, over the contents of a dataset's items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from effrec_cli.data import words
from effrec_cli.data.contents import Contents
from effrec_cli.data.tokenise import tokenised
from effrec_cli.data.tokens import TokenTable
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.evaluation.blocks import free_bytes
from effrec_cli.methods.content import pretrained
from effrec_cli.models.encoders.hub import HubImage, HubNetwork, HubText
from effrec_cli.models.encoders.item import ItemEncoder
from effrec_cli.models.encoders.network import Network
from effrec_cli.models.encoders.pooling import Pooling
from effrec_cli.models.encoders.rows import ImageRows, TokenRows
from effrec_cli.models.encoders.small import PatchEmbedding, SmallNetwork, WordEmbedding
from effrec_cli.models.encoders.training import train_adapters, train_top
from effrec_cli.schema.encoder import EncoderConfig

Say = Callable[[str], None]
MOST_TOKENS = 512
"""Tokens of an item's text that are read where the settings and the encoder set no other limit."""
SMALL_DROPOUT = 0.1


def build_encoder(settings: EncoderConfig, contents: Contents, cache: Path | None, say: Say) -> ItemEncoder:
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
    makers = {"text": (_small_text, _hub_text), "image": (_small_image, _hub_image)}
    small, hub = makers[settings.modality]
    if settings.name is None:
        network, rows, costs = small(settings, contents, cache, say)
    else:
        pretrained.require_transformers()
        folder = pretrained.folder_of(settings.name, settings.revision, say)
        network, rows, costs = hub(settings, contents, folder, cache, say)
    _choose_weights(settings, network)
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


Made = tuple[Network, TokenRows | ImageRows, NDArray[np.int64]]


def _choose_weights(settings: EncoderConfig, network: Network) -> None:
    """Freezes what is not to train, and adds adapters."""
    if settings.train == "top":
        assert settings.top_layers is not None
        train_top(network, settings.top_layers)
    elif settings.train == "lora":
        assert isinstance(network, HubNetwork)
        train_adapters(network, network.model, settings.lora_rank, settings.top_layers)


def _small_text(settings: EncoderConfig, contents: Contents, cache: Path | None, say: Say) -> Made:
    """Returns the built-in encoder over a dataset's tokens, or hashed words; one more leads each item."""
    most = settings.max_tokens or MOST_TOKENS
    ready = settings.tokenizer != "own" and (contents.tokens is not None or settings.tokenizer == "dataset")
    table = (_own_tokens(contents) if ready else _words(contents, most, cache, say)).led().cut(most)
    embedding = WordEmbedding(table.num_words, most, settings.dim)
    return _small(settings, embedding), _token_rows(table), table.lengths


def _small_image(settings: EncoderConfig, contents: Contents, cache: Path | None, say: Say) -> Made:
    images = _images(contents)
    embedding = PatchEmbedding(images.shape[1], images.shape[2], settings.dim)
    rows = ImageRows(torch.from_numpy(np.array(images)))
    return _small(settings, embedding), rows, np.full(len(images), embedding.count, np.int64)


def _small(settings: EncoderConfig, embedding: WordEmbedding | PatchEmbedding) -> SmallNetwork:
    return SmallNetwork(
        embedding,
        dim=settings.dim,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        dropout=SMALL_DROPOUT if settings.dropout is None else settings.dropout,
    )


def _hub_text(
    settings: EncoderConfig, contents: Contents, folder: Path, cache: Path | None, say: Say
) -> Made:
    """Returns a named text encoder over its tokenizer's tokens or the dataset's."""
    config = pretrained.read_config(folder, text=True, dropout=settings.dropout)
    most = _most_tokens(settings, config)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0
    if _ready_tokens(settings, contents, folder):
        # Below them stay the pad token, by which some models count places, and what comes before it.
        table = _own_tokens(contents).shifted(config.pad_token_id + 1).led().cut(most)
    else:
        table = _hub_tokens(contents, folder, config.pad_token_id, most, cache, say)
    if not settings.pretrained:
        config.vocab_size = max(config.vocab_size, table.num_words)
    elif len(table.tokens) and table.tokens.max() >= config.vocab_size:
        what = f"The tokenizer knows {table.num_words} words, the weights {config.vocab_size}."
        raise DataError(what, where=str(folder), fix="copy tokenizer and weights from one place")
    model = pretrained.read_model(folder, config, pretrained=settings.pretrained)
    network = HubText(model, _dim(config))
    if settings.pooling == "cls":
        _refuse_first_token(network)
    return network, _token_rows(table, config.pad_token_id), table.lengths


def _hub_image(
    settings: EncoderConfig, contents: Contents, folder: Path, cache: Path | None, say: Say
) -> Made:
    """Returns a named vision encoder; a patch, or 32 pixels square where there is none, counts as a token."""
    images = _images(contents)
    config = pretrained.read_config(folder, text=False, dropout=settings.dropout)
    size, mean, std = pretrained.image_values(folder, config)
    model = pretrained.read_model(folder, config, pretrained=settings.pretrained)
    if getattr(model, "main_input_name", None) != "pixel_values":
        what = f"'{settings.name}' is no vision model: it does not read images."
        raise ConfigError(what, where=pretrained.NAME, fix="method.encoder.modality=text")
    network = HubImage(model, _dim(config), size, mean, std)
    patch = getattr(config, "patch_size", 32)
    side = patch if isinstance(patch, int) else patch[0]
    cost = -(-size[0] // side) * -(-size[1] // side) + 1
    return network, ImageRows(torch.from_numpy(np.array(images))), np.full(len(images), cost, np.int64)


def _dim(config: Any) -> int:
    """Returns the width of a model's last states."""
    return int(getattr(config, "hidden_size", None) or config.hidden_sizes[-1])


def _most_tokens(settings: EncoderConfig, config: Any) -> int:
    """Returns how many tokens of a text are read.

    Raises:
        ConfigError: more are asked for than the encoder has places for.
    """
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        places -= config.pad_token_id + 1  # they count from after the pad token
    if settings.max_tokens is None:
        return min(MOST_TOKENS, places or MOST_TOKENS)
    if places is not None and settings.max_tokens > places:
        what = f"max_tokens={settings.max_tokens}, but this encoder has places for {places} tokens."
        raise ConfigError(what, where="method.encoder.max_tokens", fix=f"method.encoder.max_tokens={places}")
    return settings.max_tokens


def _ready_tokens(settings: EncoderConfig, contents: Contents, folder: Path) -> bool:
    """Returns whether a named encoder reads the dataset's tokens and not its own tokenizer's."""
    if settings.tokenizer != "auto":
        return settings.tokenizer == "dataset"
    alone = contents.tokens is not None and not pretrained.has_tokenizer(folder)
    return alone and not settings.pretrained


def _words(contents: Contents, most: int, cache: Path | None, say: Say) -> TokenTable:
    return tokenised(
        _texts(contents, say),
        words.splitter(most),
        identity=f"words {words.VERSION} {most}",
        num_words=words.NUM_WORDS,
        pad=0,
        folder=cache,
        say=say,
    )


def _hub_tokens(
    contents: Contents, folder: Path, pad: int, most: int, cache: Path | None, say: Say
) -> TokenTable:
    texts = _texts(contents, say)
    tokenizer = pretrained.read_tokenizer(folder)
    return tokenised(
        texts,
        pretrained.splitter(tokenizer, most, pad),
        identity=pretrained.identity(tokenizer, most),
        num_words=len(tokenizer),
        pad=pad,
        folder=cache,
        say=say,
    )


@torch.no_grad()
def _refuse_first_token(network: Network) -> None:
    """Raises ConfigError where the first token's state does not depend on what follows."""
    first = network.eval()(torch.tensor([[0, 1], [0, 2]]), torch.ones(2, 2, dtype=torch.bool))[:, 0]
    network.train()
    if not first.is_meta and torch.equal(first[0], first[1]):
        raise ConfigError(
            "This encoder reads from left to right: its first token sees no other.",
            where="method.encoder.pooling",
            fix="method.encoder.pooling=mean, or method.encoder.pooling=attention",
        )


def _token_rows(table: TokenTable, pad: int = 0) -> TokenRows:
    tokens, offsets = np.array(table.tokens), np.array(table.offsets)
    return TokenRows(torch.from_numpy(tokens), torch.from_numpy(offsets), pad)


def _texts(contents: Contents, say: Say) -> NDArray[Any]:
    """Returns the texts; says how many are blank, since these items all have one vector."""
    blank = contents.blank
    if contents.texts is None or blank == len(contents.texts):
        raise _lacking("texts", "method.encoder.modality", "a dataset with titles")
    if blank:
        say(f"{blank:,} of {len(contents.texts):,} items have no text; one vector stands for them all.")
    return contents.texts


def _own_tokens(contents: Contents) -> TokenTable:
    if contents.tokens is None:
        raise _lacking("ready-made tokens", "method.encoder.tokenizer", "method.encoder.tokenizer=own")
    return contents.tokens


def _images(contents: Contents) -> NDArray[np.uint8]:
    if contents.images is None:
        what = "dataset=synthetic dataset.side=[images], or method.encoder.modality=text"
        raise _lacking("images", "method.encoder.modality", what)
    return contents.images


def _lacking(what: str, where: str, fix: str) -> DataError:
    return DataError(f"The encoder reads {what} of items, and the dataset has none.", where=where, fix=fix)
