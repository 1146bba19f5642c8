"""What models of graphs read of the training rows: who met what, how often, and which items are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from effrec_cli.data.cooccurrence import cooccurrences, training_matrix
from effrec_cli.data.types import RecData
from effrec_cli.models.lightgcn import Graph
from effrec_cli.models.ultragcn import Constraints


def graph_of(data: RecData) -> Graph:
    """Returns the graph of the training rows alone; who met twice counts once."""
    from scipy import sparse

    met = training_matrix(data)
    both = sparse.bmat([[None, met], [met.T, None]], format="csr")
    both.sort_indices()
    roots = np.sqrt(np.maximum(np.diff(both.indptr), 1))
    values = 1 / (np.repeat(roots, np.diff(both.indptr)) * roots[both.indices])
    return Graph(
        torch.from_numpy(both.indptr),
        torch.from_numpy(both.indices),
        torch.from_numpy(values.astype(np.float32)),
    )


def constraints_of(data: RecData, num_neighbors: int) -> Constraints:
    """Returns what the loss reads, of the training rows alone; who met twice counts once in degrees.

    Args:
        data: with training rows.
        num_neighbors: k; fewer where the catalogue has no more others.
    """
    met = training_matrix(data)
    of_users, of_items = np.diff(met.indptr), np.asarray(met.sum(0), dtype=np.float64).ravel()
    neighbours, likeness = _neighbours(met, min(num_neighbors, data.num_items - 1))
    rows = np.asarray(data.train_end) - np.asarray(data.train_start)
    return Constraints(
        user_degrees=_float32(np.sqrt(of_users + 1) / np.maximum(of_users, 1)),
        item_degrees=_float32(1 / np.sqrt(of_items + 1)),
        user_shares=_float32(rows.sum() / np.maximum(rows, 1)),
        item_shares=_float32(rows.sum() / np.maximum(data.train_counts(), 1)),
        neighbours=torch.from_numpy(neighbours),
        likeness=torch.from_numpy(likeness),
    )


def _float32(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32))


def _neighbours(met: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each item's `count` neighbours of largest omega, int32 [V, k], and that, float32 [V, k].

    omega_ij = G_ij / (g_i - G_ii) sqrt(g_i / g_j), with G = X'X and g the sums of its rows. A block of rows
    of G is held at a time.
    """
    sums = np.asarray(met.T @ (met @ np.ones(met.shape[1])), dtype=np.float64)
    own = np.asarray(met.sum(0), dtype=np.float64).ravel()
    scale = np.sqrt(sums) / np.maximum(sums - own, 1)
    found = [np.zeros((0, count), np.int32)], [np.zeros((0, count), np.float32)]
    for low, high, counts in cooccurrences(met):
        counts[np.arange(high - low), np.arange(low, high)] = -1  # an item is no neighbour of its own
        alike = torch.from_numpy(counts / np.sqrt(np.maximum(sums, 1)).astype(np.float32))
        best = alike.topk(count, dim=1)
        found[0].append(best.indices.numpy().astype(np.int32))
        found[1].append(best.values.numpy() * scale[low:high, None].astype(np.float32))
    return np.concatenate(found[0]), np.concatenate(found[1])
