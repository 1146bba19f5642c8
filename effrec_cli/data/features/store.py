"""Kept features: opened memory-mapped, and refused where they are others or damaged."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.cache import BadCache, open_array, read_manifest
from effrec_cli.data.features.spec import FeatureSpec, differences
from effrec_cli.errors import DataError

ROWS, SCALES, CHECKS, CONSTANT = "rows", "scales", "checks", "constant"
REBUILD = "method.cache.rebuild=true"
_CHECKED = 1 << 15
"""Rows whose check sums are looked at when features are opened, evenly spread; catalogues of up to so many
items are checked whole, which takes a fraction of a second."""


@dataclass(frozen=True)
class Features:
    """What was kept of V items' taps, T of each: C that all items have in common, and T' that differ.

    Attributes:
        rows: codes [V, T', D] of the taps that differ, lowest first.
        scales: float32 [V, T'], by which codes are multiplied; None leaves them as they are.
        constant: float32 [C, D], the taps that all items have in common.
        constant_taps: where these stand among all T.
        taps: the hidden states that the T taps are.
        dtype: what codes are: fp32, fp16, bf16, int8 or fp8.
        build: what building took: seconds, items, bytes.
        error: by tap, the largest and the mean share of an item's vector, by length, that was lost.
        versions: of the libraries that computed them to their end; nothing where that was not written down.
    """

    rows: NDArray[Any]
    scales: NDArray[np.float32] | None
    constant: NDArray[np.float32]
    constant_taps: tuple[int, ...]
    taps: tuple[int, ...]
    dtype: str
    build: dict[str, Any]
    error: dict[str, dict[str, float]]
    versions: dict[str, str] = field(default_factory=dict)


def open_features(folder: Path, spec: FeatureSpec) -> Features:
    """Returns the features of a folder, memory-mapped.

    Raises:
        DataError: they are not what `spec` says, or something of them is damaged or missing.
    """
    try:
        manifest = read_manifest(folder)
        other = list(differences(manifest["facts"], spec.facts()))
        found = None if other else _opened(folder, manifest)
    except (BadCache, KeyError, TypeError) as fault:
        raise DataError(
            "The kept features are damaged.", where=f"{folder}: {fault}", fix=_fix(folder)
        ) from fault
    if found is None:
        shown = "; ".join(other[:3]) + (f"; and {len(other) - 3} more" if len(other) > 3 else "")
        what = "The kept features were made of something else."
        raise DataError(what, where=f"{folder}: {shown}", fix=_fix(folder))
    return found


def _fix(folder: Path) -> str:
    """Returns what can be done, also by verbs that take no settings."""
    return f"{REBUILD}; for a run that is there already remove {folder}, and it is made anew"


def check_sum(codes: NDArray[Any], scales: NDArray[np.float32] | None) -> int:
    """Returns the CRC-32 of one item's codes [T', D] and scales [T']."""
    first = zlib.crc32(np.ascontiguousarray(codes).tobytes())
    return first if scales is None else zlib.crc32(np.ascontiguousarray(scales).tobytes(), first)


def _opened(folder: Path, manifest: dict[str, Any], most: int = _CHECKED) -> Features:
    arrays = {name: open_array(folder, name, size) for name, size in manifest["bytes"].items()}
    facts = manifest["facts"]
    constant_taps = tuple(manifest["constant_taps"])
    shape = (facts["num_items"], len(facts["taps"]) - len(constant_taps), facts["dim"])
    if arrays[ROWS].shape != shape or len(arrays[CHECKS]) != shape[0]:
        raise BadCache(f"{ROWS}.npy is {arrays[ROWS].shape} instead of {shape}")
    _check_rows(arrays, most)
    if zlib.crc32(np.ascontiguousarray(arrays[CONSTANT]).tobytes()) != manifest["constant_check"]:
        raise BadCache(f"{CONSTANT}.npy holds other values than were written")
    return Features(
        rows=arrays[ROWS],
        scales=arrays.get(SCALES),
        constant=arrays[CONSTANT],
        constant_taps=constant_taps,
        taps=tuple(facts["taps"]),
        dtype=facts["dtype"],
        build=manifest["build"],
        error=manifest["error"],
        versions=manifest.get("versions", {}),
    )


def _check_rows(arrays: dict[str, NDArray[Any]], most: int) -> None:
    """Raises BadCache where a row is not what was written; looks at `most` rows, evenly spread."""
    rows, checks, scales = arrays[ROWS], arrays[CHECKS], arrays.get(SCALES)
    count = min(most, len(rows))
    for item in (np.arange(count) * len(rows) // count).tolist():
        if check_sum(rows[item], None if scales is None else scales[item]) != checks[item]:
            raise BadCache(f"{ROWS}.npy holds other values for item {item} than were written")
