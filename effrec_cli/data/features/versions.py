"""Which versions of the libraries that compute features kept them, and whether these are others."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping

_COMPUTE = ("torch", "transformers")


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that compute features in this process, by name."""
    # Only what is loaded: a built-in backbone does without transformers, whatever version is installed.
    return {name: importlib.metadata.version(name) for name in _COMPUTE if name in sys.modules}


def since(kept: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns what changed between two sets of versions, by major and minor number; nothing where none has.

    Args:
        kept: versions by library, when features were kept.
        now: the same today; a library that only one of them names is passed over.
    """
    changed = [
        f"kept by {name} {_short(kept[name])}, this is {_short(now[name])}"
        for name in kept
        if name in now and _short(kept[name]) != _short(now[name])
    ]
    return "; ".join(changed)


def _short(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])
