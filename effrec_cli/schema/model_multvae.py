"""Settings of MultVAE."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class MultVAEConfig:
    """A variational autoencoder of users' items with a multinomial likelihood (Liang et al. 2018).

    Attributes:
        name: always `multvae`.
        hidden: width of the layer between items and code, on either side.
        latent: width of the code z.
        dropout: share of a user's items that are not read in a step.
        anneal_cap: largest weight of the KL divergence, beta.
        anneal_steps: steps in which beta rises from 0 to 1, as far as `anneal_cap` lets it.
    """

    name: str = "multvae"
    hidden: int = setting(600, low=1, high=32768)
    latent: int = setting(200, low=1, high=32768)
    dropout: float = setting(0.5, low=0, high=0.99)
    anneal_cap: float = setting(0.2, low=0, high=1)
    anneal_steps: int = setting(200_000, low=1)
