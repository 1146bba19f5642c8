"""Keep-probabilities that fall with popularity, and whose inverses are the importance weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.types import Int64
from effrec_cli.errors import ConfigError
from effrec_cli.schema.sample import SampleConfig

_HALVINGS = 200
"""Of the interval that the scale lies in: more than float64 can tell apart."""


def keep_probabilities(counts: Int64, config: SampleConfig) -> NDArray[np.float64]:
    """Returns the probability to keep a row of each item, float64 [num_items].

    pi = clip(c n^-power, 1 / max_weight, 1) for an item of n rows, with c such that `rate` of all rows is
    kept on average. It is the probability that is clipped, not the weight: a sum over the kept rows by 1 / pi
    has the sum over all rows as its mean, whatever the clip (papers/cadc section 4.2.3).

    Raises:
        ConfigError: with no weight above `max_weight` more than `rate` is kept.
    """
    floor = 1 / config.max_weight
    if config.rate < floor:
        raise ConfigError(
            f"No row may weigh more than {config.max_weight:g}, so at least {floor:.3g} of all are kept.",
            where=f"dataset.sample.rate={config.rate:g}, dataset.sample.max_weight={config.max_weight:g}",
            fix=f"dataset.sample.max_weight={round(10 / config.rate)}",
        )
    falling = np.maximum(counts, 1).astype(np.float64) ** -config.power

    def probabilities(scale: float) -> NDArray[np.float64]:
        return np.clip(scale * falling, floor, 1.0)

    wanted = config.rate * counts.sum()
    low, high = 0.0, 1 / float(falling.min(initial=1.0))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if (counts * probabilities(middle)).sum() <= wanted else (low, middle)
    return probabilities(low)
