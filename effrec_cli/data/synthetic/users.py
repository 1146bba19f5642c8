"""The users: their traits, when they come, and how their interests drift; everything but the items they pick.

Users are drawn in blocks of `BLOCK_USERS`. A block is a function of the settings and its number alone, so
the data do not depend on how many blocks are held at once, nor on their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.draws import Float32, Purpose, exponential, generator, normal
from effrec_cli.data.synthetic.world import INTEREST_WEIGHTS, LOG_END, LOG_START, Int32, Int64, World
from effrec_cli.schema.dataset_synthetic import SyntheticConfig

BLOCK_USERS = 8192
SHORTEST = 3
_LENGTH_SPREAD = 0.8
"""Standard deviation of a history's log-length."""
_LONGEST = 10
"""Longest history, in mean lengths."""
_DECLARED = 0.5
"""Probability that an interest moves to the cluster that the user declared."""
_SESSION_GAP_S = 3600


@dataclass(frozen=True)
class Traits:
    """What users are, all [users].

    Attributes:
        declared: int64 cluster that the user said at sign-up to be curious about.
        leniency: float32 added to ratings; standard normal.
        taste: float32, -1 or 1; meets an item's flavour in clicks.
        skill: float32 at the start; standard normal.
    """

    declared: Int64
    leniency: Float32
    taste: Float32
    skill: Float32


@dataclass(frozen=True)
class Timeline:
    """When the users of a block come and what they like then; rows are visits, user after user.

    Attributes:
        offsets: int64 [users + 1].
        times: int64 [rows] Unix seconds, never falling inside a user.
        sessions: int32 [rows] number of the session inside the block.
        interests: int32 [rows, M] clusters the user likes at that moment.
    """

    offsets: Int64
    times: Int64
    sessions: Int32
    interests: Int32


def num_blocks(config: SyntheticConfig) -> int:
    """Returns the number of user blocks."""
    return -(-config.num_users // BLOCK_USERS)


def block_users(config: SyntheticConfig, block: int) -> NDArray[np.int64]:
    """Returns the users of a block."""
    first = block * BLOCK_USERS
    return np.arange(first, min(first + BLOCK_USERS, config.num_users))


def traits(world: World, block: int) -> Traits:
    """Returns the traits of the users of a block."""
    size = len(block_users(world.config, block))
    rng = generator(world.config.seed, Purpose.TRAITS, block)
    declared = world.cluster_of_weight(rng.random(size))
    taste = np.where(rng.random(size) < 0.5, -1, 1).astype(np.float32)
    return Traits(declared, normal(rng, size), taste, normal(rng, size))


def timeline(world: World, block: int, declared: Int64) -> Timeline:
    """Returns when the users of a block come, and their interests then."""
    rng = generator(world.config.seed, Purpose.TIMELINE, block)
    offsets = np.concatenate([[0], np.cumsum(_lengths(world.config, rng, len(declared)))])
    begins = rng.random(offsets[-1]) * world.config.session_length < 1.0
    begins[offsets[:-1]] = True
    sessions = np.cumsum(begins, dtype=np.int32) - 1
    times = _times(world.config, rng, offsets, begins)
    interests = _interests(world, rng, offsets, begins, declared)
    return Timeline(offsets, times, sessions, interests)


def _lengths(config: SyntheticConfig, rng: np.random.Generator, size: int) -> Int64:
    """Returns log-normal lengths from `SHORTEST` on, at most half the catalogue."""
    mean = config.interactions_per_user - SHORTEST + 0.5
    scale = np.exp(-(_LENGTH_SPREAD**2) / 2) * mean
    lengths = SHORTEST + np.exp(_LENGTH_SPREAD * normal(rng, size).astype(np.float64)) * scale
    longest = min(_LONGEST * config.interactions_per_user, config.num_items // 2)
    return lengths.clip(max=longest).astype(np.int64)


def _times(
    config: SyntheticConfig, rng: np.random.Generator, offsets: Int64, begins: NDArray[np.bool_]
) -> Int64:
    """Returns times that end shortly before the end of the log; many rows share a second."""
    size, rows = len(offsets) - 1, len(begins)
    lengths = np.diff(offsets)
    num_sessions = np.add.reduceat(begins, offsets[:-1], dtype=np.int64)
    span = LOG_END - LOG_START
    gap = (0.1 + 0.5 * rng.random(size)) * span / num_sessions
    last = LOG_END - np.minimum(exponential(rng, size) * 0.02, 0.1) * span
    inside = np.where(rng.random(rows) < config.tie_share, 0, 1 + np.floor(60 * rng.random(rows)))
    between = _SESSION_GAP_S + np.floor(np.repeat(gap, lengths) * exponential(rng, rows))
    steps = np.where(begins, between, inside).astype(np.int64)
    passed = np.cumsum(steps)
    return passed + np.repeat(last.astype(np.int64) - passed[offsets[1:] - 1], lengths)


def _interests(
    world: World, rng: np.random.Generator, offsets: Int64, begins: NDArray[np.bool_], declared: Int64
) -> Int32:
    """Returns the interests at each row: an initial draw, moved by drift at the start of sessions."""
    rows, slots = len(begins), len(INTEREST_WEIGHTS)
    first = np.zeros(rows, dtype=bool)
    first[offsets[:-1]] = True
    moved = np.where(
        begins & (rng.random(rows) < world.config.drift), (rng.random(rows) * slots).astype(np.int64), -1
    )
    goals = np.repeat(declared, np.diff(offsets))
    result = np.empty((rows, slots), dtype=np.int32)
    for slot in range(slots):
        events = np.flatnonzero(first | (moved == slot))
        drawn = world.cluster_of_weight(rng.random(len(events)))
        wanted = (rng.random(len(events)) < _DECLARED) & ~first[events]
        values = np.where(wanted, goals[events], drawn)
        latest = np.cumsum(first | (moved == slot)) - 1
        result[:, slot] = values[latest]
    return result
