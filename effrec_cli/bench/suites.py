"""The suites of `effrec bench`, and what one is made of."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from effrec_cli.errors import unknown_name

if TYPE_CHECKING:
    import torch

    from effrec_cli.bench.records import Record

SUITES = {
    "ceilings": "what this machine can do at best: copying, gathering rows, matrix products",
    "loss": "losses over a large catalogue: time, memory and error, forward and backward",
    "e2e": "whole training runs on simulated data, one for each loss",
    "gram": "training a content encoder: time, encoder calls and memory of every mode of method gram",
    "iisan": "a side network beside frozen backbones and its baselines: time, memory, filling its cache",
    "cadc": "sweeps of its factorisation, whole runs on samples of the rows, steps of its networks",
    "dsl": "steps of sparse tables beside dense ones, scoring by them, whole runs at equal bytes",
    "data": "preparing and reopening a large csv (in a source tree)",
    "evaluation": "full ranking of a large catalogue (in a source tree)",
}
SCRIPTS = ("data", "evaluation")
"""Those whose work is a script under benchmarks/."""

Trial = Callable[[], dict[str, float]]
"""Does the work once and returns its figures by name."""


@dataclass(frozen=True)
class Options:
    """What a suite is asked for.

    Attributes:
        device: what to measure on.
        quick: fewer cells and repeats, to see that all works.
        minutes: start no further cell after so many.
        only: measure the cells whose names hold this text.
    """

    device: torch.device
    quick: bool = False
    minutes: float = 5.0
    only: str = ""


@dataclass(frozen=True)
class Cell:
    """One piece of work, to be done by each of several peers.

    Attributes:
        name: of the cell, unique in its suite.
        peers: who does it, each in a process of its own.
        parameters: what the work is.
        repeats: times that each peer does it, taking turns.
        timeout_s: what a peer that takes longer for one turn is stopped after.
    """

    name: str
    peers: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    repeats: int = 5
    timeout_s: float = 120.0


class Suite(Protocol):
    """A module with cells that `harness.measure` runs.

    A function `compared` is called, where there is one, with a cell's samples by peer, turn after turn, and
    returns them with figures of how peers compare.

    Attributes:
        UNITS: the unit of each figure.
    """

    UNITS: dict[str, str]

    def cells(self, options: Options) -> list[Cell]:
        """Returns the cells for a device, the most telling first."""
        ...

    def trial(self, cell: Cell, peer: str, device: torch.device) -> Trial:
        """Returns one peer's work, inputs made and warmed up."""
        ...


def check_name(name: str) -> None:
    """Raises ConfigError, with the nearest name, where there is no such suite."""
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)


def module(name: str) -> Any:
    """Returns the module of a suite that is made of cells."""
    return importlib.import_module(f"effrec_cli.bench.{name}")


def measure(name: str, options: Options, tell: Callable[[str], None]) -> Iterator[Record]:
    """Yields the records of a suite as they are measured.

    Args:
        name: of the suite.
        options: what is asked for.
        tell: shows a line to the user.
    """
    from effrec_cli.bench import harness, script

    return script.measure(name) if name in SCRIPTS else harness.measure(name, module(name), options, tell)
