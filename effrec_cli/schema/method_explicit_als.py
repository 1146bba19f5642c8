"""Settings of method explicit_als."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.factors import Serving, Solving


@dataclass
class ExplicitALSConfig(Serving, Solving):
    """Alternating least squares on ratings (Zhou et al. 2008); other settings: `Solving`, `Serving`.

    Attributes:
        name: always `explicit_als`.
    """

    name: str = "explicit_als"
