"""Method cadc: a network on a sample of the data, with vectors from a factorisation of all (papers/cadc)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from effrec_cli.data.attributes import attributes_of
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.data.known_pairs import KnownPairs
from effrec_cli.data.pairs import PairBatches
from effrec_cli.data.sampling.sample import sample, sample_and_rest
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.evaluation.scorer import Scorer
from effrec_cli.methods.factors.footprint import fitting_bytes
from effrec_cli.methods.factors.kept import Kept
from effrec_cli.methods.factors.start import FactorStart
from effrec_cli.methods.factors.tuned import Size
from effrec_cli.methods.top_n.folding import Folding, fold_in_by, folding_of, joined, parted
from effrec_cli.methods.top_n.losses import loss_of
from effrec_cli.methods.top_n.network import Tables, make_network, table_of, tables_in
from effrec_cli.methods.top_n.scorer import scorer_of
from effrec_cli.models.id_embeddings import IdEmbedding
from effrec_cli.models.pairs import PairModel
from effrec_cli.optim import make_optimizer
from effrec_cli.schema import Config
from effrec_cli.schema.method_cadc import FROZEN, CADCConfig
from effrec_cli.schema.protocols import task_of
from effrec_cli.schema.sample import is_sampled


class CADC(FactorStart):
    """Factorises all training rows, keeps a sample of them, and trains a network on that.

    `method.embedding` says what becomes of the factors. Where the run's task is `ctr`, one is made that
    tells labels (methods.ctr).
    """

    tasks: ClassVar[tuple[str, ...]] = ("top_n", "ctr")
    reads_weights: ClassVar[bool] = True
    model: PairModel
    _factors: Kept | None = None
    _folding: Folding = MappingProxyType({})
    _tables: Tables | None = None
    _shapes: tuple[Sequence[int], Sequence[int]] | None = None

    def __new__(cls, config: Config, world: World | None = None) -> CADC:
        """Returns the method of the run's task."""
        if cls is CADC and task_of(config) == "ctr":
            from effrec_cli.methods.ctr.method import ClickCADC

            cls = ClickCADC
        return super().__new__(cls)

    @property
    def own(self) -> CADCConfig:
        """The method's settings."""
        return cast(CADCConfig, self.config.method)

    @property
    def starts_trained(self) -> bool:
        """Whether the network begins as the factorisation, which it does with `embedding=residual`."""
        return self.own.embedding == "residual"

    def prepare(self, data: RecData) -> RecData:
        """Returns the rows to train on; the factors are fitted on all rows of `data` before."""
        if self.config.optimizer.sparse_rows is None:
            self.config.optimizer.sparse_rows = False
        kept, factorised = self._parts(data)
        if self.own.embedding != "rand" and not self.rehearses:
            self._factors = self.factorised(self.own.factors, factorised)
            frozen = self.own.embedding in FROZEN
            self._folding = folding_of(self._factors.state, frozen=frozen)
        sampled = super().prepare(kept)
        self.own.batch_size = self._batches(sampled).batch_size
        return sampled

    def bytes_before(self, data: RecData) -> int:
        """Returns what fitting the factorisation takes; 0 without one."""
        if self.own.embedding == "rand":
            return 0
        return fitting_bytes(self.own.factors, Size.of(data), self.world.device)

    def _parts(self, data: RecData) -> tuple[RecData, RecData]:
        """Returns the rows that the network trains on, and those whose factors it starts from.

        Vectors that were fitted on a row foretell it better than any other: a network that trains on the
        same rows learns to trust them more than they deserve, and to look away from attributes. What is
        prepared on the disk is still the whole.
        """
        if not is_sampled(self.own.sample):
            return data, data
        with self.stages.of("sample"):
            if self.own.factorise == "rest":
                kept, factorised = sample_and_rest(data, self.own.sample)
            else:
                kept, factorised = sample(data, self.own.sample), data
        return replace(kept, content_hash=data.content_hash, folder=data.folder), factorised

    def build(self, data: RecData) -> nn.Module:
        """Returns the network on the CPU, drawn from the run's seed.

        Without factors, as where a saved run is opened, their place is taken by zeros.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.model = make_network(self.config, self._tables_of_ids(data), self._attributes(data))
        self.model.users.fold_all = self.own.users == "fold_in"
        return self.model

    def _tables_of_ids(self, data: RecData) -> tuple[Tensor, Tensor]:
        if self._factors is not None:
            return self._factors.users, self._factors.items
        dim = self.own.factors.dim
        users, items = self._shapes or ((data.num_users, dim), (data.num_items, dim))
        return torch.zeros(users, device="cpu"), torch.zeros(items, device="cpu")

    def _attributes(self, data: RecData) -> Tables:
        """Returns what is known of users and items, those of a saved network where it is read."""
        if self._tables is not None:
            return self._tables
        users, items = attributes_of(data.unsampled(), self.own.attributes, self.own.text_dim)
        return table_of(users), table_of(items)

    def batches(self, data: RecData) -> Batches:
        """Returns training rows with negatives, or with the items of their step."""
        return self._batches(data)

    def _batches(self, data: RecData) -> PairBatches:
        own = self.own
        return PairBatches(
            data,
            own.batch_size,
            own.num_negatives if own.loss == "bce" else 0,
            self.config.seed,
            known=self._known if own.filter_negatives else None,
            in_batch=own.loss == "softmax",
            fresh=own.fresh,
        )

    @cached_property
    def _known(self) -> KnownPairs:
        """What users have met in all training rows, those that no sample has kept included."""
        return KnownPairs(self.data.unsampled())

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Returns what moves the network, and with two rates what moves the tables slowly."""
        settings = self.config.optimizer
        ids = [each for each in model.modules() if isinstance(each, IdEmbedding) and each.slow]
        slow = {each.table for each in ids}
        made = [make_optimizer([each for each in model.parameters() if each not in slow], settings)]
        if slow:
            at = replace(settings, lr=settings.lr * self.own.table_rate)
            made.append(make_optimizer([each.table for each in ids], at))
        return made

    def loss(self, batch: Batch) -> Tensor:
        """Returns the batch's loss, the sum over its rows divided by those of the step."""
        return loss_of(self.model, batch, self.own, self.config.seed)

    def scorer(self) -> Scorer:
        """Returns what ranks the catalogue; users whom training never saw, or all, are folded in."""
        table = self.model.items.table
        kind = self.own.factors.kind
        fold_in = fold_in_by(kind, self._folding, self.model, self.own.last) if self._folding else None
        return scorer_of(self.model, len(table), table.device, fold_in)

    def choices(self) -> dict[str, str]:
        """Returns what the factorisation chose and where it is from, and what filtering negatives takes."""
        told = super().choices()
        if self.own.filter_negatives:
            told["method.filter_negatives"] = f"true, by {self._known.bytes:,} bytes of known pairs"
        return told

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the network's tensors, and what folding in needs that is not among them."""
        return joined(super().state_dict(), self._folding)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes a saved network, which brings its attributes and what folding in needs with it.

        Where the dataset is not at hand the network was built without any, and is built anew.
        """
        network, self._folding = parted(state)
        mine = {name: tensor.shape for name, tensor in self.model.state_dict().items()}
        if mine != {name: tensor.shape for name, tensor in network.items()}:
            self._tables = tables_in(network)
            self._shapes = network["users.table"].shape, network["items.table"].shape
            self.build(self.data)
        self.model.load_state_dict(network)
