"""Settings of LightGCN."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class LightGCNConfig:
    """Vectors propagated over the graph of the training rows (He et al. 2020); the method has their width.

    Attributes:
        name: always `lightgcn`.
        num_layers: l, how often vectors are averaged over neighbours; the mean of all l + 1 is scored by.
    """

    name: str = "lightgcn"
    num_layers: int = setting(3, low=1)
