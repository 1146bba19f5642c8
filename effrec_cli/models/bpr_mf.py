"""Matrix factorisation whose vectors are trained by gradients: a user's and an item's, and their product."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from effrec_cli.models.pairs import PairModel, Parts


class BPRMF(PairModel):
    """score = <p_u, q_i> (Rendle et al. 2009, section 4.3.1).

    Args:
        users: vectors of users' ids.
        items: vectors of items' ids, as wide.
    """

    has_vectors: ClassVar[bool] = True

    def __init__(self, users: Any, items: Any) -> None:
        super().__init__()
        self.users, self.items = users, items

    def user_vectors(self, users: Tensor, folded: Tensor | None = None) -> Tensor:
        """Returns users' vectors [B, d]; arguments as of `user_parts`."""
        return self.users(users, folded)

    def item_vectors(self, items: Tensor) -> Tensor:
        """Returns items' vectors [..., d] for items int64 [...]."""
        return self.items(items)

    def user_parts(self, users: Tensor, folded: Tensor | None = None) -> Parts:
        """Returns the users' vectors."""
        return (self.user_vectors(users, folded),)

    def item_parts(self, items: Tensor) -> Parts:
        """Returns the items' vectors."""
        return (self.item_vectors(items),)

    def combine(self, users: Parts, items: Parts) -> Tensor:
        """Returns the products of vectors, [B, C]."""
        return torch.einsum("bd,bcd->bc", users[0], items[0].expand(len(users[0]), -1, -1))
