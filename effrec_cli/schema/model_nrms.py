"""Settings of NRMS."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class NRMSConfig:
    """A user as the clicked news, weighed by attention (Wu et al. 2019; papers/gram section 2).

    The vectors of items come from the method; d is their width.

    Attributes:
        name: always `nrms`.
        num_heads: heads of self-attention; published: 16.
        head_dim: width of a head; None is d / `num_heads`, rounded up; published: 48.
        query_dim: width in which additive attention compares with its query.
        max_length: most recent clicks H that a user is made of.
        dropout: on item vectors at the input and on what self-attention gives; published: 0.
    """

    name: str = "nrms"
    num_heads: int = setting(4, low=1)
    head_dim: int | None = setting(None, low=1)
    query_dim: int = setting(200, low=1)
    max_length: int = setting(50, low=1)
    dropout: float = setting(0.1, low=0, high=0.99)
