"""One loss to compute: the tensors, and how candidates and their logits are made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

CORRECTIONS = ("exact", "constant", "none")
OBJECTIVES = ("softmax", "binary")


@dataclass(frozen=True)
class Problem:
    """All that decides the value of a loss over a catalogue of V items, for M rows of width D.

    Attributes:
        hidden: [M, D].
        items: [V, D].
        targets: int64 [M], the positive of each row, or `ignore_index`.
        rows: int64 [M], global row numbers, the key of random draws.
        negatives: int [M, N] ids, `ignore_index` in unused slots; None draws them.
        num_negatives: N, or 0 where every item is a candidate.
        seed: seed of the draws.
        step: training step, second part of the draws' key.
        objective: `softmax` or `binary` (a sigmoid for each candidate).
        correction: what is added to the logits of negatives, one of `CORRECTIONS`.
        beta: weight of the positive's term in the binary objective.
        ignore_index: targets of this value have no loss.
        chunk_bytes: bound on the bytes of intermediates alive at a time.
        compute_dtype: dtype that `hidden` and `items` are rounded to before arithmetic.
    """

    hidden: Tensor
    items: Tensor
    targets: Tensor
    rows: Tensor
    negatives: Tensor | None
    num_negatives: int
    seed: int
    step: int
    objective: str
    correction: str
    beta: float
    ignore_index: int
    chunk_bytes: int
    compute_dtype: torch.dtype

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

    def working(self, tensor: Tensor) -> Tensor:
        """Returns `tensor` rounded to the compute dtype, in the working dtype."""
        return tensor.to(self.compute_dtype).to(self.working_dtype)

    def flat(self) -> list[Any]:
        """Returns the attributes in order, the arguments of the operators in `ops`."""
        return [getattr(self, field.name) for field in fields(self)]


# The arguments of `Problem`, in order, in PyTorch's schema language.
PROBLEM_SCHEMA = (
    "Tensor hidden, Tensor items, Tensor targets, Tensor rows, Tensor? negatives, SymInt num_negatives, "
    "SymInt seed, SymInt step, str objective, str correction, float beta, SymInt ignore_index, "
    "SymInt chunk_bytes, ScalarType compute_dtype"
)
PROBLEM_SIZE = len(fields(Problem))
