"""What a training task must offer to a method whose item vectors come from a content encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.data.batches import PAD_ITEM, Batch, Batches
from effrec_cli.distributed import World

if TYPE_CHECKING:
    from effrec_cli.data.contents import Contents

__all__ = ["PAD_ITEM", "ContentTask"]


class ContentTask(Protocol):
    """One training task over one dataset; built as `Task(config, data)`.

    A method encodes the items that a step needs to vectors [U, d] and hands these to the task's model, the
    *filter*; which row a place of a batch means has become a position into the vectors by then.

    Attributes:
        name: `next_item`, `news` or `knowledge_tracing`.
        num_items: V, the rows of the catalogue that is encoded.
        contents: what these items say.
        item_tensors: names of the tensors of a batch that hold item rows; padding is `PAD_ITEM`.
        train_counts: int64 [V], how often each item occurs in training; 0 for a cold item.
        training_rows: rows with a loss in an epoch.
        monitor: the validation metric to select by where the settings leave it open.
    """

    name: str
    num_items: int
    contents: Contents
    item_tensors: tuple[str, ...]
    train_counts: NDArray[np.int64]
    training_rows: int
    monitor: str

    def batches(self) -> Batches:
        """Returns the training batches, a pure function of (seed, epoch, position)."""
        ...

    def filter(self, vector_dim: int) -> nn.Module:
        """Returns the filter on the CPU, drawn from torch's generator; `vector_dim` is d."""
        ...

    def loss(self, filter: nn.Module, vectors: Tensor, batch: Batch) -> Tensor:
        """Returns the sum of the rows' losses over `batch.total_targets`.

        Args:
            filter: the task's model.
            vectors: float [U, d].
            batch: whose item tensors hold positions into `vectors`; any position stands for padding, so
                that lengths and masks have to say what is real.
        """
        ...

    def judge(self, filter: nn.Module, table: Tensor, part: str, world: World) -> dict[str, float]:
        """Returns the task's own metrics; every rank calls it and gets the same.

        Args:
            filter: the task's model, in evaluation mode.
            table: float [V, d], the vectors of the whole catalogue, freshly encoded.
            part: `valid` or `test`.
            world: who shares the work.
        """
        ...

    def protocol(self) -> dict[str, Any]:
        """Returns the stamp of the metrics: all that must be equal for two of them to compare."""
        ...
