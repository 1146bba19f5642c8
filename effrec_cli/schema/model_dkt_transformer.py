"""Settings of deep knowledge tracing with a Transformer."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting
from effrec_cli.schema.model_dkt import DKTConfig


@dataclass
class TransformerDKTConfig(DKTConfig):
    """A causal Transformer in the place of the LSTM.

    Attributes:
        name: always `dkt_transformer`.
        num_heads: attention heads; must divide `dim`.
        norm: `pre` or `post` LayerNorm.
        ffn_ratio: width of the feed-forward layer over `dim`.
        activation: `relu` or `gelu`.
    """

    name: str = "dkt_transformer"
    num_heads: int = setting(2, low=1)
    norm: str = setting("pre", choices=("pre", "post"))
    ffn_ratio: float = setting(4.0, above=0)
    activation: str = setting("gelu", choices=("relu", "gelu"))
