"""Method cadc on small data in memory, its steps taken by hand."""

from dataclasses import replace

import numpy as np
from pair_helpers import random_data, side_of

from effrec_cli import compose
from effrec_cli.data.batches import Share
from effrec_cli.data.types import EvalCases
from effrec_cli.methods.cadc import CADC

FITTED = ["method.factors.dim=8", "method.factors.sweeps=3", "run.device=cpu"]


def small(words):
    """Returns words with those of a small factorisation on a CPU before them, where there is one."""
    drawn = "method.embedding=rand" in words
    return [*(word for word in FITTED if not (drawn and "sweeps" in word)), *words]


def cases_of(data, before):
    """Returns a case for each user: the last item but `before`, told from those in front of it."""
    start, end = data.sequences.offsets[:-1], data.sequences.offsets[1:] - before
    return EvalCases(np.arange(data.num_users, dtype=np.int32), start, end - 1, end - 1, end)


def held_out(**settings):
    """Returns random data of which each user's last item is for the test, the one before for validation."""
    data = random_data(held=2, shortest=3, **settings)
    return replace(data, valid=cases_of(data, 1), test=cases_of(data, 0))


def method_on(data, root, *words, seed=1):
    """Returns the method about to train, and its batches."""
    rate = [] if any(word.startswith("method.sample.rate") for word in words) else ["method.sample.rate=0.5"]
    overrides = ["method=cadc", f"data_root={root}", f"seed={seed}", *rate, *small(words)]
    method = CADC(compose.compose(overrides))
    sampled = method.prepare(data)
    method.data = sampled
    method.model = method.build(sampled)
    return method, method.batches(sampled)


def stepped(method, batches, steps):
    """Moves the weights some steps; returns the optimizers."""
    optimizers = method.optimizers(method.model)
    for step in range(steps):
        epoch, position = divmod(step, batches.steps_per_epoch)
        method.loss(batches.batch(epoch, position, Share(), step)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return optimizers


def with_side(num_users=40, num_items=30, **settings):
    side = side_of(num_users, num_items)
    return held_out(num_users=num_users, num_items=num_items, side=side, **settings)
