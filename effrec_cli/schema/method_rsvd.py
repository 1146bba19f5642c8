"""Settings of method rsvd."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.factors import Serving, Spectral


@dataclass
class RSVDConfig(Serving, Spectral):
    """Randomised singular value decomposition; other settings: `Spectral`, `Serving`.

    Attributes:
        name: always `rsvd`.
    """

    name: str = "rsvd"
