"""Networks over the contents of a dataset's items: built-in ones, and those of a folder or the hub."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from effrec_cli.data import words
from effrec_cli.data.contents import Contents
from effrec_cli.data.tokenise import tokenised
from effrec_cli.data.tokens import TokenTable
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.methods.content import pretrained
from effrec_cli.methods.content.pixels import pixels_of
from effrec_cli.models.encoders.hub import HubImage, HubText
from effrec_cli.models.encoders.network import Network
from effrec_cli.models.encoders.rows import ImageRows, TokenRows
from effrec_cli.models.encoders.small import PatchEmbedding, SmallNetwork, WordEmbedding
from effrec_cli.models.encoders.sources import HostImages

Say = Callable[[str], None]
Rows = TokenRows | ImageRows | HostImages
Made = tuple[Network, Rows, NDArray[np.int64]]
"""A network, what it reads of all items, and how many tokens of each that is, int64 [V]."""
MOST_TOKENS = 512
"""Tokens of an item's text that are read where the settings and the encoder set no other limit."""
SMALL_DROPOUT = 0.1
MOST_IMAGE_BYTES = 512 << 20
"""Images of more than that stay on the host beside a backbone, and are fetched when they are read."""
FILLED = frozenset(("siglip_text_model", "siglip2_text_model"))
"""Text models that were trained with all texts filled up, and that read the filling."""


class NetworkSettings(Protocol):
    """What a network is made from; `schema.encoder.EncoderConfig` says what each of them means."""

    name: str | None
    revision: str | None
    weights: str
    tokenizer: str
    pooling: str
    dropout: float | None
    max_tokens: int | None
    dim: int
    num_layers: int
    num_heads: int

    @property
    def pretrained(self) -> bool:
        """Whether its weights are read from somewhere."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        settings: of the network.
        contents: of all items.
        cache: where texts split into tokens are kept; None keeps nothing.
        say: receives a line about what takes time.
        path: the full key that holds the settings, such as `method.encoder`.
        by: the setting that says whether texts or images are read.
        instead: what an error offers to who named a model of the other modality; `{}` is which it is.
        backbone: whether states are read as a model's makers read them: a text filled up to the length with
            which it was trained, where that was always so, and the last states normed.
        pooler: whether a pooler is kept, which nothing reads.
    """

    settings: NetworkSettings
    contents: Contents
    cache: Path | None
    say: Say
    path: str = pretrained.PATH
    by: str = f"{pretrained.PATH}.modality"
    instead: str = f"{pretrained.PATH}.modality={{}}"
    backbone: bool = False
    pooler: bool = False


def small_text(wanted: Wanted) -> Made:
    """Returns the built-in encoder over a dataset's tokens, or hashed words; one more leads each item."""
    settings, contents = wanted.settings, wanted.contents
    most = settings.max_tokens or MOST_TOKENS
    ready = settings.tokenizer != "own" and (contents.tokens is not None or settings.tokenizer == "dataset")
    table = (_own_tokens(wanted) if ready else _words(wanted, most)).led().cut(most)
    embedding = WordEmbedding(table.num_words, most, settings.dim)
    return _small(settings, embedding), _token_rows(table), table.lengths


def small_image(wanted: Wanted) -> Made:
    """Returns the built-in encoder over the patches of a dataset's images."""
    images = _images(wanted)
    embedding = PatchEmbedding(images.shape[1], images.shape[2], wanted.settings.dim)
    rows = _image_rows(images, wanted)
    return _small(wanted.settings, embedding), rows, np.full(len(images), embedding.count, np.int64)


def _small(settings: NetworkSettings, embedding: WordEmbedding | PatchEmbedding) -> SmallNetwork:
    return SmallNetwork(
        embedding,
        dim=settings.dim,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        dropout=SMALL_DROPOUT if settings.dropout is None else settings.dropout,
    )


