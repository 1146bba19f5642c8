"""Reads models and tokenizers of the transformers package: weights in safetensors, and never code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from effrec_cli.data.tokenise import Split
from effrec_cli.errors import ConfigError, DataError, EnvironmentFault
from effrec_cli.schema.encoder import refuse_lost_folder

PATH = "method.encoder"
"""Where errors say that settings are which a caller does not name; others give the key of theirs."""
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_SENTENCEPIECE = ("spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", *_SENTENCEPIECE)
# Text halves that AutoModel does not know, though it knows the whole.
_APART = {"siglip_text_model": "SiglipTextModel", "siglip2_text_model": "Siglip2TextModel"}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def require_transformers(path: str = PATH) -> None:
    """Raises EnvironmentFault where transformers, which named encoders need, cannot be imported."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault(
            f"A named encoder needs transformers, which cannot be imported: {error}.",
            where=f"{path}.name",
            fix=f"pip install --upgrade 'effrec[encoders]', or {path}.name=null for the built-in encoder",
        ) from error


def folder_of(name: str, revision: str | None, say: Callable[[str], None], path: str = PATH) -> Path:
    """Returns the folder of a named encoder, fetched from Hugging Face's hub where `name` is no folder.

    Raises:
        ConfigError: there is no such folder, or it holds no model.
        EnvironmentFault: the hub cannot be reached, or does not have it.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        refuse_lost_folder(name, f"{path}.name")
        return _fetched(name, revision, say, path)
    if revision is not None:
        what = f"revision={revision} would do nothing: '{name}' is a folder."
        raise ConfigError(what, where=f"{path}.revision", fix=f"{path}.revision=null")
    if not (folder / "config.json").is_file():
        what = "This folder holds no model in Hugging Face's layout: config.json is missing."
        raise ConfigError(
            what, where=f"{path}.name: {folder}", fix="name the folder that save_pretrained wrote"
        )
    return folder


def _fetched(name: str, revision: str | None, say: Callable[[str], None], path: str) -> Path:
    from huggingface_hub import snapshot_download

    say(f"Looking for {name} on Hugging Face's hub.")
    try:
        with _quiet():
            found = snapshot_download(name, revision=revision, allow_patterns=_FILES, ignore_patterns=["*/*"])
    # One class of fault each for a name that is wrong, a network that is not there, a folder that is full.
    except Exception as error:
        raise EnvironmentFault(
            f"'{name}' is no folder here, and cannot be had from Hugging Face's hub.",
            where=f"{path}.name: {str(error).splitlines()[0]}",
            fix=f"{path}.name=FOLDER with config.json, model.safetensors and the tokenizer's files",
        ) from error
    if revision is None:
        say(f"It is at commit {Path(found).name}; {path}.revision={Path(found).name} pins it.")
    return Path(found)


def read_config(folder: Path, *, text: bool, dropout: float | None, path: str = PATH) -> Any:
    """Returns the configuration of a folder's model; of its part for text or images where it has both.

    Raises:
        ConfigError: transformers does not know the model, or it would run code of its own.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        kind = _read_json(folder / "config.json").get("model_type")
        if kind is None:
            raise ConfigError(
                "config.json is no JSON that names a model_type.",
                where=f"{path}.name: {folder / 'config.json'}",
                fix="copy or fetch it again",
            ) from error
        raise ConfigError(
            f"transformers knows no model of type '{kind}', and effrec never runs code that comes with one.",
            where=f"{path}.name: {folder}",
            fix="name another encoder, or install a newer transformers",
        ) from error
    config = getattr(config, "text_config" if text else "vision_config", None) or config
    if getattr(config, "use_cache", False):
        config.use_cache = False  # of a model that writes texts: keys and values of all layers, for nothing
    if dropout is not None:
        set_dropout(config, dropout)
    return config


def set_dropout(config: Any, share: float) -> None:
    """Sets every dropout of a configuration; other random omissions, of layers or paths, are cut to it."""
    for name, value in list(vars(config).items()):
        if "drop" not in name or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        setattr(config, name, share if "dropout" in name else min(share, value))


def read_model(folder: Path, config: Any, *, pretrained: bool, path: str = PATH, pooler: bool = False) -> Any:
    """Returns the model of a folder in float32, or one of its shape with weights from torch's generator.

    Args:
        folder: in Hugging Face's layout.
        config: of the model.
        pretrained: whether its weights are read, or drawn.
        path: the full key of the settings that name it.
        pooler: whether a pooler is kept, which nothing reads.

    Raises:
        ConfigError: transformers cannot build it, or the folder has no weights in safetensors.
        DataError: the weights are damaged, or not those of this model.
    """
    with _quiet():
        model = _loaded(folder, config, path) if pretrained else _drawn(config, path)
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return model if pooler else _without_pooler(model)


