"""Settings of NeuMF."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class NeuMFConfig:
    """A weighed product of vectors beside a network over them (He et al. 2017).

    Attributes:
        name: always `neumf`.
        hidden: widths of the network's hidden layers; at least one.
        category_dim: width of the vectors of categories; less where a category has fewer values.
    """

    name: str = "neumf"
    hidden: list[int] = setting([64, 32, 16], low=1)
    category_dim: int = setting(8, low=1)