def hub_text(wanted: Wanted, folder: Path) -> Made:
    """Returns a named text encoder over its tokenizer's tokens or the dataset's.

    Raises:
        ConfigError: the folder holds no text model, or one that cannot do what is asked of it.
        DataError: the dataset lacks what it reads, or weights and tokenizer are of different models.
    """
    settings, path = wanted.settings, wanted.path
    config = pretrained.read_config(folder, text=True, dropout=settings.dropout, path=path)
    refuse_wordless(config, wanted)
    most = most_tokens(settings, config, path)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0
    if ready_tokens(settings, wanted.contents, folder):
        # Below them stay the pad token, by which some models count places, and what comes before it.
        table = _own_tokens(wanted).shifted(config.pad_token_id + 1).led().cut(most)
    else:
        table = _hub_tokens(wanted, folder, config.pad_token_id, most)
    if filled_places(config, wanted.backbone):
        table = _filled(table, filled_places(config, True), config.pad_token_id)
    if not settings.pretrained:
        config.vocab_size = max(config.vocab_size, table.num_words)
    elif len(table.tokens) and table.tokens.max() >= config.vocab_size:
        what = f"The tokenizer knows {table.num_words} words, the weights {config.vocab_size}."
        raise DataError(what, where=str(folder), fix="copy tokenizer and weights from one place")
    model = pretrained.read_model(
        folder, config, pretrained=settings.pretrained, path=path, pooler=wanted.pooler
    )
    if getattr(model, "main_input_name", None) != "input_ids":
        raise _no_text_model(wanted)
    network = HubText(model, width_of(config))
    if settings.pooling == "cls":
        _refuse_first_token(network, path)
    return network, _token_rows(table, config.pad_token_id), table.lengths


def hub_image(wanted: Wanted, folder: Path) -> Made:
    """Returns a named vision encoder; a patch, or 32 pixels square where there is none, counts as a token.

    Raises:
        ConfigError: the folder holds no vision model.
        DataError: the dataset has no images.
    """
    images, settings = _images(wanted), wanted.settings
    config = pretrained.read_config(folder, text=False, dropout=settings.dropout, path=wanted.path)
    pixels = pixels_of(folder, config)
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # of an autoencoder, which would leave out other patches at every call
    model = pretrained.read_model(folder, config, pretrained=settings.pretrained, path=wanted.path)
    if getattr(model, "main_input_name", None) != "pixel_values":
        raise _no_vision_model(wanted)
    if more := _reads_besides(model):
        what = f"'{settings.name}' does not read images alone: it also asks for {', '.join(more)}."
        raise ConfigError(
            what, where=f"{wanted.path}.name", fix="name a vision model that reads whole images"
        )
    network = HubImage(
        model, width_of(config), pixels.size, pixels.mean, pixels.std, late_norm=wanted.backbone
    )
    patch = getattr(config, "patch_size", 32)
    side = patch if isinstance(patch, int) else patch[0]
    cost = -(-pixels.size[0] // side) * -(-pixels.size[1] // side) + 1
    return network, _image_rows(images, wanted), np.full(len(images), cost, np.int64)


def _reads_besides(model: Any) -> list[str]:
    """Returns what a vision model must be given beside pixels."""
    given = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each.name for each in given if each.kind in kinds and each.default is each.empty]
    return [name for name in needed if name != "pixel_values"]


def _image_rows(images: NDArray[np.uint8], wanted: Wanted) -> ImageRows | HostImages:
    if wanted.backbone and images.nbytes > MOST_IMAGE_BYTES:
        return HostImages(images)
    return ImageRows(torch.from_numpy(np.array(images)))


def refuse_wordless(config: Any, wanted: Wanted) -> None:
    """Raises ConfigError where a model that is to read texts has no words."""
    if not isinstance(getattr(config, "vocab_size", None), int):
        raise _no_text_model(wanted)


def refuse_sightless(config: Any, wanted: Wanted) -> None:
    """Raises ConfigError where a model that is to read images has words, and no pixels."""
    sees = any(hasattr(config, name) for name in ("num_channels", "image_size", "patch_size"))
    if isinstance(getattr(config, "vocab_size", None), int) and not sees:
        raise _no_vision_model(wanted)


def _no_vision_model(wanted: Wanted) -> ConfigError:
    what = f"'{wanted.settings.name}' is no vision model: it does not read images."
    return ConfigError(what, where=f"{wanted.path}.name", fix=wanted.instead.format("text"))


def _no_text_model(wanted: Wanted) -> ConfigError:
    what = f"'{wanted.settings.name}' is no text model: it does not read tokens."
    return ConfigError(what, where=f"{wanted.path}.name", fix=wanted.instead.format("image"))


def filled_places(config: Any, backbone: bool) -> int:
    """Returns the tokens to which every text is filled up, 0 where texts keep their lengths."""
    return int(config.max_position_embeddings) if backbone and config.model_type in FILLED else 0


