"""Settings of matrix factorisation trained by gradients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class BPRMFConfig:
    """The product of a user's and an item's vector (Rendle et al. 2009); the method has their width.

    Attributes:
        name: always `bpr_mf`.
    """

    name: str = "bpr_mf"
