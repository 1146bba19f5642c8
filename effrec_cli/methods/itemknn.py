"""Method itemknn: items whose users met the items of the history too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.cooccurrence import BLOCK_BYTES, cooccurrences, training_matrix
from effrec_cli.data.types import RecData
from effrec_cli.evaluation.blocks import rows_of
from effrec_cli.evaluation.order import NOTHING, best, tie_ranks
from effrec_cli.evaluation.scorer import Histories, Scorer
from effrec_cli.evaluation.votes import voters
from effrec_cli.methods.base import Footprint, Method
from effrec_cli.models.none import NoModel

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

_VOTES = 1 << 24
"""Votes cast at once: bounds the memory of scoring."""
_BYTES_PER_CELL = 20
"""Of a block of similarities: counts, scales, the sorted ones and their places."""


class ItemKNN(Method):
    """Cosine between items over the users who met them, each item's nearest few kept.

    similarity(i, j) = n_ij / (sqrt(n_i n_j) + shrink), where n_i training users met i and n_ij both. An
    item's score is the sum of its similarities to those of its neighbours that are in the history.
    """

    tasks: ClassVar[tuple[str, ...]] = ("none",)
    model: NoModel

    def build(self, data: RecData) -> nn.Module:
        """Returns the holder of the similarities, empty as yet."""
        self.model = model_for(self.task, self.config.model.name)()
        return self.model

    def fit(self, engine: Engine) -> None:
        """Computes similarities a block of items at a time and keeps the neighbours."""
        items, weights = neighbors(self.data, self.config.method.num_neighbors, self.config.method.shrink)
        state = by_voter(items, weights)
        self.load_state_dict({name: tensor.to(engine.world.device) for name, tensor in state.items()})

    def footprint(self, data: RecData) -> Footprint:
        """Returns as many neighbours as there may be, and a block of similarities while they are sought."""
        neighbours = data.num_items * min(self.config.method.num_neighbors, data.num_items - 1)
        saved = 8 * neighbours + 8 * (data.num_items + 1)
        block = min(data.num_items**2, BLOCK_BYTES // 12) * _BYTES_PER_CELL
        matrix = 2 * 12 * data.num_train
        return Footprint(neighbours, saved, matrix + max(block + 12 * neighbours, 60 * neighbours))

    def scorer(self) -> Scorer:
        """Returns what lets the history's items vote."""
        held = self.model.state_dict()
        return VoteScorer(held["offsets"], held["items"], held["weights"], self.config.method.last)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the votes as `by_voter` gives them."""
        self.model.hold(state)


def neighbors(data: RecData, num_neighbors: int, shrink: float) -> tuple[Tensor, Tensor]:
    """Returns each item's most similar others and how similar, [V, N]; -1 and -inf where there are none."""
    matrix = training_matrix(data)
    lengths = np.sqrt(np.asarray(matrix.sum(axis=0), dtype=np.float64)).ravel()
    ranks = tie_ranks(data.num_items)
    found = []
    for first, last, counts in cooccurrences(matrix):
        together = torch.from_numpy(counts)
        scale = np.multiply.outer(lengths[first:last], lengths).astype(np.float32) + np.float32(shrink)
        similarity = together / torch.from_numpy(scale)
        similarity[together == 0] = -math.inf
        similarity[torch.arange(last - first), torch.arange(first, last)] = -math.inf
        found.append(best(similarity, num_neighbors, ranks))
    return torch.cat([items for items, _ in found]), torch.cat([weights for _, weights in found])


def by_voter(neighbor: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Returns whom each item votes for: the neighbour lists [V, N] turned round, in CSR form.

    Returns:
        `offsets` int64 [V + 1]; item v votes at positions offsets[v] to offsets[v + 1] of `items` int32 and
        `weights` float32.
    """
    target, place = (neighbor != NOTHING).nonzero(as_tuple=True)
    voter = neighbor[target, place]
    order = voter.argsort(stable=True)
    counts = torch.bincount(voter, minlength=len(neighbor))
    return {
        "offsets": torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        "items": target[order].int(),
        "weights": weight[target, place][order].float(),
    }


class VoteScorer:
    """Adds up the votes of a history's items; implements `Scorer`.

    Args:
        offsets: int64 [V + 1], as `by_voter` gives them.
        items: int32; whom is voted for.
        weights: float32; how much.
        last: only so many last items of a history vote; None for all.
    """

    def __init__(self, offsets: Tensor, items: Tensor, weights: Tensor, last: int | None) -> None:
        self.offsets, self.items, self.weights, self.last = offsets, items, weights, last
        self.num_items, self.device = len(offsets) - 1, offsets.device

    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns the sums of votes, float32 [B, V]; 0 for an item that no item of the history knows."""
        voting = voters(histories, self.num_items, self.last)
        rows = rows_of(voting)
        scores = torch.zeros(len(users) * self.num_items, device=self.device)
        step = max(1, _VOTES // max(1, int((self.offsets[1:] - self.offsets[:-1]).max())))
        for row, voter in zip(rows.split(step), voting.items.split(step), strict=True):
            at, ballot = self._ballots(voter)
            scores.index_add_(0, row[ballot] * self.num_items + self.items[at], self.weights[at])
        return scores.view(len(users), self.num_items)

    def _ballots(self, voter: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the positions of all votes of these items, and whose each is."""
        start = self.offsets[voter]
        lengths = self.offsets[voter + 1] - start
        ballot = torch.repeat_interleave(lengths)
        before = lengths.cumsum(0) - lengths
        return torch.arange(len(ballot), device=voter.device) + (start - before)[ballot], ballot