def _without_pooler(model: Any) -> Any:
    """Returns the model without what makes one vector of its states, which nothing would read.

    Its weights would be counted and kept, and never trained.
    """
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, torch.nn.Module) and next(pooler.parameters(), None) is not None:
        model.pooler = None
    if str(model.config.model_type).startswith("siglip"):
        model.head = torch.nn.Identity()
        model.use_head = False
    return model


def _drawn(config: Any, path: str) -> Any:
    """Returns a model with random weights, in float32 whatever the published ones are stored in."""
    maker = _maker(config)
    make = getattr(maker, "from_config", None) or maker._from_config
    return _built(make, config, path=path, dtype=torch.float32)


def _maker(config: Any) -> Any:
    """Returns the class that makes the models of a configuration."""
    import transformers

    return getattr(transformers, _APART.get(config.model_type, "AutoModel"))


def _loaded(folder: Path, config: Any, path: str) -> Any:
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ConfigError(
            "This folder has no weights in safetensors; effrec reads no others: pickles can run code.",
            where=f"{path}.name: {folder}",
            fix=f"{path}.weights=random, or write model.safetensors by save_pretrained",
        )
    if (
        torch.get_default_device().type == "meta"
    ):  # asked for shapes alone, which transformers refuses to load
        return _drawn(config, path)
    try:
        model, notes = _built(
            _maker(config).from_pretrained,
            folder,
            path=path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        what = f"The encoder's weights cannot be read: {str(error).splitlines()[0]}"
        raise DataError(what, where=str(folder), fix="copy or fetch model.safetensors again") from error
    missing = sorted(name for name in notes["missing_keys"] if "pooler" not in name)
    if missing:
        raise DataError(
            f"The weights of this folder are not those of its config.json: {len(missing)} are missing.",
            where=f"{folder}: {missing[0]}",
            fix="copy or fetch both files again, from one place",
        )
    return model


def _built(make: Callable[..., Any], *given: Any, path: str, **named: Any) -> Any:
    """Returns what `make` makes with fused attention, or with plain one where the model has no other."""
    try:
        return make(*given, attn_implementation="sdpa", **named)
    except ValueError as error:
        if "attention" not in str(error):
            what = f"transformers cannot build this encoder: {str(error).splitlines()[0]}"
            raise ConfigError(what, where=f"{path}.name", fix="name another encoder") from error
        return make(*given, attn_implementation="eager", **named)


def has_tokenizer(folder: Path) -> bool:
    """Returns whether a folder has files of a tokenizer."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def read_tokenizer(folder: Path, path: str = PATH) -> Any:
    """Returns the tokenizer of a folder.

    Raises:
        ConfigError: it has none that transformers can read.
    """
    from transformers import AutoTokenizer

    try:
        if not has_tokenizer(folder):
            raise OSError(f"none of {', '.join(_TOKENIZERS)} is there")
        with _quiet():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"The tokenizer of this folder cannot be read: {str(error).splitlines()[0]}",
            where=f"{path}.name: {folder}",
            fix=f"copy tokenizer.json there; random weights may take {path}.tokenizer=dataset",
        ) from error


def splitter(tokenizer: Any, most: int, pad: int) -> Split:
    """Returns what splits texts into at most `most` tokens, the tokenizer's special ones among them.

    A text of which the tokenizer makes nothing is one token, `pad`.
    """

    def split(texts: Any) -> list[list[int]]:
        found = tokenizer(
            list(texts),
            truncation=True,
            max_length=most,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [tokens or [pad] for tokens in found["input_ids"]]

    return split


def identity(tokenizer: Any, most: int) -> str:
    """Returns a digest that changes whenever `splitter` would make other tokens of some text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        inner = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    else:
        inner = {"vocabulary": tokenizer.get_vocab(), "settings": repr(tokenizer)}
    if (side := getattr(tokenizer, "truncation_side", "right")) != "right":
        inner["cut"] = side  # of long texts; named where it is not the usual one, so that older digests stay
    said = json.dumps([type(tokenizer).__name__, inner, most], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the lines and bars of the packages below, whose faults become errors of ours."""
    from huggingface_hub import utils as of_hub
    from transformers.utils import logging as of_models

    levels = of_models.get_verbosity(), of_hub.logging.get_verbosity()
    bars = of_models.is_progress_bar_enabled(), not of_hub.are_progress_bars_disabled()
    of_models.set_verbosity_error()
    of_hub.logging.set_verbosity_error()
    of_models.disable_progress_bar()
    of_hub.disable_progress_bars()
    try:
        yield
    finally:
        of_models.set_verbosity(levels[0])
        of_hub.logging.set_verbosity(levels[1])
        if bars[0]:
            of_models.enable_progress_bar()
        if bars[1]:
            of_hub.enable_progress_bars()
