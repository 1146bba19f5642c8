"""Whether probabilities are what they say: their mean against that of the labels, in all and in groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 20


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the probabilities of yes, float64, of any finite logits."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))


def calibration(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Returns the mean probability over the mean label: above 1 too many are foretold.

    Raises:
        ValueError: no label is 1.
    """
    rate = float(np.mean(labels))
    if rate == 0:
        raise ValueError("calibration needs a label that is 1")
    return float(probabilities(logits).mean() / rate)


def expected_calibration_error(logits: NDArray[Any], labels: NDArray[Any], bins: int = BINS) -> float:
    """Returns how far the mean probability of a group is from its mean label, averaged by the groups' sizes.

    Groups hold about as many rows each, in the order of logits: with rare clicks those of equal width would
    hold nearly all rows in one. Rows that tie are never parted: r, the mean place of a tie among n rows
    counted from 0.5, puts it into group floor(bins r / n).

    Args:
        logits: [N], finite.
        labels: [N]; 1 or 0.
        bins: groups.
    """
    _, tie, sizes = np.unique(logits, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - sizes / 2
    group = np.minimum((bins * middle / len(labels)).astype(np.int64), bins - 1)[tie.reshape(-1)]
    away = probabilities(logits) - np.asarray(labels, dtype=np.float64)
    return float(np.abs(np.bincount(group, weights=away, minlength=bins)).sum() / len(labels))


def normalised_entropy(log_loss: float, rate: float) -> float:
    """Returns a log loss over that of always foretelling the base rate (He et al. 2014): below 1 is better.

    Args:
        log_loss: in nats.
        rate: mean label, above 0 and below 1.
    """
    return float(log_loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))
