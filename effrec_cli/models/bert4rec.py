"""BERT4Rec: a Transformer that sees both sides of masked items and tells what they were (Sun et al. 2019)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.sasrec import SASRec


class BERT4Rec(SASRec):
    """SASRec's layers without causality, a vector for masked items, and the paper's layer before the head.

    The mask's vector is no row of the item table: neither a loss nor a ranking can meet it. Before states are
    multiplied with the item table they go through a linear layer, GELU and LayerNorm (the paper's projection;
    the LayerNorm is of its code). Items have no bias.

    Args:
        num_items: V, rows of the item table.
        init_std: that of `SASRec`, of the mask's vector too.
        settings: the others of `SASRec`.

    Attributes:
        masked: that it is fed windows with masks.
        mask_token: V, what stands for a masked item in `inputs`.
    """

    causal: ClassVar[bool] = False
    masked: ClassVar[bool] = True

    def __init__(self, num_items: int, *, init_std: float | None = 0.02, **settings: Any) -> None:
        super().__init__(num_items, init_std=init_std, **settings)
        self.mask_token = num_items
        dim = self.items.embedding_dim
        self.mask_vector = nn.Parameter(torch.empty(dim))
        self.project = nn.Linear(dim, dim)
        self.project_norm = nn.LayerNorm(dim)
        self._initialise_mask(init_std)

    def _look_up(self, items: Tensor, real: Tensor | None) -> Tensor:
        masked = items == self.mask_token
        vectors = super()._look_up(torch.where(masked, self._instead(items, masked), items), real)
        return torch.where(masked.unsqueeze(-1), self.mask_vector * self.scale, vectors)

    def _instead(self, items: Tensor, masked: Tensor) -> Tensor:
        """Returns an item, int64 scalar, to be looked up in vain where masked."""
        none = items.new_zeros(())
        if not self.items.sparse or not items.numel():
            return none
        # An item that is read anyway: any other would count as drawn.
        return items.masked_fill(masked, -1).amax().maximum(none)

    def _head(self, x: Tensor) -> Tensor:
        return self.project_norm(F.gelu(self.project(super()._head(x))))

    def _initialise_mask(self, init_std: float | None) -> None:
        """Draws what SASRec has not, in its manner."""
        std = (2 / sum(self.items.weight.shape)) ** 0.5 if init_std is None else init_std
        nn.init.normal_(self.mask_vector, std=std)
        nn.init.xavier_normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)
