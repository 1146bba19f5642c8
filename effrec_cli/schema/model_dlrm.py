"""Settings of DLRM."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class DLRMConfig:
    """Products of the vectors of ids, categories, flags, texts and dense attributes (Naumov et al. 2019).

    Attributes:
        name: always `dlrm`.
        dim: width of all these vectors; None is that of the vectors of ids.
        bottom: widths of the hidden layers of the network over dense attributes; at least one.
        top: widths of the hidden layers of the network over products; at least one.
    """

    name: str = "dlrm"
    dim: int | None = setting(None, low=1)
    bottom: list[int] = setting([64], low=1)
    top: list[int] = setting([64, 32], low=1)