def _filled(table: TokenTable, width: int, pad: int) -> TokenTable:
    """Returns the table with as many tokens of each item, `pad` behind its own."""
    tokens = np.full((len(table), width), pad, np.int32)
    tokens[np.arange(width) < table.lengths[:, None]] = table.tokens
    return TokenTable(tokens.ravel(), np.arange(len(table) + 1, dtype=np.int64) * width, table.num_words, pad)


def width_of(config: Any) -> int:
    """Returns the width of a model's last states."""
    return int(getattr(config, "hidden_size", None) or config.hidden_sizes[-1])


def most_tokens(settings: NetworkSettings, config: Any, path: str) -> int:
    """Returns how many tokens of a text are read.

    Raises:
        ConfigError: more are asked for than the encoder has places for.
    """
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        places -= config.pad_token_id + 1  # they count from after the pad token
    if places is not None and places < 1:  # which says that there is no limit
        places = None
    if settings.max_tokens is None:
        return min(MOST_TOKENS, places or MOST_TOKENS)
    if places is not None and settings.max_tokens > places:
        what = f"max_tokens={settings.max_tokens}, but this encoder has places for {places} tokens."
        raise ConfigError(what, where=f"{path}.max_tokens", fix=f"{path}.max_tokens={places}")
    return settings.max_tokens


def ready_tokens(settings: NetworkSettings, contents: Contents, folder: Path) -> bool:
    """Returns whether a named encoder reads the dataset's tokens and not its own tokenizer's."""
    if settings.tokenizer != "auto":
        return settings.tokenizer == "dataset"
    alone = contents.tokens is not None and not pretrained.has_tokenizer(folder)
    return alone and not settings.pretrained


def _words(wanted: Wanted, most: int) -> TokenTable:
    return tokenised(
        _texts(wanted),
        words.splitter(most),
        identity=f"words {words.VERSION} {most}",
        num_words=words.NUM_WORDS,
        pad=0,
        folder=wanted.cache,
        say=wanted.say,
    )


def _hub_tokens(wanted: Wanted, folder: Path, pad: int, most: int) -> TokenTable:
    texts = _texts(wanted)
    tokenizer = pretrained.read_tokenizer(folder, wanted.path)
    return tokenised(
        texts,
        pretrained.splitter(tokenizer, most, pad),
        identity=pretrained.identity(tokenizer, most),
        num_words=len(tokenizer),
        pad=pad,
        folder=wanted.cache,
        say=wanted.say,
    )


@torch.no_grad()
def _refuse_first_token(network: Network, path: str) -> None:
    """Raises ConfigError where the first token's state does not depend on what follows."""
    first = network.eval()(torch.tensor([[0, 1], [0, 2]]), torch.ones(2, 2, dtype=torch.bool))[:, 0]
    network.train()
    if not first.is_meta and torch.equal(first[0], first[1]):
        raise ConfigError(
            "This encoder reads from left to right: its first token sees no other.",
            where=f"{path}.pooling",
            fix=f"{path}.pooling=mean",
        )


def _token_rows(table: TokenTable, pad: int = 0) -> TokenRows:
    tokens, offsets = np.array(table.tokens), np.array(table.offsets)
    return TokenRows(torch.from_numpy(tokens), torch.from_numpy(offsets), pad)


def _texts(wanted: Wanted) -> NDArray[Any]:
    """Returns the texts; says how many are blank, since these items all have one vector."""
    texts, blank = wanted.contents.texts, wanted.contents.blank
    if texts is None or blank == len(texts):
        raise _lacking("texts", wanted.by, "a dataset with titles")
    if blank:
        wanted.say(f"{blank:,} of {len(texts):,} items have no text; one vector stands for them all.")
    return texts


def _own_tokens(wanted: Wanted) -> TokenTable:
    if wanted.contents.tokens is None:
        raise _lacking("ready-made tokens", f"{wanted.path}.tokenizer", f"{wanted.path}.tokenizer=own")
    return wanted.contents.tokens


def _images(wanted: Wanted) -> NDArray[np.uint8]:
    if wanted.contents.images is None:
        what = f"dataset=synthetic dataset.side=[images], or {wanted.instead.format('text')}"
        raise _lacking("images", wanted.by, what)
    return wanted.contents.images


def _lacking(what: str, where: str, fix: str) -> DataError:
    return DataError(f"The encoder reads {what} of items, and the dataset has none.", where=where, fix=fix)
