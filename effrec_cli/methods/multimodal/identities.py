"""What a backbone's hidden states depend on beside the contents, told without its weights in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effrec_cli.data import words
from effrec_cli.data.cache import hash_file
from effrec_cli.data.digests import digest_of
from effrec_cli.data.features.digests import tokens_digest
from effrec_cli.methods.content import networks, pretrained
from effrec_cli.methods.content.pixels import pixels_of

SEED = 20240403
"""Of random weights, the same in every run."""
Identify = Callable[[], dict[str, Any]]


def small_identity(wanted: networks.Wanted, modality: str) -> Identify:
    """Returns what makes the identity of a built-in backbone."""
    settings, contents = wanted.settings, wanted.contents
    shape = {"layers": settings.num_layers, "dim": settings.dim, "heads": settings.num_heads}

    def identify() -> dict[str, Any]:
        said: dict[str, Any] = {"model": "built-in", **shape, "weights": f"random {SEED}"}
        if modality == "image":
            size = [] if contents.images is None else list(contents.images.shape[1:3])
            return {**said, "image": {"size": size}}
        ready = None if settings.tokenizer == "own" else contents.tokens
        tokens = f"words {words.VERSION}" if ready is None else tokens_digest(ready)
        return {**said, "tokenizer": tokens, "max_tokens": settings.max_tokens}

    return identify


def hub_identity(
    wanted: networks.Wanted, modality: str, folder: Path, config: Any, eos: int | None
) -> Identify:
    """Returns what makes the identity of a named backbone: digests of its files, and how it reads items."""

    def identify() -> dict[str, Any]:
        said = {"model": _digest(folder / "config.json", wanted.cache), "weights": f"random {SEED}"}
        if wanted.settings.pretrained:
            said["weights"] = _weights(folder, wanted.cache)
        if modality == "image":
            return {**said, "image": pixels_of(folder, config).facts()}
        return {**said, **_text(wanted, folder, config), "eos": eos}

    return identify


def _text(wanted: networks.Wanted, folder: Path, config: Any) -> dict[str, Any]:
    most = networks.most_tokens(wanted.settings, config, wanted.path)
    ready = wanted.contents.tokens
    if ready is not None and networks.ready_tokens(wanted.settings, wanted.contents, folder):
        tokens = tokens_digest(ready)
    else:
        tokens = pretrained.identity(pretrained.read_tokenizer(folder, wanted.path), most)
    filled = networks.filled_places(config, wanted.backbone)
    return {"tokenizer": tokens, "max_tokens": most, "filled": filled}


def _weights(folder: Path, data_root: Path | None) -> str:
    """Returns a digest of all files of weights of a folder."""
    files = sorted(folder.glob("*.safetensors"))
    said = json.dumps([[file.name, _digest(file, data_root)] for file in files])
    return hashlib.sha256(said.encode()).hexdigest()


def _digest(file: Path, data_root: Path | None) -> str:
    """Returns the SHA-256 of a file; the hub's large files have it for a name, and are not read."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == 64:
        return blob.name
    return hash_file(file) if data_root is None else digest_of(file, data_root)
