"""Method cce: next-item training by losses that scale to a large catalogue (papers/cce)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import effrec_kernels
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.batches import Batch, Batches
from effrec_cli.data.next_item import NextItemBatches, batch_size_for
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.evaluation.history_scorer import SequenceScorer
from effrec_cli.methods.base import Method
from effrec_cli.schema.method_cce import RUN, SAMPLED, CCEConfig

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


@dataclass(frozen=True)
class Rows:
    """The rows with a loss of one micro-batch.

    Attributes:
        hidden: [M, D].
        items: [V, D], the item table.
        targets: int64 [M].
        lengths: int64 [b], how many of them each window has.
        first: number of the first row within the step, which the others follow: the key of random draws.
        step: optimizer step.
        normalizer: rows with a loss in the whole step.
    """

    hidden: Tensor
    items: Tensor
    targets: Tensor
    lengths: Tensor
    first: int
    step: int
    normalizer: int


@dataclass(frozen=True)
class Draws:
    """What negatives are drawn by: a sampler, and log q of its slots where they need a table of their own.

    Attributes:
        sampler: `uniform`, `block` or a table.
        log_q: float32 [V], or None where the sampler knows.
        device: where both are.
    """

    sampler: str | effrec_kernels.Popularity
    log_q: Tensor | None
    device: torch.device


class CCE(Method):
    """Trains a sequence model to tell each next item from the catalogue, or from a sample of it.

    `ce` and `cce` are the full softmax, with and without its [M, V] logits; `ce_sampled` and `cce_sampled`
    the sampled softmax of papers/cce section 1.1, with and without its [M, N, D] tensor; `bce` and `gbce` set
    one or N sigmoids against the positive's (section 1.3).
    """

    task: ClassVar[str] = "next_item"
    _made_draws: Draws | None = None

    def prepare(self, data: RecData) -> RecData:
        """Returns the data as they are; a batch size left open is chosen for them and written down."""
        own = self.config.method
        if own.batch_size is None:
            own.batch_size = batch_size_for(data, self.config.model.max_length, own.window)
        return super().prepare(data)

    def build(self, data: RecData) -> nn.Module:
        """Returns the sequence model on the CPU, drawn from the run's seed.

        Only `data.num_items` is looked at. Where `model.dim` is None it becomes `width_for` that many items.

        Raises:
            ConfigError: the model does not take this task, or its width does not divide into heads.
        """
        kind = model_for(self.task, self.config.model.name)
        if self.config.model.dim is None:
            self.config.model.dim = width_for(data.num_items)
        settings = dataclasses.asdict(self.config.model)
        del settings["name"]
        _check_heads(settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.model = kind(data.num_items, **settings)
        return self.model

    def batches(self, data: RecData) -> Batches:
        """Returns windows over the users' training items."""
        own = self.config.method
        return NextItemBatches(
            data, own.batch_size, self.config.model.max_length, own.window, self.config.seed
        )

    @property
    def kernel(self) -> str:
        """Who computes the loss on the model's device: `torch`, `triton` or `reference`.

        `ce` and `ce_sampled` are what PyTorch's own operators make of it, whatever `method.kernel` says.

        Raises:
            EnvironmentFault: the kernel asked for cannot run there.
        """
        own = self.config.method
        if own.loss in ("ce", "ce_sampled"):
            return "torch"
        try:
            return effrec_kernels.which_kernel(own.kernel, self._items, full=own.loss == "cce")
        except effrec_kernels.KernelUnavailable as error:
            raise EnvironmentFault(str(error), where="method.kernel", fix="method.kernel=auto") from error

    def loss(self, batch: Batch) -> Tensor:
        """Returns the sum of the rows' losses over `batch.total_targets`; only rows with a target count."""
        rows, own = self._rows(batch), self.config.method
        if own.loss not in SAMPLED:
            return _LOSSES[own.loss](rows, own, self.config.seed)
        options = _against_draws(rows, own, self.config.seed) | self._sampling(rows)
        if own.loss == "ce_sampled":
            return effrec_kernels.sampled_cross_entropy_dense(**options)
        return effrec_kernels.sampled_cross_entropy(kernel=own.kernel, **options)

    def fit(self, engine: Engine) -> None:
        """Trains; what `model.packed=auto` comes to on this device is settled first, and written down."""
        model = cast(Any, self.model)
        if getattr(model, "packed", None) == "auto":
            with engine.autocast():
                packed = model.packs(self._items.device, self.config.run.compile)
            model.packed = self.config.model.packed = packed
        super().fit(engine)

    def scorer(self) -> SequenceScorer:
        """Returns what ranks the catalogue by the last hidden state."""
        length, items = self.config.model.max_length, self._items
        return SequenceScorer(self.model, length, len(items), items.device)

    def _sampling(self, rows: Rows) -> dict[str, Any]:
        """Returns the options of the sampled softmax: who shares negatives, what draws and corrects them."""
        own = self.config.method
        return {
            "sampler": self._draws.sampler,
            "log_q": self._draws.log_q,
            "in_batch": own.in_batch,
            "correction": own.correction,
            "temperature": own.temperature,
            **_sharing(rows, own, self.config.model.max_length),
        }

    @property
    def _draws(self) -> Draws:
        """What negatives are drawn by, on the model's device; made from the training counts once."""
        if self._made_draws is None or self._made_draws.device != self._items.device:
            self._made_draws = draws_for(self.config.method, self.data, self._items.device)
        return self._made_draws

    @property
    def _items(self) -> Tensor:
        """The model's item table [V, D]."""
        return cast(Tensor, self.model.item_embeddings)

    def _rows(self, batch: Batch) -> Rows:
        """Returns the hidden states that have a target, and what they are scored against."""
        tensors = batch.tensors
        valid = tensors["valid"]
        return Rows(
            self.model(tensors["inputs"], tensors["lengths"], valid),
            self._items,
            tensors["targets"].flatten().index_select(0, valid),
            tensors["lengths"],
            batch.first_target,
            batch.step,
            batch.total_targets,
        )


