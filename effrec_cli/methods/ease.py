"""Method ease: a linear autoencoder over items, solved in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.cooccurrence import cooccurrences, training_matrix
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError, OutOfMemoryError
from effrec_cli.evaluation.blocks import free_bytes
from effrec_cli.evaluation.scorer import Histories, Scorer
from effrec_cli.evaluation.votes import voters
from effrec_cli.methods.base import Footprint, Method
from effrec_cli.models.none import NoModel

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

_BYTES_PER_CELL = 24
"""Of the V x V matrix while it is solved: two copies in float64, the weights in float32, and some room."""


class EASE(Method):
    """Embarrassingly shallow autoencoder (Steck 2019, equations 4 and 8).

    With P = (X'X + l2 I)^-1 the weights are B_ij = -P_ij / P_jj and 0 on the diagonal; a user scores x B.
    The V x V weights count as parameters.
    """

    tasks: ClassVar[tuple[str, ...]] = ("none",)
    model: NoModel

    def build(self, data: RecData) -> nn.Module:
        """Returns the holder of the weights, empty as yet.

        Raises:
            ConfigError: more than `method.max_items` items.
        """
        self._check_size(data.num_items)
        self.model = model_for(self.task, self.config.model.name)()
        return self.model

    def fit(self, engine: Engine) -> None:
        """Solves for the weights on the run's device, in float64.

        Raises:
            OutOfMemoryError: the matrix does not fit in free memory.
            ConfigError: `method.l2` is too small for the matrix to be inverted.
        """
        device = engine.world.device
        _check_memory(self.data.num_items, device)
        self.load_state_dict({"weights": solve(gram_matrix(self.data, device), self.config.method.l2)})

    def footprint(self, data: RecData) -> Footprint:
        """Returns the V x V weights, and the same in float64 while they are solved for."""
        cells = data.num_items**2
        return Footprint(cells, 4 * cells, _BYTES_PER_CELL * cells)

    def scorer(self) -> Scorer:
        """Returns what multiplies histories with the weights."""
        return LinearScorer(self.model.get_parameter("weights"), self.config.method.last)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `weights`, float32 [V, V]."""
        self.model.hold(state)

    def _check_size(self, num_items: int) -> None:
        if num_items > self.config.method.max_items:
            raise ConfigError(
                f"EASE needs a matrix of items by items: {num_items:,} items take "
                f"{_gib(num_items)} while it is solved.",
                where=f"method.max_items={self.config.method.max_items}",
                fix=f"method.max_items={num_items} if there is so much memory, or a larger "
                "dataset.filter.min_item_count, or method=itemknn",
            )


def gram_matrix(data: RecData, device: torch.device) -> Tensor:
    """Returns X'X of the training part as float64 [V, V]."""
    gram = torch.zeros(data.num_items, data.num_items, dtype=torch.float64, device=device)
    for first, last, counts in cooccurrences(training_matrix(data)):
        gram[first:last] = torch.from_numpy(counts).to(device)
    return gram


def solve(gram: Tensor, l2: float) -> Tensor:
    """Returns the weights B as float32 [V, V]; `gram`, float64 [V, V], is used up.

    Args:
        gram: X'X.
        l2: ridge strength, above 0, so that the matrix is positive definite.

    Raises:
        ConfigError: `l2` is so small that the matrix is not positive definite in float64.
    """
    gram.diagonal().add_(l2)
    inverse = _inverse_on_gpu(gram) if gram.is_cuda else _inverse_on_cpu(gram)
    if inverse is None:
        raise ConfigError(
            "EASE's matrix cannot be inverted.", where=f"method.l2={l2}", fix="a larger method.l2"
        )
    weights = inverse.div_(-inverse.diagonal().clone()).float()
    return weights.fill_diagonal_(0)


def _inverse_on_gpu(matrix: Tensor) -> Tensor | None:
    """Returns the inverse of a symmetric matrix, or None if it is not positive definite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if int(info) else torch.cholesky_inverse(factor, out=matrix)


def _inverse_on_cpu(matrix: Tensor) -> Tensor | None:
    """Returns the inverse of a symmetric matrix in its own memory, or None if it is not positive definite.

    LAPACK by way of scipy takes two thirds of the time of PyTorch's, and no second copy.
    """
    from scipy.linalg import lapack

    factor, not_definite = lapack.dpotrf(matrix.numpy().T, lower=1, overwrite_a=1, clean=0)
    if not_definite:
        return None
    lower, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    half = torch.from_numpy(lower.T).triu_()
    half += half.triu(1).T
    return half


def _check_memory(num_items: int, device: torch.device) -> None:
    if _BYTES_PER_CELL * num_items**2 > free_bytes(device):
        raise OutOfMemoryError(
            f"Solving EASE for {num_items:,} items takes {_gib(num_items)}; "
            f"{free_bytes(device) / 2**30:.1f} GiB are free.",
            where=str(device),
            fix="a larger dataset.filter.min_item_count, or method=itemknn",
        )


def _gib(num_items: int) -> str:
    return f"{_BYTES_PER_CELL * num_items**2 / 2**30:.1f} GiB"


class LinearScorer:
    """Adds up the rows of a weight matrix that belong to a history's items; implements `Scorer`.

    Args:
        weights: float32 [V, V].
        last: only so many last items of a history count; None for all.
    """

    def __init__(self, weights: Tensor, last: int | None) -> None:
        self.weights, self.last = weights, last
        self.num_items, self.device = len(weights), weights.device

    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns x B with x the 0/1 vector of each history, float32 [B, V]."""
        chosen = voters(histories, self.num_items, self.last)
        return F.embedding_bag(
            chosen.items, self.weights, chosen.offsets, mode="sum", include_last_offset=True
        )
