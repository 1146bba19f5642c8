"""Settings of the simulator."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.fields import setting


@dataclass
class SyntheticConfig(DatasetConfig):
    """The world that `data/synthetic` draws (its docs/simulator.md gives the generative model).

    Attributes:
        num_users: users.
        num_items: items.
        num_clusters: item clusters.
        interactions_per_user: mean length of a history.
        seed: draws the world and the histories; independent of the run's seed.
    """

    num_users: int = setting(2000, low=10)
    num_items: int = setting(1000, low=10)
    num_clusters: int = setting(20, low=1)
    interactions_per_user: float = setting(40.0, above=3)
    seed: int = setting(7, low=0)
