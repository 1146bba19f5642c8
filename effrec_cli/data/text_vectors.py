"""Vectors of items' words without an encoder: latent semantic analysis (Deerwester et al. 1990)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.contents import contents_of
from effrec_cli.data.tokens import TokenTable, table_of
from effrec_cli.data.types import RecData
from effrec_cli.data.words import NUM_WORDS, splitter
from effrec_cli.errors import DataError

_MOST_WORDS = 256
"""Of a text; more are not read."""
_OVERSAMPLING, _ITERATIONS = 10, 3


def text_vectors(data: RecData, dim: int) -> NDArray[np.float32]:
    """Returns the vectors of items' texts, float32 [V, dim or fewer]; [V, 0] for a dataset without texts.

    Words are counted as log(1 + times) times the logarithm of how rare they are, each item's counts divided
    by their length, and projected on the first `dim` right singular vectors (randomised, Halko et al. 2011;
    section 4.3). The whole is scaled to standard deviation 1; an item without words has the zero vector.

    Args:
        data: the dataset; its texts are its titles, or tokens that it brings.
        dim: most singular vectors.
    """
    table = _words(data)
    if table is None or not len(table.tokens):
        return np.zeros((data.num_items, 0), np.float32)
    counts = _weighed(table)
    dim = min(dim, *counts.shape)
    vectors = counts @ _directions(counts, dim)
    return (vectors / max(float(vectors.std()), 1e-12)).astype(np.float32)


def _words(data: RecData) -> TokenTable | None:
    """Returns the items' words as numbers, or None."""
    try:
        contents = contents_of(data)
    except DataError:
        return None
    if contents.tokens is not None:
        return contents.tokens
    if contents.texts is None:
        return None
    words = splitter(_MOST_WORDS)([str(text) for text in contents.texts.tolist()])
    return table_of([np.array(row, dtype=np.int32) for row in words], NUM_WORDS)


def _weighed(table: TokenTable) -> Any:
    """Returns the weighed counts, a scipy CSR matrix float64 [V, words], rows of length 1 or 0."""
    from scipy import sparse

    items = np.repeat(np.arange(len(table)), table.lengths)
    ones = np.ones(len(items))
    times = sparse.csr_matrix((ones, (items, table.tokens)), shape=(len(table), table.num_words))
    rarity = np.log((1 + len(table)) / (1 + np.bincount(times.indices, minlength=table.num_words)))
    times.data = np.log1p(times.data) * rarity[times.indices]
    lengths = np.sqrt(times.multiply(times).sum(axis=1)).A1
    return sparse.diags(1 / np.maximum(lengths, 1e-12)) @ times


def _directions(counts: Any, dim: int) -> NDArray[np.float64]:
    """Returns about the first `dim` right singular vectors, float64 [words, dim]."""
    draw = np.random.default_rng(0).standard_normal((counts.shape[1], dim + _OVERSAMPLING))
    for _ in range(_ITERATIONS):
        draw = counts.T @ np.linalg.qr(counts @ draw)[0]
    basis = np.linalg.qr(draw)[0]
    _, _, rotation = np.linalg.svd(counts @ basis, full_matrices=False)
    found = basis @ rotation[:dim].T
    return found * np.sign(found[np.abs(found).argmax(axis=0), np.arange(dim)])
