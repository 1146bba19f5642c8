"""Training task top_n: a user and an item that were met together, against items that were not."""

from __future__ import annotations

import numpy as np
import torch

from effrec_cli.data.batches import PAD_ITEM, Batch, Share
from effrec_cli.data.known_pairs import KnownPairs
from effrec_cli.data.shuffle import draw_below, shuffled
from effrec_cli.data.types import Int64, RecData
from effrec_cli.data.windows import int64_tensors, part_of
from effrec_cli.errors import DataError

_NEGATIVES = 7
"""Tells the draws of negatives from draws for other purposes."""
_SMALLEST, _LARGEST, _STEPS = 32, 4096, 100


class PairBatches:
    """Batches of training rows, a pure function of (seed, epoch, position); implements `Batches`.

    A sample is a training row; each is met once an epoch, in an order drawn anew, and a step has at most
    `batch_size` of them. Negatives are drawn uniformly by (seed, epoch, row, place), so that neither ranks
    nor micro-batches nor the batch size change one: from the whole catalogue, or with `known` from what the
    user has not met in training, exactly uniformly; a user who has met everything gets -1 in their place.

    Args:
        data: the prepared dataset, or a sample of it.
        batch_size: samples in a step, over all ranks and micro-batches; None is `batch_size_for`.
        num_negatives: K; 0 draws none.
        seed: the run's seed.
        known: what users have met in *all* training rows, those that a sample has dropped included.
        in_batch: tell the items of the whole step, too (see `batch`).
        fresh: go over another share of the rows each epoch, round(`fresh` n) of them; None goes over all.

    Attributes:
        batch_size: samples in a step at most.
        num_samples: samples in an epoch.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        DataError: there is no training row.
    """

    def __init__(
        self,
        data: RecData,
        batch_size: int | None,
        num_negatives: int,
        seed: int,
        *,
        known: KnownPairs | None = None,
        in_batch: bool = False,
        fresh: float | None = None,
    ) -> None:
        self.num_negatives, self.seed, self.known = num_negatives, seed, known
        self.items, self.num_items = data.sequences.items, data.num_items
        self._start, end = np.asarray(data.train_start), np.asarray(data.train_end)
        self._first_row = np.concatenate([[0], np.cumsum(end - self._start)])
        self.num_rows = int(self._first_row[-1])
        if not self.num_rows:
            raise DataError(
                "There is no training row.",
                where=f"dataset {data.name}",
                fix="loosen dataset.filter, or sample more of the data",
            )
        self._weights = _weights(data)
        self._log_p = _log_shares(data) if in_batch else None
        self.num_samples = self.num_rows if fresh is None else max(1, round(fresh * self.num_rows))
        self.batch_size = batch_size or batch_size_for(self.num_samples)
        self.steps_per_epoch = -(-self.num_samples // self.batch_size)

    def batch(self, epoch: int, position: int, share: Share, step: int) -> Batch:
        """Returns one rank's micro-batch of the step at `position` of `epoch`.

        Its tensors, for the b samples of the share: `users` int64 [b]; `items` int64 [b]; `negatives` int64
        [b, K] where K is not 0; `weights` float32 [b] where rows have weights, of mean 1 over all rows. With
        `in_batch` also, for the C different items of the whole step, ascending: `candidates` int64 [C];
        `labels` int64 [b], the samples' columns; `log_times` float32 [C], of how often each stands in the
        step; `log_p` float32 [C], of its share of all training rows; and with `known` `met_rows`,
        `met_columns` int64 [m]: cells [b, C] that stand in training rows, the labels' own left out.
        """
        rows = self._rows(epoch, position)
        low, high = part_of(len(rows), share)
        mine = rows[low:high]
        users, items = self._pairs(mine)
        arrays = {"users": users, "items": items}
        if self.num_negatives:
            arrays["negatives"] = self._negatives(mine, users, epoch)
        tensors = int64_tensors(**arrays)
        if self._weights is not None:
            tensors["weights"] = torch.from_numpy(self._weights[mine])
        if self._log_p is not None:
            tensors |= self._columns(self._log_p, self._pairs(rows)[1], users, items)
        return Batch(tensors, len(mine), len(rows), step, first_target=low)

    def _rows(self, epoch: int, position: int) -> Int64:
        """Returns the numbers of the training rows of one step."""
        low, high = (self.num_samples * at // self.steps_per_epoch for at in (position, position + 1))
        return shuffled(np.arange(low, high), self.num_rows, seed=self.seed, epoch=epoch)

    def _pairs(self, rows: Int64) -> tuple[Int64, Int64]:
        """Returns users and items of training rows, int64 [n] each."""
        users = np.searchsorted(self._first_row, rows, side="right") - 1
        at = self._start[users] + rows - self._first_row[users]
        return users, self.items[at].astype(np.int64)

    def _negatives(self, rows: Int64, users: Int64, epoch: int) -> Int64:
        """Returns the rows' negatives, int64 [b, K]."""
        slots = self.num_negatives
        names = (rows[:, None] * slots + np.arange(slots)).ravel()
        owners = np.repeat(users, slots)
        bounds = np.full(len(names), self.num_items) if self.known is None else self.known.unmet(owners)
        draw = draw_below(np.maximum(bounds, 1), names, seed=self.seed, epoch=epoch, stream=(_NEGATIVES,))
        if self.known is not None:
            draw = np.where(bounds > 0, self.known.unmet_item(owners, draw), PAD_ITEM)
        return draw.reshape(-1, slots)

    def _columns(
        self, log_p: np.ndarray, of_step: Int64, users: Int64, items: Int64
    ) -> dict[str, torch.Tensor]:
        """Returns the tensors of `batch` about the step's items."""
        candidates, times = np.unique(of_step, return_counts=True)
        labels = np.searchsorted(candidates, items)
        found = int64_tensors(candidates=candidates, labels=labels)
        if self.known is not None:
            found |= int64_tensors(**_met(self.known, candidates, users, labels))
        found["log_times"] = torch.from_numpy(np.log(times).astype(np.float32))
        found["log_p"] = torch.from_numpy(log_p[candidates])
        return found


def batch_size_for(rows: int) -> int:
    """Returns a batch size for an epoch of `rows`: about a hundred steps, a power of two from 32 to 4096.

    A small sample needs small batches: what tells is the number of steps (papers/cadc section 3.2).
    """
    return int(min(_LARGEST, max(_SMALLEST, 2 ** round(np.log2(max(1, rows) / _STEPS)))))


def _met(known: KnownPairs, candidates: Int64, users: Int64, labels: Int64) -> dict[str, Int64]:
    """Returns the cells [b, C] of items that their row's user has met, but for the labels."""
    met, rows = known.items_of(users)
    columns = np.searchsorted(candidates, met)
    there = columns < len(candidates)
    there[there] = candidates[columns[there]] == met[there]
    there &= columns != labels[rows]
    return {"met_rows": rows[there], "met_columns": columns[there]}


def _log_shares(data: RecData) -> np.ndarray:
    """Returns the logarithm of each item's share of the training rows, float32 [V]; -inf for none."""
    counts = data.train_counts()
    with np.errstate(divide="ignore"):
        return np.log(counts / counts.sum()).astype(np.float32)


def _weights(data: RecData) -> np.ndarray | None:
    """Returns the training rows' weights divided by their mean, float32 [rows]; None without any."""
    weights = data.train_weights
    return None if weights is None else (weights / weights.mean(dtype=np.float64)).astype(np.float32)
