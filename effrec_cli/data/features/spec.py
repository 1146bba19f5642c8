"""What decides the features that a backbone gives, and where they are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
"""Raised when kept features of an older version can no longer be read as they are."""


@dataclass(frozen=True)
class FeatureSpec:
    """All that decides the kept features of one modality; other values are other features.

    Attributes:
        modality: `text` or `image`.
        backbone: JSON-able facts of the backbone and of what it reads: model and its digest or revision,
            tokenizer, most tokens, how images are transformed.
        pooling: how states become rows.
        taps: hidden states, ascending.
        dtype: what is kept: fp32, fp16, bf16, int8 or fp8.
        precision: what the backbone computes in.
        items: digest of the items' contents in their order.
        num_items: items V.
        dim: width D.
    """

    modality: str
    backbone: Mapping[str, Any]
    pooling: str
    taps: tuple[int, ...]
    dtype: str
    precision: str
    items: str
    num_items: int
    dim: int

    def facts(self) -> dict[str, Any]:
        """Returns all of it as JSON gives it back."""
        found: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))
        return found

    def folder(self, data_root: Path) -> Path:
        """Returns where these features are kept: other features, another folder."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()
        return data_root / "features" / f"{self.modality}-{digest[:24]}"


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yields what differs between two sets of facts, such as `taps: [0, 2] there, [0] here`."""
    for name in sorted({*found, *wanted}):
        there, here = found.get(name), wanted.get(name)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            yield from differences(there, here, f"{path}{name}.")
        elif there != here:
            yield f"{path}{name}: {_shown(there)} there, {_shown(here)} here"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
