"""The state of multi-step GRAM between two updates of the encoder (papers/gram section 1.6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.methods.content.chunks import Chunk

Int64 = NDArray[np.int64]


@dataclass
class Cycle:
    """What a cycle has encoded and gathered so far; the same on every rank.

    Attributes:
        table: [V, d], the vectors T; rows of items not `touched` mean nothing.
        gradients: [V, d], the sums G of the items' gradients that no update has used; 0 but for `owed` items.
        touched: bool [V], items encoded in this cycle.
        owed: bool [V], items with gradients not yet used.
        waiting: int64 [V], cycles for which an item's gradients have been left for later.
        chunks: what was encoded in this cycle, of all ranks.
        number: cycles before this one.
        steps: of the filter in this cycle.
    """

    table: Tensor
    gradients: Tensor
    touched: NDArray[np.bool_]
    owed: NDArray[np.bool_]
    waiting: Int64
    chunks: list[Chunk] = field(default_factory=list)
    number: int = 0
    steps: int = 0

    @classmethod
    def new(cls, num_items: int, like: Tensor) -> Cycle:
        """Returns the first cycle, for vectors of the width, type and device of `like` [n, d]."""
        nobody = np.zeros(num_items, dtype=bool)
        table = like.new_zeros(num_items, like.shape[1])
        zeros = np.zeros(num_items, dtype=np.int64)
        return cls(table, torch.zeros_like(table), nobody, nobody.copy(), zeros)

    def used(self, rows: Int64, index: Tensor) -> None:
        """Forgets the gradients of `rows`, which have been used; `index` are the same on the device."""
        self.gradients.index_fill_(0, index, 0.0)
        self.owed[rows] = False
        self.waiting[rows] = 0

    def forget(self, chunks: int) -> None:
        """Forgets what was encoded after the first `chunks` chunks."""
        for chunk in self.chunks[chunks:]:
            self.touched[chunk.rows] = False
        del self.chunks[chunks:]

    def end(self) -> None:
        """Starts the next cycle: the encoder has moved, so every vector is out of date."""
        self.touched[:] = False
        self.waiting[self.owed] += 1
        self.chunks = []
        self.number += 1
        self.steps = 0

    def tensors(self) -> dict[str, Tensor]:
        """Returns what a resumed run needs besides `state`: only rows that mean something."""
        touched, owed = np.flatnonzero(self.touched), np.flatnonzero(self.owed)
        plain = {
            "touched": touched,
            "owed": owed,
            "waiting": self.waiting[owed],
            "chunk_rows": np.concatenate([chunk.rows for chunk in self.chunks] or [touched[:0]]),
            "chunks": np.array([[len(c), c.width, c.seed, c.rank] for c in self.chunks], dtype=np.int64),
        }
        found = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in plain.items()}
        device = self.table.device
        found["vectors"] = self.table.index_select(0, found["touched"].to(device))
        found["gradients"] = self.gradients.index_select(0, found["owed"].to(device))
        return found

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Takes `tensors` and `state` back."""
        device = self.table.device
        self.touched[tensors["touched"].numpy()] = True
        self.owed[tensors["owed"].numpy()] = True
        self.waiting[tensors["owed"].numpy()] = tensors["waiting"].numpy()
        self.table.index_copy_(0, tensors["touched"].to(device), tensors["vectors"].to(self.table))
        self.gradients.index_copy_(0, tensors["owed"].to(device), tensors["gradients"].to(self.table))
        self.chunks = _chunks(tensors["chunk_rows"].numpy(), tensors["chunks"].numpy().reshape(-1, 4))
        self.number, self.steps = state["cycle"], state["cycle_steps"]

    def state(self) -> dict[str, Any]:
        """Returns the JSON-able rest."""
        return {"cycle": self.number, "cycle_steps": self.steps}


def _chunks(rows: Int64, sizes: Int64) -> list[Chunk]:
    """Returns chunks from their rows one after the other and [size, width, seed, rank] of each."""
    ends = np.cumsum(sizes[:, 0])
    return [
        Chunk(rows[end - size : end], int(width), int(seed), int(rank), np.arange(end - size, end))
        for end, (size, width, seed, rank) in zip(ends, sizes, strict=True)
    ]
