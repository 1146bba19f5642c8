"""UltraGCN: matrix factorisation whose loss stands for endless propagation (Mao et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effrec_cli.models.bpr_mf import BPRMF


@dataclass(frozen=True)
class Constraints:
    """What the loss reads of the training rows.

    Attributes:
        user_degrees: float32 [U], sqrt(d_u + 1) / d_u; with the next, beta_ui is the product (equation 6).
        item_degrees: float32 [V], 1 / sqrt(d_i + 1).
        user_shares: float32 [U], training rows over those that each user is in.
        item_shares: likewise [V].
        neighbours: int32 [V, k], the items most like each (equation 11).
        likeness: float32 [V, k], their omega; 0 where there are fewer.
    """

    user_degrees: Tensor
    item_degrees: Tensor
    user_shares: Tensor
    item_shares: Tensor
    neighbours: Tensor
    likeness: Tensor


_NAMES = tuple(Constraints.__dataclass_fields__)


class UltraGCN(BPRMF):
    """score = <p_u, q_i>; the loss weighs pairs by degrees, and draws users to their items' neighbours.

    Args:
        users: vectors of users' ids.
        items: vectors of items' ids, as wide.
        constraints: what `loss_of_rows` reads; None where nothing trains.
        w1: weight of a positive pair.
        w2: what beta adds to it.
        w3: weight of a negative pair.
        w4: what beta adds to it.
        negative_weight: of a row's negatives together, against its positive.
        item_weight: lambda, of the neighbours.
        num_neighbors: as `constraints` has them.
    """

    user_degrees: Tensor
    item_degrees: Tensor
    user_shares: Tensor
    item_shares: Tensor
    neighbours: Tensor
    likeness: Tensor

    def __init__(
        self,
        users: Any,
        items: Any,
        constraints: Constraints | None,
        *,
        w1: float,
        w2: float,
        w3: float,
        w4: float,
        negative_weight: float,
        item_weight: float,
        num_neighbors: int,
    ) -> None:
        super().__init__(users, items)
        self.weights = (w1, w2, w3, w4)
        self.negative_weight, self.item_weight = negative_weight, item_weight
        for name in _NAMES:
            self.register_buffer(name, getattr(constraints, name, None), persistent=False)

    def loss_of_rows(self, users: Tensor, items: Tensor, negatives: Tensor, reg: float) -> Tensor:
        """Returns the loss of each row [b] (equation 13).

        Whole tables would be penalised in each step, and rows alone are read: a vector's penalty in a row is
        its share, so that over an epoch it adds up to the same for all that training rows name.

        Args:
            users: int64 [b].
            items: int64 [b], whom they met.
            negatives: int64 [b, K]; -1 is none.
            reg: gamma over the rows of a step, of whose squares a half counts.
        """
        near = self.neighbours[items]
        there = negatives >= 0
        negatives = torch.where(there, negatives, items[:, None])  # no other vector is read
        read = torch.cat([items[:, None], negatives, near], 1)
        p, q = self.user_vectors(users).float(), self.item_vectors(read).float()
        scores = torch.einsum("bd,bcd->bc", p, q)
        ours, theirs, alike = scores.split([1, negatives.shape[1], near.shape[1]], 1)
        of_user = self.user_degrees[users][:, None]
        w1, w2, w3, w4 = self.weights
        losses = (w1 + w2 * of_user * self.item_degrees[items][:, None]) * F.softplus(-ours)
        weighed = (w3 + w4 * of_user * self.item_degrees[negatives]) * there
        losses = losses + self.negative_weight * (weighed * F.softplus(theirs)).mean(1, keepdim=True)
        drawn = (self.likeness[items] * F.softplus(-alike)).sum(1)
        penalty = self.user_shares[users] * p.square().sum(1) + self.item_shares[items] * q[
            :, 0
        ].square().sum(1)
        return losses.squeeze(1) + self.item_weight * drawn + 0.5 * reg * penalty
