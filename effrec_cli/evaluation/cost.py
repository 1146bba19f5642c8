"""Measures what a run costs: time, energy, memory, parameters, operations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effrec_cli.evaluation.cost_record import Cost, Parameters
from effrec_cli.evaluation.energy import Joules, energy_counter
from effrec_cli.evaluation.held import weights_bytes
from effrec_cli.evaluation.memory import PeakMemory, peak_memory
from effrec_cli.evaluation.model_size import count_parameters, flops_per_sample
from effrec_cli.evaluation.stages import Clock, Stages

__all__ = ["Cost", "CostMeter", "Parameters", "count_parameters", "flops_per_sample"]


_BESIDE = ("data", "factorise", "sample", "build", "test", "save")
"""Stages of a run that are no part of its training."""


@dataclass
class _Kept:
    """What a meter has measured; its attributes are the state in a checkpoint."""

    seconds: float = 0.0
    validating: float = 0.0
    open_epoch: float = 0.0
    epochs: list[float] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    joules: float | None = None
    peak: int | None = None
    lost: float = 0.0


class CostMeter:
    """Accumulates one run's cost over its training, its validations and its interruptions.

    What comes before and after is measured `beside` it. The order of calls is `start`, then for each epoch
    `epoch_started`, `epoch_ended`, with `validating()` around each validation and `validated` after it, then
    `stop` and `costs`. What counts as what is said in `Cost`. On a GPU each of these waits for the device, so
    that times are true; nothing is done per step.
    Work that a killed run did after its last checkpoint is done anew by the run that goes on; its time is
    told to `lose`, its energy is known to nobody.

    Args:
        device: what is trained on.
        clock: seconds from any fixed moment.
        energy: joules used since any fixed moment; None measures no energy.
        memory: watches the peak.

    Attributes:
        stages: measures what is beside, from the moment that the meter is made.
    """

    def __init__(
        self,
        device: torch.device,
        clock: Clock = time.perf_counter,
        energy: Joules | None = None,
        memory: PeakMemory | None = None,
    ) -> None:
        self.device = device
        self.stages = Stages(device, clock)
        self._energy = energy or energy_counter(device)
        self._memory = memory or peak_memory(device)
        self._running_since: float | None = None
        self._joules_at_start = 0.0
        self._epoch_since: float | None = None
        self._trained_here = 0.0
        self._kept = _Kept(joules=0.0 if self._energy else None)

    def beside(self, what: str) -> AbstractContextManager[None]:
        """Adds the time inside to `seconds_<what>` of `Cost`, which is no part of its `seconds_total`.

        What is measured inside, another of these or the time from `start` to `stop`, counts there alone.

        Args:
            what: `data`, `build`, `factorise`, `sample`, `test` or `save`.
        """
        return self.stages.of(what)

    def start(self) -> None:
        """Starts the clocks; memory and energy used before do not count."""
        self._memory.reset()
        self._joules_at_start = self._energy() if self._energy else 0.0
        self._running_since = self._now()

    def stop(self) -> None:
        """Stops the clocks; what was measured stays."""
        ran = self._running()
        self._kept = self._so_far()
        self._running_since = self._epoch_since = None
        self._trained_here += ran
        self.stages.count(ran)

    def epoch_started(self) -> None:
        """Starts the time of an epoch, or goes on with the one that a resumed run was in."""
        self._epoch_since = self._training_now()

    def epoch_ended(self) -> None:
        """Adds the epoch's training time to those that the median is taken of."""
        self._kept.epochs.append(self._open_epoch())
        self._kept.open_epoch, self._epoch_since = 0.0, None

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Counts the time inside as validation, not as training."""
        before = self._now()
        try:
            yield
        finally:
            self._kept.validating += self._now() - before

    def validated(self, score: float) -> None:
        """Notes the validation score reached by now; higher is better."""
        self._kept.curve.append([self._training_now(), float(score)])

    def lose(self, seconds: float) -> None:
        """Counts time whose work a kill undid: in all, but neither to an epoch nor to the learning curve."""
        self._kept.lost += seconds

    def state(self) -> dict[str, Any]:
        """Returns JSON-able state to keep in a checkpoint."""
        kept = self._so_far()
        return {**asdict(kept), "joules": None if kept.joules is None else kept.joules * _ranks()}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from the `state` of an interrupted run; call it before `start`.

        With several ranks all load the state of rank 0: what each device used before is taken as an equal
        share, also where the number of ranks has changed.
        """
        joules = state["joules"]
        self._kept = _Kept(**{**state, "joules": None if joules is None else joules / _ranks()})

    def costs(
        self,
        model: nn.Module,
        *,
        training_rows: int,
        model_path: Path | None = None,
        flops_per_sample: float | None = None,
        seconds_cache: float | None = None,
        cache_id: str | None = None,
        factor_bytes: int | None = None,
        weights_most: int = 0,
        gradient_bytes: int | None = None,
        optimizer_bytes: int | None = None,
    ) -> Cost:
        """Returns what the run cost so far.

        Where ranks have joined, every rank must call it: joules are summed and memory's maximum is taken.

        Args:
            model: whose parameters are counted.
            training_rows: interactions that training used.
            model_path: the saved model's file.
            flops_per_sample: as `flops_per_sample` counted them.
            seconds_cache: as `Cost` says; the method knows.
            cache_id: likewise.
            factor_bytes: likewise.
            weights_most: the most that weights took, where that is more than `model` takes now.
            gradient_bytes: as `Cost` says; None without a loop.
            optimizer_bytes: likewise.
        """
        kept = self._so_far()
        joules, peak = _over_ranks(kept.joules, kept.peak)
        return Cost(
            seconds_total=kept.seconds + kept.lost,
            seconds_per_epoch=statistics.median(kept.epochs[1:] or kept.epochs) if kept.epochs else None,
            seconds_to_95=seconds_to_share(kept.curve, 0.95),
            joules=joules,
            peak_memory_bytes=peak,
            memory_kind=self._memory.kind,
            parameters=count_parameters(model),
            model_bytes=model_path.stat().st_size if model_path else None,
            training_rows=training_rows,
            flops_per_sample=flops_per_sample,
            seconds_validation=kept.validating,
            epochs=len(kept.epochs),
            first_epoch_counted=len(kept.epochs) == 1,
            seconds_lost=kept.lost,
            seconds_cache=seconds_cache,
            cache_id=cache_id,
            factor_bytes=factor_bytes,
            weights_bytes=max(weights_most, weights_bytes(model)),
            gradient_bytes=gradient_bytes,
            optimizer_bytes=optimizer_bytes,
            seconds_wall=self.stages.whole - self._trained_here + kept.seconds + kept.lost,
            **{f"seconds_{what}": self.stages.seconds.get(what) for what in _BESIDE},
        )

    def _now(self) -> float:
        return self.stages.now()

    def _running(self) -> float:
        """Returns the seconds of the stretch that is running."""
        return 0.0 if self._running_since is None else self._now() - self._running_since

    def _training_now(self) -> float:
        """Returns the training seconds of the whole run up to now."""
        return self._kept.seconds + self._running() - self._kept.validating

    def _open_epoch(self) -> float:
        running = 0.0 if self._epoch_since is None else self._training_now() - self._epoch_since
        return self._kept.open_epoch + running

    def _so_far(self) -> _Kept:
        """Returns what was kept and what the running stretch adds."""
        kept = self._kept
        if self._running_since is None:
            return kept
        joules = self._energy() - self._joules_at_start if self._energy else None
        return _Kept(
            seconds=kept.seconds + self._running(),
            validating=kept.validating,
            open_epoch=self._open_epoch(),
            epochs=list(kept.epochs),
            curve=list(kept.curve),
            joules=_both(kept.joules, joules),
            peak=_larger(kept.peak, self._memory.peak_bytes()),
            lost=kept.lost,
        )


def seconds_to_share(curve: list[list[float]], share: float) -> float | None:
    """Returns when a learning curve first reached `share` of its best score, or None for an empty curve.

    Args:
        curve: pairs of (training seconds, score), in order of time.
        share: such as 0.95; below a best score that is negative, the same distance is allowed.
    """
    if not curve:
        return None
    best = max(score for _, score in curve)
    enough = best - (1 - share) * abs(best)
    return next(seconds for seconds, score in curve if score >= enough)


def _ranks() -> int:
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if joined else 1


def _over_ranks(joules: float | None, peak: int | None) -> tuple[float | None, int | None]:
    """Returns the sum of the ranks' joules and the largest of their peaks; None if any rank has none."""
    if _ranks() == 1:
        return joules, peak
    gathered: list[Any] = [None] * _ranks()
    torch.distributed.all_gather_object(gathered, (joules, peak))
    energies, peaks = zip(*gathered, strict=True)
    return (
        None if None in energies else sum(energies),
        None if None in peaks else max(peaks),
    )


def _both(kept: float | None, added: float | None) -> float | None:
    return None if kept is None or added is None else kept + added


def _larger(kept: int | None, now: int | None) -> int | None:
    return now if kept is None else max(kept, now or 0)
