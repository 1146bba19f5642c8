"""Texts to tokens, once: what a tokenizer made of a catalogue is kept on the disk and found again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.atomic import locked, new_folder
from effrec_cli.data.cache import BadCache, open_array, read_manifest, write_arrays, write_manifest
from effrec_cli.data.tokens import TokenTable, table_of
from effrec_cli.errors import EnvironmentFault

Split = Callable[[Sequence[str]], list[list[int]]]
Say = Callable[[str], None]
_BLOCK = 4096


def tokenised(
    texts: NDArray[Any],
    split: Split,
    *,
    identity: str,
    num_words: int,
    pad: int,
    folder: Path | None,
    say: Say,
) -> TokenTable:
    """Returns the tokens of all texts, from the folder where they were kept by an earlier call.

    Args:
        texts: strings [V].
        split: texts to their tokens, special ones among them.
        identity: tells `split` from all others that would give other tokens.
        num_words: words of its vocabulary.
        pad: the token that fills up.
        folder: where tokens are kept, each in a folder named by what it was made of; None keeps nothing, and
            one that cannot be written costs splitting again.
        say: receives a line when texts are split.
    """
    if folder is None:
        return _split(texts, split, num_words, pad)
    kept = folder / f"tokens-{_digest(texts, f'{identity} {num_words} {pad}')}"
    try:
        return _open(kept)
    except BadCache:
        say(f"Splitting {len(texts):,} texts into tokens, once.")
    try:
        with locked(kept.with_suffix(".lock"), say, "splitting the same texts"):
            return _open_or_write(kept, lambda: _split(texts, split, num_words, pad))
    except EnvironmentFault as fault:
        say(f"The tokens are not kept. {fault.what}")
        return _split(texts, split, num_words, pad)


def _open_or_write(folder: Path, make: Callable[[], TokenTable]) -> TokenTable:
    """Returns what another process has written in the meantime, or makes and writes it."""
    try:
        return _open(folder)
    except BadCache:
        _write(folder, make())
        return _open(folder)


def _split(texts: NDArray[Any], split: Split, num_words: int, pad: int) -> TokenTable:
    rows = [np.array(tokens, np.int32) for block in _blocks(texts) for tokens in split(block.tolist())]
    return table_of(rows, num_words, pad)


def _write(folder: Path, table: TokenTable) -> None:
    with new_folder(folder) as made:
        arrays = write_arrays(made, {"tokens": table.tokens, "offsets": table.offsets})
        write_manifest(made, {"arrays": arrays, "num_words": table.num_words, "pad": table.pad})


def _open(folder: Path) -> TokenTable:
    """Returns the tokens of a folder; raises BadCache where they are not all there."""
    manifest = read_manifest(folder)
    tokens, offsets = (
        open_array(folder, name, manifest["arrays"][name]["bytes"]) for name in ("tokens", "offsets")
    )
    return TokenTable(tokens, offsets, manifest["num_words"], manifest["pad"])


def _digest(texts: NDArray[Any], identity: str) -> str:
    """Returns what tells texts and how they are split from all others."""
    digest = hashlib.sha256(identity.encode())
    for block in _blocks(texts):
        for text in block.tolist():
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:24]


def _blocks(texts: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for first in range(0, len(texts), _BLOCK):
        yield texts[first : first + _BLOCK]
