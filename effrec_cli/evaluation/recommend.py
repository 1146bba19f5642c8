"""The best items for given users and histories."""

from __future__ import annotations

import torch
from torch import Tensor

from effrec_cli.evaluation.blocks import block_rows, rows_of
from effrec_cli.evaluation.order import best, exclude, tie_ranks
from effrec_cli.evaluation.scorer import Histories, Scorer


@torch.no_grad()
def top_k(
    scorer: Scorer, users: Tensor, histories: Histories, k: int, exclude_seen: bool = True
) -> tuple[Tensor, Tensor]:
    """Returns the best items of each user in the total order of `evaluation.order`, with their scores.

    Args:
        scorer: what ranks.
        users: int64 [B] user row numbers, -1 for a user that training never saw.
        histories: what each of them has met, oldest first.
        k: items to list for each; at least 1.
        exclude_seen: never list an item of the user's own history.

    Returns:
        items int64 [B, min(k, V)], -1 where nothing is left to list, and scores float [B, min(k, V)], -inf
        there; both on the CPU.

    Raises:
        NonFiniteError: a score is NaN.
    """
    rows = block_rows(scorer.num_items, scorer.device)
    ranks = tie_ranks(scorer.num_items, scorer.device)
    items, scores = [], []
    for first in range(0, len(users), rows):
        part = _slice(histories, first, min(first + rows, len(users))).to(scorer.device)
        block = scorer.score(users[first : first + rows].to(scorer.device), part)
        if exclude_seen:
            block = exclude(block, rows_of(part), part.items)
        listed, values = best(block, k, ranks)
        items.append(listed.cpu())
        scores.append(values.cpu())
    return torch.cat(items), torch.cat(scores)


def _slice(histories: Histories, first: int, last: int) -> Histories:
    """Returns the histories `first` to `last` (exclusive)."""
    offsets = histories.offsets[first : last + 1]
    return Histories(histories.items[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0])
