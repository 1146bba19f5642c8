"""Settings of deep knowledge tracing."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class DKTConfig:
    """An LSTM over the vectors of answered items, with tied output (papers/gram section 2).

    Attributes:
        name: always `dkt`.
        dim: width D of the states; None is that of the item vectors, which then need no projection.
        mark_dim: width of the vectors that say how an item was answered and where in the window it stands.
        num_layers: LSTM layers.
        max_length: answers L that the model sees.
        dropout: share of what is read, and of states, dropped in training.
    """

    name: str = "dkt"
    dim: int | None = setting(None, low=1)
    mark_dim: int = setting(16, low=1)
    num_layers: int = setting(2, low=1)
    max_length: int = setting(100, low=2)
    dropout: float = setting(0.2, low=0, high=0.99)
