"""Settings of method bpr."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.factors import Ranking, Serving


@dataclass
class BPRConfig(Serving, Ranking):
    """Bayesian personalised ranking (Rendle et al. 2009); other settings: `Ranking`, `Serving`.

    Attributes:
        name: always `bpr`.
    """

    name: str = "bpr"
