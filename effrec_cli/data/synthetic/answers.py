"""Every interaction read as a question that the user answers right or wrong, and learns from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.catalogue import Rows
from effrec_cli.data.synthetic.draws import Float64, Purpose, generator, sigmoid
from effrec_cli.data.synthetic.histories import Block, blocks
from effrec_cli.data.synthetic.world import Int64, World

SLOPE, SKILL, PRACTICE, START = 1.3, 0.8, 0.6, -0.4
"""Logit of a right answer: SLOPE * (START + SKILL * skill + PRACTICE * ln(1 + practice) - difficulty)."""


def answers(world: World, rows: Rows) -> dict[str, NDArray[Any]]:
    """Returns the n answers to questions that the data hold, user after user in time order.

    `answers_user` and `answers_item` int32 [n] are row numbers; `answers_correct` uint8 [n]; `answers_time`
    int64 [n] Unix seconds; `answers_chance` float32 [n], the true probability of a right answer, is for the
    best possible score only.
    """
    parts = [_answers(world, rows, block) for block in blocks(world)]
    return {f"answers_{name}": np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _answers(world: World, rows: Rows, block: Block) -> dict[str, NDArray[Any]]:
    rng = generator(world.config.seed, Purpose.ANSWERS, block.number)
    users, items = rows.of_users(block, block.owners), rows.of_items(block.items)
    chance = _chance(world, block)
    given: dict[str, NDArray[Any]] = {
        "user": users.astype(np.int32),
        "item": items.astype(np.int32),
        "time": block.times,
        "correct": (rng.random(len(chance)) < chance).astype(np.uint8),
        "chance": chance.astype(np.float32),
    }
    held = (users >= 0) & (items >= 0)
    return {name: values[held] for name, values in given.items()}


def _chance(world: World, block: Block) -> Float64:
    """Returns the probability that each row's question is answered right (docs/simulator.md section 7)."""
    skill = SKILL * block.traits.skill[block.owners].astype(np.float64)
    learnt = PRACTICE * np.log1p(practice(world, block))
    return sigmoid(SLOPE * (START + skill + learnt - world.difficulty[block.items]))


def practice(world: World, block: Block) -> Int64:
    """Returns how many questions of the same cluster the user has had before each row; int64 [rows]."""
    group = block.owners * world.num_clusters + world.clusters(block.items)
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    earlier = np.empty_like(order)
    earlier[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return earlier
