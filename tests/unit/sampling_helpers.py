"""A log with heavy and light users and items, and what a sample keeps of it as raw rows."""

from functools import cache

import numpy as np
from data_helpers import prepared

from effrec_cli.schema.sample import ForgettingConfig, SampleConfig

MODES = ("uniform", "exact", "per_user", "per_item", "temporal", "user", "head", "propensity", "forgetting")
QUICK = ForgettingConfig(epochs=2, batch_size=64)


def log(users=300, items=60, seed=0):
    """Returns rows (user, item, time, rating) of users with 3 to 60 rows, times apart inside a user."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 61, users)
    owner = np.repeat(np.arange(users), sizes)
    chosen = np.minimum(rng.exponential(items / 5, len(owner)).astype(int), items - 1)
    times = 1_000_000 + rng.permutation(len(owner))
    return [
        (f"u{user}", int(item), int(time), 1.0) for user, item, time in zip(owner, chosen, times, strict=True)
    ]


@cache
def whole():
    """Returns the prepared log, made once."""
    return prepared(log())


def config(rate=0.1, mode="uniform", **more):
    return SampleConfig(rate=rate, mode=mode, forgetting=more.pop("forgetting", QUICK), **more)


def raw_rows(data):
    """Returns the training rows as a list of (raw user, raw item, time), in order."""
    sequences, found = data.sequences, []
    for user in range(data.num_users):
        for at in range(data.train_start[user], data.train_end[user]):
            time = None if sequences.times is None else int(sequences.times[at])
            found.append((str(data.users.ids[user]), str(data.items.ids[sequences.items[at]]), time))
    return found


def counts_by(data, place):
    """Returns how many training rows each raw user (place 0) or item (place 1) has."""
    found = {}
    for row in raw_rows(data):
        found[row[place]] = found.get(row[place], 0) + 1
    return found
