"""Slates shown to users at the start of sessions, and which of their items were clicked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.catalogue import Rows
from effrec_cli.data.synthetic.draws import Float64, Purpose, generator, sigmoid
from effrec_cli.data.synthetic.histories import Block, Visitors, blocks, draw
from effrec_cli.data.synthetic.world import Int64, World

BIAS, LIKED, FOLLOWS, QUALITY, TASTE = -2.4, 1.6, 1.6, 0.8, 0.8
"""Logit of a click: constant, an interest's item, a successor, per unit of quality, taste times flavour."""


def impressions(world: World, rows: Rows) -> dict[str, NDArray[Any]]:
    """Returns the slates that got a click, n of them, user after user in time order.

    `impressions_user` int32 [n] and `impressions_candidates` int32 [n, C] are row numbers, C different ones a
    slate in random order; `impressions_time` int64 [n] Unix seconds, so that the history is what came at or
    before it; `impressions_clicks` uint8 [n, C]; `impressions_chance` float32 [n, C], the true probability
    of each click before slates without a click were left out, is for the best possible score only.
    """
    parts = [_slates(world, rows, block) for block in blocks(world)]
    return {f"impressions_{name}": np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _slates(world: World, rows: Rows, block: Block) -> dict[str, NDArray[Any]]:
    rng = generator(world.config.seed, Purpose.IMPRESSIONS, block.number)
    moments = _moments(world, rng, block)
    users = rows.of_users(block, block.owners[moments])
    moments, users = moments[users >= 0], users[users >= 0]
    candidates = _candidates(world, rng, rows, block, moments)
    chance = _chance(world, block, moments, rows.items[candidates])
    clicks = rng.random(chance.shape) < chance
    logged = clicks.any(axis=1)
    slates: dict[str, NDArray[Any]] = {
        "user": users.astype(np.int32),
        "time": block.times[moments] - 1,
        "candidates": candidates.astype(np.int32),
        "clicks": clicks.astype(np.uint8),
        "chance": chance.astype(np.float32),
    }
    return {name: values[logged] for name, values in slates.items()}


def _moments(world: World, rng: np.random.Generator, block: Block) -> Int64:
    """Returns the rows before which a slate is shown: starts of sessions after a user's first, ascending."""
    owners = block.owners
    begins = np.flatnonzero((np.diff(block.sessions) > 0) & (np.diff(owners) == 0)) + 1
    shuffled = begins[np.lexsort((rng.random(len(begins)), owners[begins]))]
    users = owners[shuffled]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    return np.sort(shuffled[place < world.config.impressions_per_user])


def _candidates(world: World, rng: np.random.Generator, rows: Rows, block: Block, moments: Int64) -> Int64:
    """Returns slates of row numbers, int64 [n, C]: half by the user's law, half by popularity."""
    width = min(world.config.slate_size, len(rows.items) // 2)
    half = width // 2
    again = np.repeat(moments, half)
    nothing = np.empty((len(again), 0), dtype=np.int32)
    visitors = Visitors(block.interests[again], block.times[again], block.items[again - 1], nothing)
    personal = draw(world, rng, visitors).reshape(len(moments), half)
    popular = world.draw(rng.random((len(moments), width - half)).ravel()).reshape(len(moments), -1)
    slates = rows.of_items(np.concatenate([personal, popular], axis=1))
    while (poor := (slates < 0) | _repeated(slates)).any():
        slates[poor] = (rng.random(np.count_nonzero(poor)) * len(rows.items)).astype(np.int64)
    return np.take_along_axis(slates, rng.random(slates.shape).argsort(axis=1), axis=1)


def _repeated(slates: Int64) -> NDArray[np.bool_]:
    """Returns which candidates stand in their slate already."""
    order = slates.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(slates, order, axis=1)
    found = np.zeros(slates.shape, dtype=bool)
    np.put_along_axis(found, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return found


def _chance(world: World, block: Block, moments: Int64, items: NDArray[Any]) -> Float64:
    """Returns the probability of a click on each candidate, [n, C] (docs/simulator.md section 6)."""
    clusters = world.clusters(items)
    liked = (clusters[:, :, None] == block.interests[moments, None]).any(axis=2)
    follows = (items[:, :, None] == world.successors[block.items[moments - 1], None]).any(axis=2)
    taste = block.traits.taste[block.owners[moments], None] * world.flavour[items]
    return sigmoid(BIAS + LIKED * liked + FOLLOWS * follows + QUALITY * world.quality[items] + TASTE * taste)
