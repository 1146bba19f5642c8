"""MultVAE: users' items, told from a normally distributed code of them (Liang et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.sparse.tables import IdTable
from effrec_cli.models.sparse.whole import whole

BIAS_SD = 0.001
"""Standard deviation of biases at first."""

Make = Callable[[int, int, float], IdTable]
"""Makes a table of so many rows, so wide, and with such a standard deviation of its numbers at first."""


class MultVAE(nn.Module):
    """logits = MLP(z), z ~ N(mu, sigma^2), both made of the items that a user has met (sections 2.1 to 2.3).

    All four matrices are tables that may be sparse, biases are dense: [V, hidden] and [2 latent, hidden] of
    the encoder, [hidden, latent] and [V, hidden] of the decoder.

    Args:
        num_items: V.
        make: what makes the tables, whose numbers deviate by sqrt(2 / (in + out)) at first.
        hidden: width of both hidden layers.
        latent: of z.
        dropout: share of a user's items that a step does not read.
        anneal_cap: largest weight of the KL divergence.
        anneal_steps: steps in which it would rise from 0 to 1.
    """

    tasks: ClassVar[tuple[str, ...]] = ("top_n",)

    def __init__(
        self,
        num_items: int,
        make: Make,
        *,
        hidden: int,
        latent: int,
        dropout: float,
        anneal_cap: float,
        anneal_steps: int,
    ) -> None:
        super().__init__()
        self.dropout, self.anneal_cap, self.anneal_steps = dropout, anneal_cap, anneal_steps
        shapes = (num_items, hidden), (2 * latent, hidden), (hidden, latent), (num_items, hidden)
        tables = [make(*shape, (2 / sum(shape)) ** 0.5) for shape in shapes]
        self.read, self.encoder, self.decoder, self.items = tables
        self.read_bias, self.encoder_bias = _bias(hidden), _bias(2 * latent)
        self.decoder_bias, self.items_bias = _bias(hidden), _bias(num_items)

    def loss_of_users(
        self, items: Tensor, offsets: Tensor, step: int, weights: Tensor | None = None
    ) -> Tensor:
        """Returns -log likelihood + beta KL of each user, float32 [b] (equations 3 and 7).

        Args:
            items: int64 [n], different ones of each user, user after user.
            offsets: int64 [b + 1], where each user's begin.
            step: optimizer steps so far, by which beta is min(anneal_cap, step / anneal_steps).
            weights: float32 [n] that items count by in the likelihood; None counts all alike.
        """
        shares = F.dropout(shares_of(offsets, len(items)), self.dropout, self.training)
        bags = F.embedding_bag(
            items, whole(self.read), offsets, mode="sum", per_sample_weights=shares, include_last_offset=True
        )
        mean, log_variance = self.code(bags)
        noise = torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else 0.0
        logits = F.linear(self.decoded(mean + noise), whole(self.items), self.items_bias)
        owners = torch.repeat_interleave(offsets.diff(), output_size=len(items))
        told = F.log_softmax(logits.float(), dim=1)[owners, items]
        told = told if weights is None else told * weights
        likelihood = told.new_zeros(len(offsets) - 1).index_add_(0, owners, told)
        beta = min(self.anneal_cap, step / self.anneal_steps)
        mean, log_variance = mean.float(), log_variance.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return beta * divergence - likelihood

    def code(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and logarithm of the variance of z, each [b, latent], of read items [b, hidden]."""
        hidden = torch.tanh(bags + self.read_bias)
        mean, log_variance = F.linear(hidden, whole(self.encoder), self.encoder_bias).chunk(2, 1)
        return mean, log_variance

    def decoded(self, code: Tensor) -> Tensor:
        """Returns what is set against the items, [b, hidden], of z [b, latent]."""
        return torch.tanh(F.linear(code, whole(self.decoder), self.decoder_bias))


def shares_of(offsets: Tensor, total: int) -> Tensor:
    """Returns 1 / sqrt(items of the user) for each of all users' items, float32 [total]: rows of norm 1."""
    sizes = offsets.diff()
    return sizes.clamp(min=1).float().rsqrt().repeat_interleave(sizes, output_size=total)


def _bias(width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(width) * BIAS_SD)
