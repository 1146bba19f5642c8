"""How well probabilities foretell yes and no: pooled AUC, its interval over users, accuracy, log loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_DRAWS = 500


def auc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Returns how often a positive scores above a negative, a tie counting half; all pairs are pooled.

    Counted in whole numbers, so that neither the order of the rows nor who held them changes a bit.

    Args:
        scores: [N], finite.
        labels: [N]; 1 for a positive, else 0.

    Raises:
        ValueError: all labels are alike, so that there is no pair.
    """
    positives, negatives = _tied(scores, labels)
    pairs = int(positives.sum()) * int(negatives.sum())
    if not pairs:
        raise ValueError("the area under the curve needs positives and negatives")
    below = np.cumsum(negatives) - negatives
    twice = sum((positives * (2 * below + negatives)).tolist())
    return float(twice / (2 * pairs))


def _tied(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns how many positives and negatives have each distinct score, ascending."""
    _, place = np.unique(scores, return_inverse=True)
    size = int(place.max(initial=-1)) + 1
    every = np.bincount(place, minlength=size)
    positives = np.bincount(place[np.asarray(labels) == 1], minlength=size)
    return positives, every - positives


def auc_interval(
    scores: NDArray[Any], labels: NDArray[Any], users: NDArray[Any], *, seed: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Returns the lower and upper end of a bootstrap interval of the pooled AUC, and its standard deviation.

    Users are drawn with replacement, each with all answers: answers of one user are not independent. Draws
    without a pair are left out.

    Args:
        scores: [N], finite.
        labels: [N]; 1 for a positive, else 0.
        users: [N], who each row is of.
        seed: of the draws; every draw has numbers of its own.
        level: share of the draws inside.

    Raises:
        ValueError: no draw has a pair.
    """
    found = _drawn_aucs(scores, np.asarray(labels), users, seed)
    if not len(found):
        raise ValueError("the area under the curve needs positives and negatives")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high, float(found.std())


def _drawn_aucs(scores: NDArray[Any], labels: NDArray[Any], users: NDArray[Any], seed: int) -> Float64:
    """Returns the AUC of each draw of users that has a pair."""
    order = np.argsort(scores, kind="stable")
    _, user = np.unique(users, return_inverse=True)
    ordered, positive = np.asarray(scores)[order], (labels[order] == 1).astype(np.float64)
    owner, num_users = user[order], int(user.max()) + 1
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_DRAWS):
        drawn = np.bincount(rng.integers(0, num_users, num_users), minlength=num_users)
        weights = drawn[owner].astype(np.float64)
        ups = np.add.reduceat(weights * positive, first)
        downs = np.add.reduceat(weights * (1 - positive), first)
        pairs = ups.sum() * downs.sum()
        if pairs:
            found.append(float((ups * (np.cumsum(downs) - downs / 2)).sum() / pairs))
    return np.array(found)


def accuracy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Returns the share of rows whose logit has the sign of its label; 0 counts as yes."""
    return float(((np.asarray(logits) >= 0) == (np.asarray(labels) == 1)).mean())


def log_loss(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Returns the mean of -ln p(label), in nats, from the logits of yes."""
    signed = np.where(np.asarray(labels) == 1, 1.0, -1.0) * np.asarray(logits, dtype=np.float64)
    return float(np.logaddexp(0.0, -signed).mean())
