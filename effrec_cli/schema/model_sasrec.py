"""Settings of SASRec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from effrec_cli.schema.fields import setting


@dataclass
class SASRecConfig:
    """A causal Transformer over item sequences (Kang and McAuley 2018).

    Attributes:
        name: always `sasrec`.
        dim: width D of item vectors and hidden states; None chooses from the number of items V, the power
            of two from sqrt(V) / 2 up, at least 32, at most 256.
        num_layers: Transformer blocks.
        num_heads: attention heads; must divide `dim`.
        max_length: positions L that the model sees.
        dropout: on embeddings and on what attention and feed-forward add; with `norm: sasrec` also on
            attention weights and between the feed-forward's layers, as in the reference.
        norm: `pre` or `post` LayerNorm, or `sasrec` (queries normed, residual adds the normed query: the
            reference's).
        ffn_ratio: width of the feed-forward layer over `dim`.
        activation: `relu` or `gelu`.
        init_std: standard deviation of the item and position vectors; None is Xavier-normal, the paper's.
        scale_embedding: multiply item vectors by sqrt(D) at the input.
        attention_bias: whether queries, keys, values and outputs of attention have one.
        input_norm: a LayerNorm over item vectors plus positions, before dropout.
        packed: whether windows go through the layers without their padding, which changes what it costs and
            not what is computed: `true`, `false`, or `auto` for where it is faster: on a CPU without
            `run.compile`, and on a GPU in 16 bits where torch's attention for it has all that is needed (no
            dropout on attention weights). result.json says what it came to.
    """

    name: str = "sasrec"
    dim: int | None = setting(None, low=1)
    num_layers: int = setting(2, low=1)
    num_heads: int = setting(2, low=1)
    max_length: int = setting(100, low=1)
    dropout: float = setting(0.3, low=0, high=0.99)
    norm: str = setting("post", choices=("pre", "post", "sasrec"))
    ffn_ratio: float = setting(4.0, above=0)
    activation: str = setting("gelu", choices=("relu", "gelu"))
    init_std: float | None = setting(0.02, above=0)
    scale_embedding: bool = False
    attention_bias: bool = True
    input_norm: bool = False
    packed: Literal["auto", True, False] = "auto"
