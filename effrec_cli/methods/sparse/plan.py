"""When a sparse table changes its places, which rows then may, and how many of their numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from effrec_cli.errors import ConfigError
from effrec_cli.schema.method_dsl import DSLConfig


@dataclass(frozen=True)
class Policy:
    """What a mode does where the settings say nothing (papers/dsl sections 1.1 and 1.4).

    Attributes:
        drop_rate: r_0.
        final_rate: eta.
        decay: `cosine`, `linear` or `none`.
        stop: share of training after which places stay.
        update_every: epochs in which each row may change its places once.
        window: share of the steps between two updates whose gradients count; 0 is the last alone.
        signed: drop by sign (SET).
        random: grow any.
    """

    drop_rate: float
    final_rate: float
    decay: str
    stop: float
    update_every: float = 1.0
    window: float = 1.0
    signed: bool = False
    random: bool = False


POLICIES = {
    "dsl": Policy(drop_rate=0.5, final_rate=0.005, decay="cosine", stop=1.0),
    "rigl": Policy(drop_rate=0.3, final_rate=0.0, decay="cosine", stop=0.75, window=0.0),
    "set": Policy(drop_rate=0.3, final_rate=0.3, decay="none", stop=1.0, signed=True, random=True),
}


def policy_of(own: DSLConfig) -> Policy:
    """Returns the mode's policy, changed by what the settings say."""
    names = ("drop_rate", "final_rate", "decay", "stop", "update_every", "window")
    said: dict[str, Any] = {name: getattr(own, name) for name in names if getattr(own, name) is not None}
    return replace(POLICIES[own.mode], **said)


@dataclass(frozen=True)
class Plan:
    """The updates of a run, a pure function of the step.

    Attributes:
        policy: what is done.
        interval: steps between two updates.
        turns: stretches of rows that take turns.
        total: T, steps that training is taken to have.
    """

    policy: Policy
    interval: int
    turns: int
    total: int

    def share(self, step: int) -> float:
        """Returns r_t: from `drop_rate` at step 0 to `final_rate` at step T (papers/dsl 1.1, rule 3)."""
        policy, progress = self.policy, min(1.0, step / self.total)
        fall = policy.drop_rate - policy.final_rate
        if policy.decay == "cosine":
            return policy.final_rate + fall * (1 + math.cos(math.pi * progress)) / 2
        return policy.drop_rate - (fall * progress if policy.decay == "linear" else 0.0)

    def due(self, step: int) -> bool:
        """Returns whether places change after so many steps."""
        return step > 0 and step % self.interval == 0 and step <= self.policy.stop * self.total

    def turn(self, step: int) -> int:
        """Returns whose turn the interval is that holds the step that follows `step` others."""
        return (step // self.interval) % self.turns

    def watches(self, step: int) -> bool:
        """Returns whether the gradients of the step that follows `step` others count for an update."""
        into, last = step % self.interval + 1, (step // self.interval + 1) * self.interval
        if self.policy.random or not self.due(last):
            return False
        return into > self.interval - max(1, round(self.policy.window * self.interval))

    def rows_of_turn(self, rows: int, turn: int) -> tuple[int, int]:
        """Returns the stretch of a table's rows whose turn it is."""
        size = -(-rows // self.turns)
        return min(turn * size, rows), min((turn + 1) * size, rows)


def plan_of(own: DSLConfig, steps_per_epoch: int, total_steps: int, turns: int) -> Plan:
    """Returns the plan of a run.

    Args:
        own: the method's settings, of a mode that moves.
        steps_per_epoch: of the run.
        total_steps: of the run, if nothing stops it early.
        turns: as settled.

    Raises:
        ConfigError: there are more turns than steps in which each row is to have one.
    """
    policy, most = policy_of(own), most_turns(own, steps_per_epoch)
    if turns > most:
        raise ConfigError(
            f"Rows take {turns} turns within {policy.update_every:g} epochs, which have {_steps(most)}.",
            where="method.turns",
            fix=f"method.turns={most} or less, method.turns=null, a larger method.update_every, or a smaller "
            "method.batch_size",
        )
    interval = max(1, round(policy.update_every * steps_per_epoch / turns))
    total = total_steps if own.anneal_epochs is None else own.anneal_epochs * steps_per_epoch
    return Plan(policy, interval, turns, max(1, total))


def most_turns(own: DSLConfig, steps_per_epoch: int) -> int:
    """Returns the steps in which each row has a turn, at least one: a turn takes one or more of them."""
    return max(1, round(policy_of(own).update_every * steps_per_epoch))


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def turns_for(live: float, dim: int, slot_bytes: int, share: float = 1.0) -> int:
    """Returns in how few turns rows change so that gradients of one take no more than `share` of the table.

    Args:
        live: numbers that a row stores, on average.
        dim: d; a watched row takes 2 d bytes.
        slot_bytes: of a stored number with column and optimizer state.
        share: of what the whole table takes.
    """
    return max(1, math.ceil(2 * dim / (share * live * slot_bytes)))
