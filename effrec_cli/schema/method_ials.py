"""Settings of method ials."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.factors import Serving, Weighing


@dataclass
class IALSConfig(Serving, Weighing):
    """Implicit alternating least squares (Rendle et al. 2021); other settings: `Weighing`, `Serving`.

    Attributes:
        name: always `ials`.
    """

    name: str = "ials"
