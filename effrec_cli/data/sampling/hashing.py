"""A 64-bit hash of what a row says, by which it is kept or not whatever file, order or block it comes in."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.shuffle import mix

UInt64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]

_ALL = 1 << 64
_EPOCH = 0x65706F6368
_USER = 0x75736572
_WHOLE = re.compile(r"-?[1-9][0-9]{0,18}|0")


def key_of(*words: int) -> np.uint64:
    """Returns one 64-bit key of some whole numbers, in their order."""
    folded = np.zeros(1, dtype=np.uint64)
    for word in words:
        folded = mix(folded ^ np.uint64(word % _ALL))
    return np.uint64(folded[0])


def id_digests(ids: NDArray[Any]) -> UInt64:
    """Returns a 64-bit digest of each raw id, uint64 [n]; each different text is digested once.

    A whole number stands for itself, also where it was read as text, so that a sample does not depend on how
    ids were read. Of other texts it is the first eight bytes of BLAKE2b over UTF-8.
    """
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64).view(np.uint64)
    words, codes = np.unique(ids.astype(np.str_), return_inverse=True)
    digests = np.fromiter(map(_text_digest, words.tolist()), np.uint64, len(words))
    return digests[codes.reshape(-1)]


def _text_digest(text: str) -> int:
    if _WHOLE.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63:
        return int(text) % _ALL
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def row_hashes(seed: int, users: UInt64, items: UInt64, times: NDArray[np.int64] | None) -> UInt64:
    """Returns a hash of each row, uint64 [n], uniform over 64 bits; rows that are alike have one hash.

    Args:
        seed: of the sample.
        users: uint64 [n], digests of raw user ids.
        items: uint64 [n], likewise.
        times: int64 [n] Unix seconds; None where there are none.
    """
    folded = mix(mix(users ^ key_of(seed)) ^ items)
    return mix(folded if times is None else folded ^ times.view(np.uint64))


def told_apart(hashes: UInt64) -> UInt64:
    """Returns the hashes with a new one for each row but the first of those that are alike, uint64 [n].

    The k-th of them gets a hash of k, so that rows without times, or twice in one second, are kept each on
    its own. Which of them is the k-th does not matter: nothing tells them apart.
    """
    ascending = np.sort(hashes)
    again = np.concatenate([[False], ascending[1:] == ascending[:-1]])
    if not again.any():
        return hashes
    order = np.argsort(hashes, kind="stable")
    place = np.arange(len(hashes))
    number = place - np.maximum.accumulate(np.where(again, 0, place))
    changed = hashes.copy()
    changed[order[again]] = mix(ascending[again] ^ mix(number[again].astype(np.uint64)))
    return changed


def user_hashes(seed: int, users: UInt64) -> UInt64:
    """Returns a hash of each user alone, uint64 [n], that tells nothing of the rows' hashes."""
    return mix(users ^ key_of(seed, _USER))


def below(hashes: UInt64, rate: float | NDArray[np.float64]) -> Bool:
    """Returns which hashes fall among the first `rate` of all 2^64, bool [n].

    Args:
        hashes: uint64 [n].
        rate: one probability for all, or float64 [n].
    """
    rates = np.asarray(rate, dtype=np.float64)
    # 2^64 itself is no uint64, and float64 has nothing between it and 2^64 - 2048.
    limit = (np.clip(rates, 0, np.nextafter(1.0, 0)) * 2.0**64).astype(np.uint64)
    return (hashes < limit) | (rates >= 1)


def kept_in_epoch(hashes: UInt64, rate: float, epoch: int, seed: int) -> Bool:
    """Returns which rows an epoch meets where each keeps another subset, bool [n].

    A pure function of its arguments; two epochs are independent draws, and nested over rates in one epoch.

    Args:
        hashes: uint64 [n], such as `training_hashes`.
        rate: probability of a row to be met.
        epoch: pass over the data.
        seed: of the draw.
    """
    return below(mix(hashes ^ key_of(seed, epoch, _EPOCH)), rate)
