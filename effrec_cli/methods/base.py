"""The method contract: what a paper's method says about itself, and nothing the engine can own.

A run calls, in this order: `recall`, `prepare`, `build`, `batches`, `optimizers`, `fit` (which calls
`training_step` for every batch), `judge` (by its `scorer`). A method overrides what its paper changes; the
defaults are ordinary supervised training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from effrec_cli.backbone import task_for
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.deciles import ByFrequency, tally_of
from effrec_cli.evaluation.protocol import protocol_of
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.evaluation.scorer import Scorer
from effrec_cli.evaluation.stages import Stages
from effrec_cli.schema import Config
from effrec_cli.schema.protocols import asked_of

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


@dataclass(frozen=True)
class Footprint:
    """What a method without a loop will hold, by the shape of the data; the most, where it depends on more.

    Attributes:
        parameters: numbers that it fits.
        saved_bytes: of the fitted model.
        peak_bytes: at the peak of fitting, the model included.
    """

    parameters: int
    saved_bytes: int
    peak_bytes: int


class Method:
    """Base of all methods.

    Args:
        config: the whole run's settings; `config.method` is this method's dataclass.
        world: the processes that train; one on the CPU where none are named.

    Attributes:
        tasks: how models can be fed, such as `next_item`; `none` where no network trains. The run's model
            decides which of several.
        data: the dataset, after `prepare`.
        model: the module, after `build`.
    """

    tasks: ClassVar[tuple[str, ...]] = ("next_item",)
    reads_contents: ClassVar[bool] = False
    """Whether items are scored by what the dataset says of them: a run needs it, or `keepsakes`."""
    reads_weights: ClassVar[bool] = False
    """Whether training rows count by `RecData.train_weights` where there are some; a run says where not."""
    joins_empty: ClassVar[bool] = False
    """Whether a rank whose share of a step is empty runs `training_step` all the same, to work for others."""
    doing: str = "training"
    """What it is at, other than validating, in a word: said where memory runs out."""
    rehearses: bool = False
    """Whether it is only looked at: nothing is made that outlasts it, such as a cache on the disk."""
    by_frequency: ByFrequency | None = None
    """What `judge` has found of the test part by deciles of training rows; None without a full ranking."""
    data: RecData
    model: nn.Module

    def __init__(self, config: Config, world: World | None = None) -> None:
        self.config = config
        self.world = world or World()
        self.stages = Stages()

    @property
    def task(self) -> str:
        """How the run's model is fed: the first of `tasks` that it takes.

        Raises:
            ConfigError: it takes none of them.
        """
        return task_for(asked_of(self.config, self.tasks), self.config.model.name)

    def recall(self, state: dict[str, Any]) -> None:
        """Takes the `extra_state` of the run, {} where it begins, before anything else; ignored by default.

        What `prepare` or `build` choose by the device has to be chosen as the run began: its checkpoint fits
        no other model or optimizer.
        """

    def reopen(self) -> None:
        """Leaves what the run has made for good as it is, where it is opened again; called before `build`."""

    def prepare(self, data: RecData) -> RecData:
        """Returns the data to train on; a method that compresses data does so here."""
        self.data = data
        return data

    def build(self, data: RecData) -> nn.Module:
        """Returns the module to train, on the CPU, initialised from the run's seed."""
        raise TypeError(f"{type(self).__name__} does not say how to build its model")

    def batches(self, data: RecData) -> Batches:
        """Returns the training batches: a pure function of (seed, epoch, position)."""
        raise TypeError(f"{type(self).__name__} does not say how it is fed")

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Returns what moves the weights; the default is one optimizer over all dense parameters."""
        from effrec_cli.optim import make_optimizers

        return make_optimizers(model.parameters(), self.config.optimizer, self.row_sparse(model))

    def row_sparse(self, model: nn.Module) -> dict[Tensor, int]:
        """Returns the tables whose gradients hold rows alone, and about how many a step; none by default."""
        return {}

    def bytes_beside(self, model: nn.Module) -> int:
        """Returns what training holds for good beside weights, gradients and the optimizer's state."""
        return 0

    def loss(self, batch: Batch) -> Tensor:
        """Returns the batch's loss: a sum over its rows divided by `batch.total_targets`.

        Dividing by the count of the *whole* step makes micro-batches and ranks add up to one big batch.
        """
        raise TypeError(f"{type(self).__name__} has no loss")

    def training_step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs one micro-batch: forward and backward; the engine clips, checks and steps after the last.

        Returns:
            detached scalars to log; `loss` is required.
        """
        with engine.autocast():
            loss = self.loss(batch)
        engine.backward(loss)
        if engine.last_micro_batch:
            engine.update()
        return {"loss": loss.detach()}

    def update_alone(self, batch: Batch, engine: Engine) -> None:
        """Takes part in the end of a step whose last micro-batch has no sample for this rank."""
        engine.update()

    def fit(self, engine: Engine) -> None:
        """Trains; the default runs the engine's loop. Methods without a loop compute their model here."""
        engine.loop()

    @property
    def starts_trained(self) -> bool:
        """Whether the network is a good one before its first step, such as one that begins as another model.

        It is validated then, so that a run whose training helps nothing ends with the weights it began with.
        Every rank must say the same.
        """
        return False

    @property
    def same_size_for_any_data(self) -> bool:
        """Whether the model's parameters can be counted before there are data."""
        return False

    @property
    def seconds_cache(self) -> float | None:
        """Seconds that filling a cache took which training reads, whichever run did it; None without one."""
        return None

    @property
    def cache_id(self) -> str | None:
        """A name of the factorisation that `seconds_cache` was spent on; None without one."""
        return None

    @property
    def factor_bytes(self) -> int | None:
        """Bytes of that factorisation's vectors; None without one."""
        return None

    def settle_memory(self, batches: Batches) -> None:
        """Settles what depends on the memory that is free, the model being on its device.

        Called before a step is tried to see what it takes; `fit` calls it where a method needs it.
        """

    @property
    def cycle_steps(self) -> int:
        """Steps after which their cost repeats: so many tell how fast training goes."""
        return 1

    def bytes_before(self, data: RecData) -> int:
        """Returns the most bytes that `prepare` holds for a while beside the data, on the device that trains.

        Args:
            data: as `prepare` is given them; it has been called.
        """
        return 0

    def footprint(self, data: RecData) -> Footprint:
        """Returns what a method without a loop will hold; one that trains a network is tried instead."""
        raise TypeError(f"{type(self).__name__} does not say what it will hold")

    def scorer(self) -> Scorer:
        """Returns what ranks the catalogue with the current weights.

        Raises:
            ConfigError: the method, or what its model is trained for, ranks no catalogue.
        """
        method, model = self.config.method.name, self.config.model.name
        raise ConfigError(
            f"method={method} with model={model} cannot rank the catalogue: it is not trained to.",
            where=f"task {self.task}",
            fix="effrec evaluate RUN says how well it does what it is trained for",
        )

    def judge(self, part: str, limit: int | None = None) -> dict[str, float]:
        """Returns the metrics of the current weights; the default ranks the catalogue for each case.

        Args:
            part: `valid` or `test`; every rank judges its share of it, and all get the same numbers.
            limit: look at the first so many cases alone, in this process: to see what memory a block takes.
        """
        cases, world = self.data.valid if part == "valid" else self.data.test, self.world
        if limit is not None:
            cases, world = cases[:limit], World(device=world.device)
        scorer, settings = self.scorer(), self.config.evaluation
        tally = tally_of(self.data, cases, settings, scorer.device) if part == "test" else None
        found = rank_cases(scorer, self.data, cases, settings, world=world, tally=tally)
        self.by_frequency = None if tally is None else tally.by_frequency()
        return found

    def protocol(self) -> dict[str, Any]:
        """Returns the stamp of what `judge` finds: all that must be equal for two results to compare."""
        return protocol_of(self.data, self.config.evaluation)

    @property
    def training_rows(self) -> int:
        """How many rows of the data training may use; the result says it as a cost."""
        return self.data.num_train

    @property
    def ceiling(self) -> dict[str, float] | None:
        """What the best possible scores on the test cases would be, by metric, where that is known."""
        return self.data.ceiling

    def relief(self) -> list[str]:
        """Returns settings that lower the memory of a training step, best first, and what each does.

        The first parts the step into more micro-batches; it is looked at before `build`, too.
        """
        run, own = self.config.run, self.config.method
        split = f"run.accumulate={2 * run.accumulate} halves what a step holds and keeps the result"
        half = (getattr(own, "batch_size", None) or 1) // 2
        return [split, *([f"method.batch_size={half}, which changes the result"] if half else [])]

    def choices(self) -> dict[str, str]:
        """Returns settings that were left to the method, each with what it chose and why; none by default."""
        return {}

    def sparsity(self) -> dict[str, Any] | None:
        """Returns what of the model is stored, and what led there, JSON-able; None where all of it is."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the tensors that make the trained model."""
        return dict(self.model.state_dict())

    def served_state_dict(self) -> dict[str, Tensor]:
        """Returns the tensors that a finished run keeps of the model; by default those that train."""
        return self.state_dict()

    def keepsakes(self) -> dict[str, Tensor]:
        """Returns what is kept beside the weights to score with where the dataset is not; none by default.

        Every rank calls it.
        """
        return {}

    def serve(self, kept: dict[str, Tensor]) -> None:
        """Takes `keepsakes` before `build`, which then makes what scores by them; ignored by default."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the tensors of `state_dict` back; where a run is opened, those of `served_state_dict`."""
        self.model.load_state_dict(state)

    def extra_state(self) -> dict[str, Any]:
        """Returns JSON-able state beyond tensors that a resumed run needs; none by default."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes `extra_state` back."""

    def extra_tensors(self) -> dict[str, Tensor]:
        """Returns more tensors that a resumed run needs, alike on every rank; none by default."""
        return {}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes `extra_tensors` back, before `load_extra_state`."""

    def drop_step(self) -> None:
        """Undoes what micro-batches have left behind of a step that is given up, but for gradients.

        A run that is told to stop between two micro-batches saves the state before their step after it.
        """

    def settle(self, engine: Engine) -> None:
        """Applies what a step may have held back; called before each validation."""
