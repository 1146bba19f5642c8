"""One loss to compute: the tensors, and how candidates and their logits are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

CORRECTIONS = ("exact", "constant", "none", "logq")
OBJECTIVES = ("softmax", "binary", "apart")
SAMPLERS = ("uniform", "block", "popularity")
SHARINGS = ("row", "tile", "sequence", "batch")
# Ids in a run of the block sampler.
RUN = 64


@dataclass(frozen=True)
class Problem:
    """All that decides the value of a loss over a catalogue of V items, for M rows of width D.

    Rows that share their negatives are a group: a row alone, a tile, a sequence, or all (`groups.py`).
    `items` may be a slice of the catalogue, whose rows are then numbered from 0 in `targets`, `log_q` and
    what is drawn; a target of len(items) is elsewhere (`parallel.py`).

    Attributes:
        hidden: [M, D].
        items: [V, D], or the rows of a slice.
        targets: int64 [M], the positive of each row, or `ignore_index`.
        state: int64 [2], seed and step: the key of random draws, on the device of `hidden`.
        rows: int64 [M], global row numbers; None counts them from `row_start`.
        boundaries: int64 [G + 1], first rows of the sequences and the end of the last; None unless `sharing`
            is `sequence`.
        negatives: int [M, N] ids, or [G, N] where groups share them, negative in unused slots; None draws.
        thresholds: int32 [V], bits of unsigned numbers: the popularity sampler's table, or None.
        alias: int32 [V], the other half of it.
        log_q: float32 [V], log of the probability that a slot holds an item, for the correction `logq`;
            None where it is the same for all (`flat_log_q`).
        num_negatives: N, or 0 where every item is a candidate.
        in_batch: how many of the N are targets of rows of this problem, the first slots.
        row_start: global number of the first row; 0 where `rows` are given.
        sharing: one of `SHARINGS`.
        tile_rows: T, rows of a tile; 1 unless `sharing` is `tile`.
        tile_stride: S, how far apart rows of a tile are.
        sampler: one of `SAMPLERS`, of the slots behind `in_batch`.
        objective: `softmax`, `binary` (a sigmoid for each candidate), or `apart`: for each row the positive's
            logit in place of a loss, the log-sum-exp of the negatives alone, and how many of them are usable.
        correction: what is added to the logits of negatives, one of `CORRECTIONS`.
        beta: weight of the positive's term in the binary objective.
        temperature: divides products of states and items, before the correction is added.
        ignore_index: targets of this value have no loss.
        chunk_bytes: bound on the bytes of intermediates alive at a time.
        deterministic: whether the same bits must come out each time, whatever it costs.
        sparse: whether the gradient by items holds rows alone.
        kernel: who computes, `torch`, `triton` or `reference`.
        compute_dtype: dtype that `hidden` and `items` are rounded to before arithmetic.
        num_items: V.
        first_item: number in the catalogue of the first of `items`.
    """

    hidden: Tensor
    items: Tensor
    targets: Tensor
    state: Tensor
    rows: Tensor | None
    boundaries: Tensor | None
    negatives: Tensor | None
    thresholds: Tensor | None
    alias: Tensor | None
    log_q: Tensor | None
    num_negatives: int
    in_batch: int
    row_start: int
    sharing: str
    tile_rows: int
    tile_stride: int
    sampler: str
    objective: str
    correction: str
    beta: float
    temperature: float
    ignore_index: int
    chunk_bytes: int
    deterministic: bool
    sparse: bool
    kernel: str
    compute_dtype: torch.dtype
    num_items: int
    first_item: int

    @property
    def accumulate_dtype(self) -> torch.dtype:
        """The dtype of logits, losses and gradient sums: float32, or float64 for float64 inputs."""
        return torch.float64 if self.compute_dtype == torch.float64 else torch.float32

    @property
    def working_dtype(self) -> torch.dtype:
        """The dtype of matrix products' operands.

        CUDA multiplies 16-bit operands and sums in float32; elsewhere such products round their result, so
        the operands, rounded to the compute dtype, are widened first.
        """
        return self.compute_dtype if self.hidden.is_cuda else self.accumulate_dtype

    @property
    def has_target(self) -> Tensor:
        """Which rows have a target, bool [M]."""
        return self.targets != self.ignore_index

    @property
    def flat_log_q(self) -> float:
        """Log of the probability of an item where it is the same for all; block draws also miss the table."""
        slots = RUN * num_runs(self.num_items) if self.sampler == "block" else self.num_items
        return -math.log(slots)

    @property
    def may_miss(self) -> bool:
        """Whether a slot may hold no item of the table."""
        return self.negatives is not None or self.in_batch > 0 or self.sampler == "block" or self.is_slice

    @property
    def is_slice(self) -> bool:
        """Whether `items` are a part of the catalogue."""
        return len(self.items) != self.num_items

    def working(self, tensor: Tensor) -> Tensor:
        """Returns `tensor` rounded to the compute dtype, in the working dtype."""
        return tensor.to(self.compute_dtype).to(self.working_dtype)

    def flat(self) -> list[Any]:
        """Returns the attributes as the arguments of the operators in `ops`: `PROBLEM_SCHEMA`."""
        packed = [[getattr(self, name) for name in names] for names in _LISTED.values()]
        return [getattr(self, name) for name in _ALONE] + packed

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> Problem:
        """Returns the problem whose `flat` the first `PROBLEM_SIZE` arguments of an operator are."""
        values = dict(zip(_ALONE, arguments, strict=False))
        for names, packed in zip(_LISTED.values(), arguments[len(_ALONE) : PROBLEM_SIZE], strict=True):
            values |= zip(names, packed, strict=True)
        return cls(**values)


def num_runs(num_items: int) -> int:
    """Returns how many aligned runs of 64 ids hold the catalogue, the last perhaps in part."""
    return -(-num_items // RUN)


# What PyTorch's schema language calls the types of attributes that are arguments of their own, and of those
# that come in one list for each type: a call takes PyTorch longer by the square of its arguments.
_TYPES_ALONE = {"Tensor": "Tensor", "Tensor | None": "Tensor?", "torch.dtype": "ScalarType"}
_TYPES_LISTED = {"int": "SymInt[]", "str": "str[]", "float": "float[]", "bool": "bool[]"}


def _names(*types: str) -> list[str]:
    return [field.name for field in fields(Problem) if str(field.type) in types]


_ALONE = _names(*_TYPES_ALONE)
_LISTED = {kind: _names(kind) for kind in _TYPES_LISTED}
_TYPES = {field.name: str(field.type) for field in fields(Problem)}
PROBLEM_SIZE = len(_ALONE) + len(_LISTED)
PROBLEM_SCHEMA = ", ".join(
    [f"{_TYPES_ALONE[_TYPES[name]]} {name}" for name in _ALONE]
    + [f"{_TYPES_LISTED[kind]} {kind}_values" for kind in _LISTED]
)
