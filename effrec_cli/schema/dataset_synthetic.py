"""Settings of the simulator."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.fields import setting

SIDES = ("text", "images", "features", "impressions", "answers")
"""What may lie beside the interactions."""


@dataclass
class SyntheticConfig(DatasetConfig):
    """The world that `data/synthetic` draws (docs/simulator.md gives the generative model).

    Attributes:
        num_users: users.
        num_items: items.
        num_clusters: item clusters, all of one size.
        interactions_per_user: mean length of a history.
        seed: draws the world and the histories; independent of the run's seed.
        popularity_exponent: exponent s of Zipf's law inside a cluster.
        follow: probability that the next item is a successor of the last one.
        explore: probability that it is any item, by popularity; the rest comes from the user's interests.
        drift: probability, at the start of a session, that one interest moves to another cluster.
        session_length: mean number of items in a session.
        tie_share: probability that an item shares the second of the one before it in its session.
        fresh_share: share of items that are released in the last part of the log.
        side: what to make beside interactions: text, images, features, impressions, answers.
        image_size: side of an item's square image, in pixels.
        impressions_per_user: most slates shown to one user.
        slate_size: candidates in a slate.
    """

    num_users: int = setting(2000, low=10)
    num_items: int = setting(1000, low=10)
    num_clusters: int = setting(20, low=1)
    interactions_per_user: float = setting(40.0, above=3)
    seed: int = setting(7, low=0)
    popularity_exponent: float = setting(1.0, low=0.1, high=3)
    follow: float = setting(0.45, low=0, high=1)
    explore: float = setting(0.05, above=0, high=1)
    drift: float = setting(0.15, low=0, high=1)
    session_length: float = setting(5.0, low=1)
    tie_share: float = setting(0.3, low=0, high=1)
    fresh_share: float = setting(0.1, low=0, high=0.9)
    side: list[str] = setting(list(SIDES))
    image_size: int = setting(16, low=4, high=256)
    impressions_per_user: int = setting(4, low=1)
    slate_size: int = setting(8, low=2, high=100)