def draws_for(settings: CCEConfig, data: RecData, device: torch.device) -> Draws:
    """Returns what the settings ask for, on `device`.

    Args:
        settings: of method cce.
        data: whose training items are counted, where counts are needed.
        device: where the model is.
    """
    if settings.sampler != "popularity" and not _mixed(settings):
        return Draws(settings.sampler, None, device)
    table = effrec_kernels.popularity(torch.from_numpy(data.train_counts()), settings.popularity_power)
    log_q = _mixed_log_q(settings, table, data.num_items).to(device) if _mixed(settings) else None
    sampler = table.to(device) if settings.sampler == "popularity" else settings.sampler
    return Draws(sampler, log_q, device)


def _mixed(settings: CCEConfig) -> bool:
    """Returns whether slots are of two kinds, and their probabilities are asked for."""
    return settings.in_batch > 0 and settings.correction == "logq"


def _mixed_log_q(settings: CCEConfig, table: effrec_kernels.Popularity, num_items: int) -> Tensor:
    share = settings.in_batch / settings.num_negatives
    if settings.sampler == "popularity":
        return table.mixed_log_q(share)
    slots = -(-num_items // RUN) * RUN if settings.sampler == "block" else num_items
    return effrec_kernels.mixed_log_q(-math.log(slots), table.log_frequency, share)


def _sharing(rows: Rows, settings: Any, longest: int) -> dict[str, Any]:
    """Returns which rows share negatives: the same ones however the step is split.

    A tile's rows are at least as far apart as the longest window, so that they come from different ones, and
    so far that the step's rows fill their tiles; nearer, in a step with too few rows for that.
    """
    if settings.sharing == "tile":
        tile = settings.tile_rows
        stretches = max(1, rows.normalizer // (tile * longest))
        stride = max(1, -(-rows.normalizer // (tile * stretches)))
        return {"sharing": tile, "sharing_stride": stride}
    if settings.sharing == "sequence":
        return {"sharing": F.pad(rows.lengths.cumsum(0), (1, 0))}
    return {"sharing": settings.sharing}


def width_for(num_items: int) -> int:
    """Returns the width D for a catalogue: the power of two from sqrt(V) / 2 up, at least 32, at most 256.

    1,000 items get 32, 10,000 get 64, 27,000 (ml-20m) 128, 176,000 (Beauty) and more 256, the paper's.
    """
    wanted = 2 ** math.ceil(math.log2(math.sqrt(num_items) / 2))
    return int(min(256, max(32, wanted)))


def _check_heads(settings: dict[str, Any]) -> None:
    """Refuses a width that its heads cannot share."""
    dim, heads = settings["dim"], settings.get("num_heads", 1)
    if dim % heads:
        raise ConfigError(
            f"Width {dim} does not divide into {heads} heads.",
            where=f"model.num_heads={heads}",
            fix=f"model.dim={-(-dim // heads) * heads}, or another number of heads",
        )


def _ce(rows: Rows, settings: Any, seed: int) -> Tensor:
    logits = F.linear(rows.hidden, rows.items).float() / settings.temperature
    return F.cross_entropy(logits, rows.targets, reduction="sum") / rows.normalizer


def _cce(rows: Rows, settings: Any, seed: int) -> Tensor:
    return effrec_kernels.linear_cross_entropy(
        rows.hidden,
        rows.items,
        rows.targets,
        normalizer=rows.normalizer,
        temperature=settings.temperature,
        kernel=settings.kernel,
    )


def _bce(rows: Rows, settings: Any, seed: int) -> Tensor:
    one = _against_draws(rows, settings, seed) | {"num_negatives": 1}
    return effrec_kernels.binary_cross_entropy_sampled(kernel=settings.kernel, **_warmed(one, settings))


def _gbce(rows: Rows, settings: Any, seed: int) -> Tensor:
    options = _warmed(_against_draws(rows, settings, seed), settings)
    return effrec_kernels.gbce(t=settings.gbce_t, kernel=settings.kernel, **options)


def _warmed(options: dict[str, Any], settings: Any) -> dict[str, Any]:
    """Returns the options with states divided by the temperature, which divides their logits."""
    if settings.temperature == 1:
        return options
    return options | {"hidden": options["hidden"] / settings.temperature}


def _against_draws(rows: Rows, settings: Any, seed: int) -> dict[str, Any]:
    """Returns the rows, what decides their negatives (the same for any split of the step), the normalizer."""
    return {
        "hidden": rows.hidden,
        "items": rows.items,
        "targets": rows.targets,
        "num_negatives": settings.num_negatives,
        "seed": seed,
        "step": rows.step,
        "row_offset": rows.first,
        "normalizer": rows.normalizer,
    }


_LOSSES: dict[str, Callable[[Rows, Any, int], Tensor]] = {
    "ce": _ce,
    "cce": _cce,
    "bce": _bce,
    "gbce": _gbce,
}
