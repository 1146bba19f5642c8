"""How well impressions are ordered: AUC, reciprocal rank and nDCG within each, averaged over them.

Ties: every metric is its expected value over all orders of the candidates that tie. So no metric depends on
the order in which candidates were shown, and a model that scores all alike gets what chance gets. A clicked
one among m candidates of one score, with a higher ones, stands at each of the places a + 1 to a + m equally
often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effrec_cli.errors import DataError, NonFiniteError
from effrec_cli.evaluation.metrics import ONE

if TYPE_CHECKING:
    from effrec_cli.distributed import World

METRICS = ("auc", "mrr", "ndcg@5", "ndcg@10")
COLD = "_cold"
"""Ends the name of a metric over the impressions alone of which a clicked item is cold."""

TIE_RULE = "expected over all orders of tied candidates"


class ImpressionSums:
    """Running sums of the metrics over impressions, of all and of those with a cold click.

    Args:
        device: where scores are.
    """

    def __init__(self, device: torch.device) -> None:
        # One row for all and one for cold clicks; the last column counts impressions.
        self._sums = torch.zeros(2, len(METRICS) + 1, dtype=torch.int64, device=device)

    def add(self, scores: Tensor, clicks: Tensor, sizes: Tensor, cold: Tensor) -> None:
        """Adds some impressions, candidates one impression after the other; all tensors on the device.

        Args:
            scores: float [n].
            clicks: [n], 1 where clicked, else 0.
            sizes: int64 [B], candidates of each impression; those with all or no clicks are passed by.
            cold: bool [B], whether an impression has a clicked item that is cold.

        Raises:
            NonFiniteError: a score is NaN.
        """
        if bool(scores.isnan().any()):
            raise NonFiniteError("A score of a candidate is NaN.", where="evaluation of impressions")
        values, mixed = per_impression(scores, clicks, sizes)
        units = (values * ONE).round().long()
        counted = torch.cat([units, torch.ones_like(units[:, :1])], dim=1)
        self._sums[0] += counted[mixed].sum(0)
        self._sums[1] += counted[mixed & cold].sum(0)

    def reduce(self, world: World) -> None:
        """Joins the sums of all ranks."""
        world.sum_([self._sums])

    def means(self) -> dict[str, float]:
        """Returns every metric by its key; those of cold clicks where there are any.

        Raises:
            DataError: no impression had both a click and a non-click.
        """
        every, cold = self._sums.tolist()
        if not every[-1]:
            raise DataError("There is no impression to evaluate: none has both a click and a non-click.")
        return _means(every, "") | (_means(cold, COLD) if cold[-1] else {})


def per_impression(scores: Tensor, clicks: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each impression's metrics, and which of them have any.

    Args:
        scores: float [n], candidates one impression after the other.
        clicks: [n], 1 where clicked, else 0.
        sizes: int64 [B], candidates of each impression.

    Returns:
        float64 [B, 4] in the order of `METRICS`, 0 where there is none, and bool [B], false for impressions
        with all or no clicks. MRR is the mean of 1 / place over the clicked ones, nDCG's gain is 1 for each.
    """
    owners = torch.arange(len(sizes), device=scores.device).repeat_interleave(sizes)
    order = scores.argsort(descending=True, stable=True)
    order = order[owners[order].argsort(stable=True)]
    above, alike = _places(scores[order], owners, sizes)
    picked = clicks[order].double()
    number = _sum(picked, owners, sizes).double()
    best = number.long()
    tables = _tables(int(sizes.max()) if len(sizes) else 0, scores.device)
    mean_place = _sum(picked * (above + (alike + 1) / 2), owners, sizes)
    columns = [_auc(mean_place, number, sizes.double())]
    for name, table in tables.items():
        total = _sum(picked * (table[above + alike] - table[above]) / alike, owners, sizes)
        columns.append(total / (number if name == "mrr" else table[best]))
    mixed = (number > 0) & (number < sizes)
    return torch.stack(columns, dim=1).where(mixed[:, None], 0.0), mixed


def _means(sums: list[int], suffix: str) -> dict[str, float]:
    *totals, number = sums
    return {f"{name}{suffix}": total / ONE / number for name, total in zip(METRICS, totals, strict=True)}


def _places(scores: Tensor, owners: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns of each candidate how many of its impression score higher, and how many alike, int64 [n].

    Both arguments are ordered by impression, then by descending score.
    """
    first = torch.ones_like(owners, dtype=torch.bool)
    first[1:] = (scores[1:] != scores[:-1]) | (owners[1:] != owners[:-1])
    group = first.long().cumsum(0) - 1
    begin = first.nonzero().flatten()
    above = begin[group] - (sizes.cumsum(0) - sizes)[owners]
    return above, group.bincount()[group]


def _auc(mean_places: Tensor, number: Tensor, sizes: Tensor) -> Tensor:
    """Returns the share of (click, non-click) pairs in order, ties half (Mann and Whitney).

    Args:
        mean_places: sum over clicks of their mean place from above, counted from 1.
        number: clicks of each impression.
        sizes: candidates of each impression.
    """
    right = number * (sizes + 1) - mean_places - number * (number + 1) / 2
    return right / (number * (sizes - number))


def _tables(longest: int, device: torch.device) -> dict[str, Tensor]:
    """Returns each metric's gains summed over the first r places, float64 [longest + 1] by r."""
    place = torch.arange(1, longest + 1, dtype=torch.float64)
    gains = {"mrr": 1 / place}
    for depth in (5, 10):
        gains[f"ndcg@{depth}"] = torch.where(place <= depth, 1 / torch.log2(place + 1), 0.0)
    zero = torch.zeros(1, dtype=torch.float64)
    return {name: torch.cat([zero, gain.cumsum(0)]).to(device) for name, gain in gains.items()}


def _sum(values: Tensor, owners: Tensor, sizes: Tensor) -> Tensor:
    """Returns the sum of the values of each impression, float64 [B]."""
    return torch.zeros(len(sizes), dtype=torch.float64, device=values.device).index_add_(0, owners, values)
