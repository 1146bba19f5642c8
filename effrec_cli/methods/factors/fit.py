"""Fits a factorisation: sweeps until validation says enough, and the best sweep's vectors kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from effrec_cli.data.types import RecData
from effrec_cli.errors import NonFiniteError
from effrec_cli.methods.factors.rows import training_cells
from effrec_cli.methods.factors.tuned import Size, tuned
from effrec_cli.models.factors.kinds import MAKERS, Factors

_OF_THE_FIT = ("sweeps", "validate_every", "patience")
_READS: dict[str, tuple[str, ...]] = {
    "ials": ("reg", "unobserved_weight", "frequency_exponent", "solver", "block", "cg_steps"),
    "rsvd": ("user_exponent", "item_exponent", "power_iterations", "oversampling"),
    "bpr": ("reg", "lr", "batch_size"),
    "explicit_als": ("reg", "frequency_exponent", "solver", "block", "cg_steps"),
}
Judge = Callable[[Mapping[str, Tensor]], float]
"""Returns how well a factorisation's state does on the validation cases; higher is better."""


@dataclass
class Fitted:
    """A factorisation that was fitted.

    Attributes:
        state: `users` [U, d], `items` [V, d] and what folding in needs.
        sweeps: after which these vectors were kept.
        swept: sweeps in all.
        most: sweeps that were allowed.
        score: of these vectors on the validation cases; None where nobody judged.
        choices: settings that were left open, each with what it became and why.
    """

    state: dict[str, Tensor]
    sweeps: int
    swept: int
    most: int
    score: float | None
    choices: dict[str, str] = field(default_factory=dict)


def kind_of(settings: Any) -> str:
    """Returns which factorisation a dataclass of settings is for."""
    return str(getattr(settings, "kind", None) or settings.name)


def settled(settings: Any, size: Size) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the settings that its kind of factorisation reads, none of them open, and what was chosen.

    Args:
        settings: of `schema.factors`.
        size: of the training rows.
    """
    kind = kind_of(settings)
    values, origin = tuned(kind, size)
    names = ("dim", "chunk_mib", *_READS[kind], *(_OF_THE_FIT if "sweeps" in values else ()))
    found = {name: getattr(settings, name) for name in names}
    open_ones = {name: value for name, value in values.items() if found.get(name) is None}
    told = {name: f"{value}, {origin}" for name, value in open_ones.items() if name not in _OF_THE_FIT}
    return found | open_ones, told


def make(
    settings: Any, data: RecData, device: torch.device, seed: int
) -> tuple[Factors, dict[str, Any], dict[str, str]]:
    """Returns a factorisation of the training rows, not yet swept, its settings, and what was chosen.

    Raises:
        DataError: there are no training rows, or no ratings where they are needed.
    """
    kind = kind_of(settings)
    values, told = settled(settings, Size.of(data))
    given = {name: values[name] for name in ("dim", *_READS[kind])}
    if kind != "bpr":
        mib = values["chunk_mib"]
        given["chunk_bytes"] = None if mib is None else max(1, int(mib * 2**20))
    matrix = training_cells(data, device, ratings=kind == "explicit_als")
    made: Factors = MAKERS[kind](matrix, seed=seed, **given)
    plan = getattr(made, "plan", None)
    if values.get("solver") == "auto" and plan is not None:
        told["solver"] = f"{plan.solver} on {device.type}"
    return made, values, told


def fit(settings: Any, data: RecData, device: torch.device, seed: int, judge: Judge | None) -> Fitted:
    """Returns a factorisation of the training rows; nothing else of `data` is read here.

    Args:
        settings: of `schema.factors`.
        data: the dataset.
        device: where to work.
        seed: of what is drawn.
        judge: looks at the vectors every few sweeps; None sweeps to the end.

    Raises:
        NonFiniteError: the judge finds no number.
    """
    made, values, told = make(settings, data, device, seed)
    most = made.num_sweeps_useful or values["sweeps"]
    if judge is None or most == 1:
        for _ in range(most):
            made.sweep()
        return Fitted(made.state(), most, most, most, None, told)
    found = _Best(made, values, judge).run(most)
    told["sweeps"] = f"{found.sweeps} of {found.most}: of {found.swept} done, validation was best there"
    found.choices = told
    return found


class _Best:
    """Follows the judge's score over sweeps."""

    def __init__(self, made: Factors, values: Mapping[str, Any], judge: Judge) -> None:
        self.made, self.judge = made, judge
        self.every, self.patience = int(values["validate_every"]), values["patience"]
        self.score, self.sweeps, self.without_gain = -math.inf, 0, 0
        self.state: dict[str, Tensor] = {}

    def run(self, most: int) -> Fitted:
        """Sweeps `most` times, or until patience ends."""
        swept = 0
        while swept < most and (self.patience is None or self.without_gain < self.patience):
            self.made.sweep()
            swept += 1
            if swept % self.every == 0 or swept == most:
                self._look(swept)
        return Fitted(self.state, self.sweeps, swept, most, self.score)

    def _look(self, swept: int) -> None:
        state = self.made.state()
        score = self.judge(state)
        if not math.isfinite(score):
            raise NonFiniteError(f"The validation metric is {score} after sweep {swept}.", where="method.reg")
        if score > self.score:
            self.score, self.sweeps, self.without_gain = score, swept, 0
            self.state = {name: tensor.clone() for name, tensor in state.items()}
        else:
            self.without_gain += 1
