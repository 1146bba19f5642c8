"""The only training loop, and the primitives a method composes: backward, reduce, clip, check, step.

The loop is epochs x steps x micro-batches. Everything it does is a function of (settings, step): batches,
random seeds and learning rates need no state of their own, so a run that stops at any moment goes on as if
it had not. No step waits for the GPU; what has to be known on the host is read every `run.log_every` steps.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import torch

from effrec_cli import checkpoint as checkpoints
from effrec_cli import env
from effrec_cli.checkpoint import Checkpoint
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError, DataError, EnvironmentFault, Interrupted, NonFiniteError
from effrec_cli.evaluation.held import weights_bytes
from effrec_cli.loop import interrupt, outofmemory, replay, snapshot
from effrec_cli.loop.feeder import Feeder
from effrec_cli.loop.finite import Failure
from effrec_cli.loop.lost import lost_seconds
from effrec_cli.loop.primitives import Primitives
from effrec_cli.loop.selection import Selection
from effrec_cli.loop.totals import Totals
from effrec_cli.optim import learning_rate
from effrec_cli.precision import determinism_explained, make_deterministic
from effrec_cli.report.outlook import Outlook
from effrec_cli.report.progress import Progress
from effrec_cli.runfolder import INTERRUPTED, RUNNING, RunFolder
from effrec_cli.schema import Config
from effrec_cli.schema.protocols import monitor_of
from effrec_cli.seeds import mix, plant
from effrec_cli.tensorfile import move_to

if TYPE_CHECKING:
    from effrec_cli.evaluation.cost import CostMeter
    from effrec_cli.methods.base import Method


class Engine(Primitives):
    """Trains one method.

    Args:
        method: what to train; its model is on `world.device`.
        batches: what it is fed, or None for a method without a loop.
        optimizers: what moves the weights.
        config: the run's settings.
        folder: where rank 0 writes.
        world: the processes that share a step.
        meter: measures cost.
        validate: returns the validation metrics of the current weights; every rank calls it.
        progress: tells the user.

    Attributes:
        stopped: why the loop ended: `max_epochs`, `max_steps`, `max_minutes` or `patience`; else empty.
        selection: the best validation so far.
        totals: sums of what steps have reported since they were last logged.
        validated_step: the step whose weights were validated last, or None.
        weights_bytes: the most that parameters and buffers have taken, in the steps that were looked at.
        elapsed_before_s: seconds spent in the loop before the process started, those that were lost included.
    """

    def __init__(
        self,
        method: Method,
        batches: Batches | None,
        optimizers: list[torch.optim.Optimizer],
        config: Config,
        folder: RunFolder,
        world: World,
        meter: CostMeter,
        validate: Callable[[], dict[str, float]],
        progress: Progress,
    ) -> None:
        super().__init__(optimizers, world, config.run.precision, config.run.clip_norm)
        self.method, self.batches, self.config, self.folder = method, batches, config, folder
        self.meter, self.validate, self.progress = meter, validate, progress
        if config.run.deterministic:
            make_deterministic()
        self.selection = Selection(monitor_of(config), config.run.patience)
        self.totals = Totals(world)
        self.validated_step: int | None = None
        self.elapsed_before_s = 0.0
        self.weights_bytes = 0
        self.stopped = ""
        self._interrupts = interrupt.Interrupts()
        self._outlook: Outlook | None = None
        self._started: float | None = None
        self._saved_at = time.monotonic()
        self._late = self._stepping = False
        self._saved: tuple[int, int | None] | None = None

    # What a run asks for.

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.batches.steps_per_epoch if self.batches else 0

    @property
    def epochs(self) -> int:
        """Whole epochs done."""
        return self.steps // self.steps_per_epoch if self.steps_per_epoch else 0

    @property
    def total_steps(self) -> int:
        """Steps the run takes if nothing stops it early."""
        run = self.config.run
        steps = run.max_epochs * self.steps_per_epoch
        return steps if run.max_steps is None else min(steps, run.max_steps)

    @property
    def best_metrics(self) -> dict[str, float]:
        """The metrics of the best validation; empty before the first."""
        return self.selection.metrics

    @property
    def elapsed_s(self) -> float:
        """Seconds spent in the loop, those before an interruption included."""
        return self.elapsed_before_s + (0.0 if self._started is None else time.monotonic() - self._started)

    def look(self) -> None:
        """Measures what is held between `step` and `zero`."""
        super().look()
        self.weights_bytes = max(self.weights_bytes, weights_bytes(self.method.model))

    def restore_best(self) -> None:
        """Puts the weights of the best validation into the model; without a validation they stay."""
        if self.selection.weights is not None:
            self.method.load_state_dict(self.selection.weights)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Puts the whole state of a checkpoint back; every rank calls it.

        Raises:
            ConfigError: the checkpoint was made with settings that do not fit these.
        """
        self._cut_back(snapshot.put_back(self, checkpoint))
        self._saved = (self.steps, self.validated_step)
        minutes = self.config.run.max_minutes
        self._late = minutes is not None and self.elapsed_s >= 60 * minutes
        if self.world.is_main:
            self._say(f"resumed at step {self.steps} (epoch {self.epochs + 1})")

    def resume_latest(self) -> bool:
        """Resumes from the folder's newest sound checkpoint; without one the run starts over.

        Returns:
            whether there was one.
        """
        found = checkpoints.load(self.folder.checkpoints, self._say) if self.world.is_main else None
        self.world.wait()  # rank 0 may have set a damaged one aside
        if not self.world.is_main:
            found = checkpoints.load(self.folder.checkpoints)
        if found is not None:
            self.resume(found)
        else:
            self._cut_back(0)
        return found is not None

    def _cut_back(self, lines: int) -> None:
        """Cuts metrics.jsonl back to `lines` lines; the time that the others took stays spent."""
        lost = lost_seconds(self.folder, lines, self.elapsed_before_s) if self.world.is_main else 0.0
        lost = self.world.from_main(lost)
        self.elapsed_before_s += lost
        self.meter.lose(lost)
        if self.world.is_main:
            self.folder.cut_metrics(lines)

    # The loop.

    def loop(self) -> None:
        """Trains until a limit or patience ends it, validating and saving on the way.

        Raises:
            Interrupted: a signal came; the state is saved.
            NonFiniteError: a loss or gradient was not finite; the step is kept for a replay.
            OutOfMemoryError: with the setting that halves what a step holds.
            EnvironmentFault: the folder cannot be written; earlier checkpoints are intact.
            DataError: there is nothing to train on.
        """
        if self.batches is None or self.steps_per_epoch < 1:
            raise DataError("There is nothing to train on.", fix="loosen dataset.filter, or use more data")
        with contextlib.ExitStack() as around:
            self._interrupts = around.enter_context(interrupt.listening())
            around.enter_context(self._interrupts.deferred())
            around.enter_context(outofmemory.explained(self.method, self.world.device))
            around.enter_context(determinism_explained())
            self._get_ready()
            around.enter_context(self._measured())
            self._run(around.enter_context(self._feeder(self.batches)))
            if self._interrupts.requested:  # it came during the last save
                self._leave()

    def _run(self, feeder: Feeder) -> None:
        while True:
            self.stopped = self._limit()
            if self._validation_due():
                self._validate_and_save()
            if self.stopped:
                return
            self._train_step(feeder)
            self._after_step()

    def _train_step(self, feeder: Feeder) -> None:
        if self.steps % self.steps_per_epoch == 0:
            self.meter.epoch_started()
        optimizer = self.config.optimizer
        self.set_rates(learning_rate(self.steps, self.total_steps, optimizer) / optimizer.lr)
        micros = self.config.run.accumulate
        self._stepping = True
        if micros > 1:
            self.totals.mark()
        for micro in range(micros):
            if micro and self.world.agree([self._interrupts.requested is not None])[0]:
                self._give_up_step()
            self.last_micro_batch = micro == micros - 1
            plant(mix(self.config.seed, self.steps, self.world.rank, micro), self.world.device)
            self._learn(feeder.next())
        self.steps, self._stepping = self.steps + 1, False
        self.totals.step_done()
        if self.steps % self.steps_per_epoch == 0:
            self.meter.epoch_ended()

    def _learn(self, batch: Batch) -> None:
        """Runs one micro-batch; a rank with an empty share may only take part in the update."""
        if batch.size or self.method.joins_empty:
            self.totals.add(self.method.training_step(batch, self))
        elif self.last_micro_batch:
            self.method.update_alone(batch, self)

    def _after_step(self) -> None:
        """Looks at what may happen between two steps; all ranks decide the same."""
        run = self.config.run
        if self.world.device.type == "cpu":
            self.progress.pace.mark(self.steps)
        self.progress.step(self.steps, self._epoch_number())
        if self.steps % run.log_every == 0:
            self._log()
        self._foretell()
        late = run.max_minutes is not None and self.elapsed_s >= 60 * run.max_minutes
        flags = [late, self._interrupts.requested is not None, self._save_due()]
        self._late, told, save_due = self.world.agree(flags)
        if told:
            self._leave()
        if save_due:
            self.stopped = self._limit()
            if not self._validation_due():  # which saves, too
                self._save()

    def _save_due(self) -> bool:
        """Returns whether to save between two validations. When is up to the clock; what is saved is not."""
        run = self.config.run
        steps, minutes = run.checkpoint_every_steps, run.checkpoint_every_minutes
        by_steps = steps is not None and self.steps % steps == 0
        return by_steps or (minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes)

    def _limit(self) -> str:
        """Returns which limit is reached, or an empty string."""
        run = self.config.run
        if self.selection.exhausted:
            return "patience"
        if self.steps >= run.max_epochs * self.steps_per_epoch:
            return "max_epochs"
        if run.max_steps is not None and self.steps >= run.max_steps:
            return "max_steps"
        return "max_minutes" if self._late else ""

    def _validation_due(self) -> bool:
        """Returns whether these weights have still to be validated.

        They are every few epochs, at the end, and before the first step where the method starts trained.
        """
        if self.validated_step == self.steps:
            return False
        epochs, into = divmod(self.steps, self.steps_per_epoch)
        regular = into == 0 and epochs % self.config.run.validate_every == 0
        return bool(self.stopped) or (regular and (epochs > 0 or self.method.starts_trained))

    def _validate_and_save(self) -> None:
        if self.totals.steps:
            self._log()
        with self.progress.pace.validating():
            self.method.settle(self)
            score = self._validate()
            self.stopped = self._limit()
            self._save()
        monitor = self.selection.monitor
        self.progress.validated(monitor, score, self.best_metrics[monitor])
        self._foretell()

    def _validate(self) -> float:
        """Validates these weights and returns their score."""
        metrics = self._validation_metrics()
        try:
            score = self.selection.score(metrics)
        except ConfigError:
            self._save()  # a misspelt monitor loses nothing
            raise
        if self.selection.improves(metrics, self.steps):
            self.selection.weights = move_to(self.method.state_dict(), torch.device("cpu"))
        self.validated_step = self.steps
        self.meter.validated(score)
        self._record("valid", metrics)
        return score

    def _validation_metrics(self) -> dict[str, float]:
        self._raise_if_failed()
        self.method.model.eval()
        try:
            with (
                self._interrupts.at_once(),
                outofmemory.explained(self.method, self.world.device, validating=True),
                self.meter.validating(),
                torch.no_grad(),
            ):
                return self.world.from_main(self.validate())
        except Interrupted:
            self._leave()
        finally:
            self.method.model.train()

    # Around the loop.

    def _get_ready(self) -> None:
        model = self.method.model
        self.world.spread_(model.state_dict().values())  # other buffers are made of data, alike everywhere
        if self.config.run.compile:
            model.compile()
        model.train()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Runs the clocks and the progress line around the loop."""
        assert self.batches is not None
        self._started = self._saved_at = time.monotonic()
        samples_per_step = self.batches.num_samples / self.steps_per_epoch
        between = self.steps_per_epoch * self.config.run.validate_every
        self.progress.start(
            self.steps, self.total_steps, samples_per_step, between, due=self._validation_due()
        )
        pace, device = self.progress.pace, env.device_words(self.world.device, self.world.size)
        cycle = self.method.cycle_steps
        self._outlook = Outlook(self.config, self.steps_per_epoch, device, pace, cycle)
        self.meter.start()
        if self.steps % self.steps_per_epoch:
            self.meter.epoch_started()
        try:
            yield
        finally:
            self.progress.close()
        self.meter.stop()
        self.elapsed_before_s, self._started = self.elapsed_s, None

    def _feeder(self, batches: Batches) -> Feeder:
        return Feeder(
            batches,
            self.world.device,
            rank=self.world.rank,
            ranks=self.world.size,
            micros=self.config.run.accumulate,
            start=self.steps,
            end=self.total_steps,
        )

    def _epoch_number(self, step: int | None = None) -> int:
        """Returns the epoch that the last step, or step number `step`, belongs to; both count from 1.

        Before the first step it is 0.
        """
        return -(-(self.steps if step is None else step) // self.steps_per_epoch)

    def _log(self) -> None:
        """Records the mean loss since the last time; here the host waits for the device."""
        self._raise_if_failed()
        self.progress.pace.mark(self.steps)
        means = self.totals.take()
        if "loss" in means:
            self.progress.loss(means["loss"])
        self._record("train", {"lr": self._groups[0][0]["lr"] if self._groups else 0.0, **means})

    def _foretell(self) -> None:
        """Says once how long training takes, as soon as enough is measured."""
        words = self._outlook.words(self.elapsed_s) if self.world.is_main and self._outlook else None
        if words:
            self._say(words)

    def note(self, kind: str, values: dict[str, float]) -> None:
        """Records what a method has found out about its training, as a line of metrics.jsonl.

        Within a step that is after it, as all else is recorded.
        """
        self._record(kind, values, self.steps + self._stepping)

    def _record(self, kind: str, values: dict[str, float], step: int | None = None) -> None:
        if self.world.is_main:
            step = self.steps if step is None else step
            place = {"kind": kind, "step": step, "epoch": self._epoch_number(step)}
            self.folder.append_metrics({**place, **values, "elapsed_s": round(self.elapsed_s, 3)})

    def _save(self) -> None:
        """Saves a checkpoint, unless this very state is saved already."""
        if self._saved == (self.steps, self.validated_step):
            return
        self._raise_if_failed()
        state = snapshot.take(self)
        if self.world.is_main:
            self.folder.sync_metrics()
            checkpoints.save(self.folder.checkpoints, state)
            self.folder.status(RUNNING, step=self.steps)
        self._saved, self._saved_at = (self.steps, self.validated_step), time.monotonic()

    def _leave(self) -> NoReturn:
        """Saves and ends the run for now."""
        self._save()
        self._interrupts.requested = self._interrupts.requested or "a signal to another rank"
        if self.world.is_main:
            self.folder.status(INTERRUPTED, step=self.steps, reason=self._interrupts.requested)
            self._say(f"stopped by {self._interrupts.requested} at step {self.steps}; saved")
        raise Interrupted(
            f"Stopped by {self._interrupts.requested} at step {self.steps}; everything is saved.",
            fix=f"effrec resume {self.folder.path}",
        )

    def _give_up_step(self) -> NoReturn:
        """Ends the run for now between two micro-batches; the state is that before their step."""
        self._stepping = False
        self.zero()
        self.guard.forget()
        self.totals.take_back()
        self.method.drop_step()
        self._saved = None  # so that the time which the micro-batches took stays spent
        self._leave()

    def _raise_if_failed(self) -> None:
        """Waits for the device and raises NonFiniteError if its flag is set."""
        failure = self.guard.failure()
        if failure is not None:
            raise self._non_finite(failure)

    def _non_finite(self, failure: Failure) -> NonFiniteError:
        assert self.batches is not None
        shape = (self.world.size, self.config.run.accumulate)
        note = replay.describe(failure, self.batches, self.config.seed, *shape)
        kept = f"kept for a replay in {self.folder.path / replay.BATCH}"
        if self.world.is_main:
            try:
                replay.keep(self.folder.path, note, self.batches, self.method.state_dict(), *shape)
            except EnvironmentFault as fault:
                kept = f"not kept for a replay: {fault.what}"
        return NonFiniteError(
            f"The {failure.cause} is not finite at step {failure.step}.",
            where=f"epoch {note['epoch'] + 1}, position {note['position']}; its batch is {kept}",
            fix="try a lower optimizer.lr, run.clip_norm=1.0 or run.precision=fp32; the last save is intact",
        )

    def _say(self, text: str) -> None:
        self.folder.log(text)
        self.progress.say(text)
