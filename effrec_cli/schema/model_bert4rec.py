"""Settings of BERT4Rec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from effrec_cli.schema.fields import setting


@dataclass
class BERT4RecConfig:
    """A Transformer that sees both sides of masked items (Sun et al. 2019).

    Attributes:
        name: always `bert4rec`.
        dim: width D of item vectors and hidden states; None chooses from the number of items V, the power
            of two from sqrt(V) / 2 up, at least 32, at most 256.
        num_layers: Transformer blocks.
        num_heads: attention heads; must divide `dim`.
        max_length: positions L that the model sees, in ranking one of them the mask behind the history.
        dropout: on embeddings and on what attention and feed-forward add; with `norm: sasrec` also on
            attention weights and between the feed-forward's layers.
        norm: `pre` or `post` LayerNorm, or `sasrec` (see model sasrec).
        ffn_ratio: width of the feed-forward layer over `dim`.
        activation: `relu` or `gelu`.
        init_std: standard deviation of item, position and mask vectors; None is Xavier-normal.
        scale_embedding: multiply item and mask vectors by sqrt(D) at the input.
        packed: whether windows go through the layers without their padding: `auto`, `true` or `false` (see
            model sasrec).
        mask_ratio: share of a window's items that training masks; the paper's is 0.2 for long histories, 0.4
            and 0.6 for short ones.
        last_only: share of windows in which training masks the last item and no other, as ranking does; the
            paper's code has one such for ten others.
    """

    name: str = "bert4rec"
    dim: int | None = setting(None, low=1)
    num_layers: int = setting(2, low=1)
    num_heads: int = setting(2, low=1)
    max_length: int = setting(100, low=2)
    dropout: float = setting(0.1, low=0, high=0.99)
    norm: str = setting("pre", choices=("pre", "post", "sasrec"))
    ffn_ratio: float = setting(4.0, above=0)
    activation: str = setting("gelu", choices=("relu", "gelu"))
    init_std: float | None = setting(0.02, above=0)
    scale_embedding: bool = True
    packed: Literal["auto", True, False] = "auto"
    mask_ratio: float = setting(0.4, above=0, high=1)
    last_only: float = setting(0.1, low=0, high=1)
