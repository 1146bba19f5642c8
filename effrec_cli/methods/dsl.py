"""Method dsl: sparse from the first step to serving, under a budget that is exact (papers/dsl)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from effrec_kernels import RowAdam
from torch import Tensor, nn

from effrec_cli.data.bags import UserBags
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.data.known_pairs import KnownPairs
from effrec_cli.data.pairs import PairBatches
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.evaluation.held import weights_bytes
from effrec_cli.evaluation.scorer import Scorer
from effrec_cli.methods.base import Method
from effrec_cli.methods.sparse.annealing import Annealing, narrowing_of, narrowing_tables
from effrec_cli.methods.sparse.layers import layers_chosen, layers_told, multiply_in, with_decay
from effrec_cli.methods.sparse.losses import loss_of
from effrec_cli.methods.sparse.network import make_network, slots_of, tables_in
from effrec_cli.methods.sparse.plan import most_turns, plan_of, turns_for
from effrec_cli.methods.sparse.rewiring import Rewiring
from effrec_cli.methods.sparse.scorer import live_tables, propagation_of, scorer_of, served_network
from effrec_cli.models.multvae import MultVAE
from effrec_cli.models.pairs import PairModel
from effrec_cli.models.sparse.served import ServedTable, restored
from effrec_cli.models.sparse.start import sizes_alone
from effrec_cli.optim import make_optimizer
from effrec_cli.schema import Config
from effrec_cli.schema.method_dsl import (
    BY_GRADIENT,
    MOVING,
    NUM_NEGATIVES,
    OF_USERS,
    SPARSE,
    WHOLE,
    DSLConfig,
    column_bytes,
    dim_of,
    live_of,
    storage_of,
)
from effrec_cli.schema.protocols import task_of

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

STATE_BYTES = 10
"""Of Adam for a live number: two float32 moments and an int16 age."""


class DSL(Method):
    """Trains tables of ids of which few numbers are stored, and lets these move to where they matter.

    Where the run's task is `next_item`, one is made that trains a sequence model over such a table of items
    (methods.sparse).
    """

    tasks: ClassVar[tuple[str, ...]] = ("top_n", "next_item")
    reads_weights: ClassVar[bool] = True
    model: PairModel | MultVAE
    _opened = False
    _growth_bytes_before = 0
    _rewiring: Rewiring | Annealing | None = None
    _kept_tensors: dict[str, Tensor] | None = None
    _storage_choice: str | None = None

    def __new__(cls, config: Config, world: World | None = None) -> DSL:
        """Returns the method of the run's task."""
        if cls is DSL and task_of(config) == "next_item":
            from effrec_cli.methods.sparse.next_item import NextItemDSL

            cls = NextItemDSL
        return super().__new__(cls)

    @property
    def own(self) -> DSLConfig:
        """The method's settings."""
        return cast(DSLConfig, self.config.method)

    def reopen(self) -> None:
        """Lets `load_state_dict` take tables as they were served."""
        self._opened = True

    def prepare(self, data: RecData) -> RecData:
        """Returns the data, having settled storage, negatives, the batch size and the turns."""
        prepared = super().prepare(data)
        self._settle_by_model()
        self._settle_batches(prepared)
        if self.own.mode in MOVING and self.own.turns is None:
            self.own.turns = self._turns(prepared)
        return prepared

    def _turns(self, data: RecData) -> int:
        """Returns in how few turns sums fit beside the tables, or as many as there are steps for."""
        if self.own.mode == "set" or self.config.model.name in WHOLE:  # no sums, or no larger
            return 1
        slot = 4 + column_bytes(dim_of(self.own)) + STATE_BYTES
        turns = turns_for(live_of(self.own), dim_of(self.own), slot, self._share_of_sums)
        return turns if turns == 1 else min(turns, most_turns(self.own, self.batches(data).steps_per_epoch))

    def _settle_by_model(self) -> None:
        """Settles what was left to the model."""
        own, name = self.own, self.config.model.name
        if own.num_negatives is None and name not in OF_USERS:
            own.num_negatives = NUM_NEGATIVES.get(name, 1)
        if own.storage == "auto" and own.mode in SPARSE:
            own.storage = storage_of(own, name)
            read = "whole tables" if name in WHOLE else "rows of tables"
            self._storage_choice = f"{own.storage}: {name} reads {read}"

    def _settle_batches(self, data: RecData) -> None:
        """Settles what was left to the data."""
        if self.config.model.name not in OF_USERS:
            self.own.dim = dim_of(self.own)
        self.own.batch_size = self._batches(data).batch_size

    @property
    def _share_of_sums(self) -> float:
        """How much of what tables take the sums that rank growth may take beside a step's own gradients."""
        return 1.0

    def choices(self) -> dict[str, str]:
        """Returns how tables are stored, where that was left open, and which layers stay whole."""
        told = {} if self._storage_choice is None else {"method.storage": self._storage_choice}
        return {**super().choices(), **told, **layers_chosen(self.__dict__.get("model"))}

    def build(self, data: RecData) -> nn.Module:
        """Returns the network on the CPU, drawn from the run's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.model = make_network(self.config, data, trains=not self._opened)
        unseen = torch.from_numpy(np.asarray(data.train_start) == np.asarray(data.train_end))
        for name, table in tables_in(self.model).items():
            if "users" in name and not sizes_alone():
                table.silence(unseen)
        return self.model

    def batches(self, data: RecData) -> Batches:
        """Returns training rows with negatives, or users with their items."""
        return self._batches(data)

    def _batches(self, data: RecData) -> PairBatches | UserBags:
        own = self.own
        if self.config.model.name in OF_USERS:
            return UserBags(data, own.batch_size, self.config.seed)
        assert own.num_negatives is not None
        known = self._known if own.filter_negatives else None
        return PairBatches(data, own.batch_size, own.num_negatives, self.config.seed, known=known)

    @cached_property
    def _known(self) -> KnownPairs:
        return KnownPairs(self.data.unsampled())

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Returns what moves tables, the rows that a step read or has gradients of, and what moves the rest.

        Tables of all modes move alike; where places change, the steps of each number are counted.
        """
        settings = self.config.optimizer
        weights = [table.weights for table in tables_in(model).values()]
        tables = RowAdam(
            weights,
            settings.lr,
            (settings.betas[0], settings.betas[1]),
            settings.eps,
            settings.weight_decay,
            decoupled=settings.name == "adamw",
            slot_steps=self.own.mode in MOVING,
        )
        of_tables = set(weights)
        rest = [each for each in model.parameters() if each not in of_tables]
        return [tables, *([make_optimizer(rest, settings)] if rest else [])]

    def row_sparse(self, model: nn.Module) -> dict[Tensor, int]:
        """Returns the tables of which a step reads rows, and how many at most."""
        if self.config.model.name in WHOLE:
            return {}
        batch = -(-(self.own.batch_size or 1) // self.config.run.accumulate // self.world.size)
        read = {"users": batch, "items": batch * (1 + (self.own.num_negatives or 0))}
        return {
            table.weights: slots_of(table, read["users" if "users" in name else "items"])
            for name, table in tables_in(model).items()
        }

    def bytes_beside(self, model: nn.Module) -> int:
        """Returns what the sums take that rank growth."""
        if self.own.mode not in BY_GRADIENT:
            return 0
        turns = self.own.turns or 1
        return sum(-(-each.shape.rows // turns) * each.shape.dim * 2 for each in tables_in(model).values())

    def fit(self, engine: Engine) -> None:
        """Trains, and changes places on the way."""
        if self.own.mode in MOVING:
            assert self.own.turns is not None
            plan = plan_of(self.own, engine.steps_per_epoch, engine.total_steps, self.own.turns)
            self._rewiring = Rewiring(
                tables_in(self.model),
                engine.optimizers,
                plan,
                regrow=self.own.regrow,
                redistribute=self.own.redistribute,
                seed=self.config.seed,
                world=self.world,
            )
            self._rewiring.load_tensors(self._kept_tensors or {}, engine.steps)
        elif self.own.mode == "topk_anneal":
            narrowing = narrowing_of(self.own, engine.steps_per_epoch, engine.total_steps)
            tables = narrowing_tables(tables_in(self.model))
            self._rewiring = Annealing(tables, engine.optimizers, narrowing)
        if self._rewiring is not None:
            self._rewiring.told = self._told
        super().fit(engine)

    def training_step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Runs one micro-batch; after a step's last, places change where it is time."""
        scale = self._watch(engine)
        found = super().training_step(batch, engine)
        if engine.last_micro_batch:
            self._after_step(batch, engine, scale)
        return found

    def update_alone(self, batch: Batch, engine: Engine) -> None:
        """Takes part in an update, and changes places as the ranks do that have samples."""
        scale = self._watch(engine)
        engine.update()
        self._after_step(batch, engine, scale)

    def _watch(self, engine: Engine) -> Tensor | None:
        """Gets ready for a micro-batch; returns what its gradients are multiplied by."""
        if self._rewiring is None:
            return None
        self._rewiring.watch(engine.steps)
        return engine.scaler.scale.clone() if engine.scaler else None

    def _after_step(self, batch: Batch, engine: Engine, scale: Tensor | None) -> None:
        """Sums a step's gradients, and changes places where it is time."""
        if self._rewiring is None:
            return
        if scale is not None:
            assert engine.scaler is not None
            given_up = engine.scaler.scale < scale  # it is halved for nothing else: what was left counts 0
            scale = torch.where(given_up, torch.inf, scale)
        self._rewiring.settle(batch.total_targets, scale)
        self._rewiring.after(engine.steps + 1)

    def drop_step(self) -> None:
        """Forgets gradients of a step that is given up."""
        if self._rewiring is not None:
            self._rewiring.forget_step()

    def loss(self, batch: Batch) -> Tensor:
        """Returns the batch's loss, the sum over its rows divided by those of the step."""
        return with_decay(loss_of(self.model, batch, self.own), self.model, batch)

    def scorer(self) -> Scorer:
        """Returns what ranks the catalogue by the tables as they are served."""
        device = next(iter(self.model.state_dict().values())).device
        network = served_network(self.model, self.own)
        multiply_in(network, self.config.run.precision)
        return scorer_of(network, self.data.num_items, device)

    def sparsity(self) -> dict[str, Any]:
        """Returns how many numbers of the tables are live, of how many, and what each update has moved.

        `served_bytes` and `multiply_adds`, of a product with an item on average, are those of what is served:
        of propagated vectors, which are dense, where a model propagates; what that takes is then told, too.
        `layers` counts the numbers of matrices of which half is live, where there are some.
        """
        network = served_network(self.model, self.own)
        tables = live_tables(self.model, self.own)
        live = sum(table.live for table in tables)
        return {
            **propagation_of(self.model, tables),
            "live": live,
            "of": sum(table.shape.rows * table.shape.dim for table in tables),
            "growth_bytes": self._growth_bytes,
            "served_bytes": weights_bytes(network),
            "multiply_adds": cast(ServedTable, network.items).live / self.data.num_items,
            "updates": self._told,
            **layers_told(network),
        }

    @property
    def _growth_bytes(self) -> int:
        """The most that sums have taken, in parts of the run before an interruption, too."""
        return max(self._growth_bytes_before, getattr(self._rewiring, "sums_bytes", 0))

    @property
    def _told(self) -> list[dict[str, Any]]:
        return self.__dict__.setdefault("_updates", [])

    def served_state_dict(self) -> dict[str, Tensor]:
        """Returns the tensors of the network as it is served."""
        return dict(served_network(self.model, self.own).state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict` back, or `served_state_dict` where a run is opened."""
        if self._opened:
            restored(self.model, state)
        self.model.load_state_dict(state)

    def extra_state(self) -> dict[str, Any]:
        """Returns what updates have done so far, and the most that sums have taken."""
        return {"updates": list(self._told), "growth_bytes": self._growth_bytes}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes `extra_state` back."""
        self._told[:] = state.get("updates", [])
        self._growth_bytes_before = state.get("growth_bytes", 0)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Returns gradients that are summed for the next update."""
        return {} if self._rewiring is None else self._rewiring.tensors()

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes `extra_tensors` back."""
        self._kept_tensors = tensors
