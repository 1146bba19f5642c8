"""Settings of UltraGCN."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class UltraGCNConfig:
    """Matrix factorisation whose loss stands for endless propagation (Mao et al. 2021).

    Defaults are those published for Yelp2018. The width of the vectors, the number of negatives and gamma,
    the strength of the L2 regulariser, are the method's.

    Attributes:
        name: always `ultragcn`.
        w1: weight of a positive pair.
        w2: what beta, from the degrees of user and item, adds to it.
        w3: weight of a negative pair.
        w4: what beta adds to it.
        negative_weight: of a row's negatives together, against its positive.
        item_weight: lambda, weight of the loss that draws users to the neighbours of their items.
        num_neighbors: k, of an item.
    """

    name: str = "ultragcn"
    w1: float = setting(1e-8, low=0)
    w2: float = setting(1.0, low=0)
    w3: float = setting(1e-8, low=0)
    w4: float = setting(1.0, low=0)
    negative_weight: float = setting(300.0, low=0)
    item_weight: float = setting(5e-4, low=0)
    num_neighbors: int = setting(10, low=1)
