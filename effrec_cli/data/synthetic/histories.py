"""What users pick: one item after another, never the same twice.

All users of a block walk together, one visit at a time. A visit draws from the mixture of
docs/simulator.md section 3; a draw that the user has had before, or that is not released yet, is drawn again
from the start. So the law of a pick is the mixture restricted to what is allowed, exactly. A visit whose
tries all fail is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.draws import Float32, Purpose, choose, generator, normal
from effrec_cli.data.synthetic.users import Timeline, Traits, num_blocks, timeline, traits
from effrec_cli.data.synthetic.world import FOLLOW_WEIGHTS, INTEREST_WEIGHTS, Int32, Int64, World

RETRIES = (3, 12)
"""Draws of the second and third round for those whose draws so far failed."""
_NONE = -1


@dataclass(frozen=True)
class Block:
    """A block of users and their interactions, user after user, in time order.

    Attributes:
        number: of the block.
        traits: of its users.
        offsets: int64 [users + 1].
        items: int32 [rows] items by the world's numbers.
        times: int64 [rows] Unix seconds.
        sessions: int32 [rows] session numbers inside the block.
        interests: int32 [rows, M] the latent state each item was picked in.
        left_out: visits that found no item.
    """

    number: int
    traits: Traits
    offsets: Int64
    items: Int32
    times: Int64
    sessions: Int32
    interests: Int32
    left_out: int

    @property
    def owners(self) -> Int64:
        """The user of each row, counted inside the block; int64 [rows]."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def blocks(world: World) -> Iterator[Block]:
    """Yields all blocks of users, one in memory at a time."""
    for number in range(num_blocks(world.config)):
        yield make_block(world, number)


def make_block(world: World, number: int) -> Block:
    """Returns one block of users with their interactions."""
    people = traits(world, number)
    visits = timeline(world, number, people.declared)
    items = _walk(world, number, visits)
    kept = items != _NONE
    offsets = np.concatenate([[0], np.cumsum(kept)])[visits.offsets]
    return Block(
        number,
        people,
        offsets,
        items[kept],
        visits.times[kept],
        visits.sessions[kept],
        visits.interests[kept],
        int(len(items) - offsets[-1]),
    )


@dataclass(frozen=True)
class Visitors:
    """Users who pick an item at the same step, and what bears on it.

    Attributes:
        interests: int32 [users, M].
        times: int64 [users].
        last: int32 [users] the item before, -1 for none.
        seen: int32 [users, step] all items before, and -1.
    """

    interests: Int32
    times: Int64
    last: Int32
    seen: Int32

    def some(self, which: Int64) -> Visitors:
        """Returns these visitors only, as often as they are named."""
        return Visitors(self.interests[which], self.times[which], self.last[which], self.seen[which])


def _walk(world: World, number: int, visits: Timeline) -> Int32:
    """Returns the item of every visit, -1 where none was found; int32 [rows]."""
    rng = generator(world.config.seed, Purpose.WALK, number)
    lengths = np.diff(visits.offsets)
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = visits.offsets[order], lengths[order]
    seen = np.empty((len(order), int(lengths[0])), dtype=np.int32)
    last = np.full(len(order), _NONE, dtype=np.int32)
    items = np.empty(visits.offsets[-1], dtype=np.int32)
    for step in range(int(lengths[0])):
        active = int(np.searchsorted(-lengths, -step))
        rows = starts[:active] + step
        visitors = Visitors(visits.interests[rows], visits.times[rows], last[:active], seen[:active, :step])
        picked = _pick(world, rng, visitors)
        seen[:active, step] = items[rows] = picked
        last[:active] = np.where(picked == _NONE, last[:active], picked)
    return items


def _pick(world: World, rng: np.random.Generator, visitors: Visitors) -> Int32:
    """Returns the first allowed draw of each visitor, -1 where all tries fail."""
    picked = draw(world, rng, visitors)
    for tries in RETRIES:
        again = np.flatnonzero(picked == _NONE)
        if not len(again):
            break
        drawn = draw(world, rng, visitors.some(np.repeat(again, tries))).reshape(-1, tries)
        first = (drawn != _NONE).argmax(axis=1)
        picked[again] = drawn[np.arange(len(again)), first]
    return picked


def draw(world: World, rng: np.random.Generator, visitors: Visitors) -> Int32:
    """Returns one draw of the mixture for each visitor, -1 where it is not allowed."""
    kind, place = rng.random((2, len(visitors.last)))
    follow, explore = world.config.follow, world.config.explore
    drawn = np.empty(len(kind), dtype=np.int32)
    follows = kind < follow
    before = visitors.last[follows]
    successors = world.successors[before, choose(FOLLOW_WEIGHTS, place[follows])]
    drawn[follows] = np.where(before == _NONE, _NONE, successors)
    explores = kind >= 1 - explore
    drawn[explores] = world.draw(place[explores])
    likes = ~(follows | explores)
    slot = choose(INTEREST_WEIGHTS, (kind[likes] - follow) / (1 - explore - follow))
    drawn[likes] = world.draw(place[likes], visitors.interests[likes, slot])
    drawn[~_allowed(world, visitors, drawn)] = _NONE
    return drawn


def _allowed(world: World, visitors: Visitors, items: Int32) -> NDArray[np.bool_]:
    """Returns which items are real, released and new to their visitor."""
    released = world.releases[items] <= visitors.times
    return released & (items != _NONE) & ~(visitors.seen == items[:, None]).any(axis=1)


def ratings(world: World, block: Block) -> Float32:
    """Returns the ratings of a block's rows: half stars from 0.5 to 5, float32."""
    rng = generator(world.config.seed, Purpose.RATINGS, block.number)
    liked = (world.clusters(block.items)[:, None] == block.interests).any(axis=1)
    score = 3.2 + 0.6 * world.quality[block.items] + 0.4 * block.traits.leniency[block.owners] + 0.5 * liked
    score += 0.5 * normal(rng, len(liked))
    return np.round(2 * score).clip(1, 10).astype(np.float32) / 2
