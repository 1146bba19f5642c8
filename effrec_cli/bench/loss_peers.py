"""Who computes a loss over a large catalogue: PyTorch as it comes, other libraries, and ours."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import effrec_kernels
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

OFFICIAL = "EFFREC_OFFICIAL_CCE"
"""Environment variable: a folder with the paper's kernels, made to run with the Triton that is here."""


@dataclass(frozen=True)
class Problem:
    """One loss to compute.

    Attributes:
        hidden: [M, D], with gradient.
        items: [V, D], with gradient.
        targets: int64 [M].
        num_negatives: N.
    """

    hidden: Tensor
    items: Tensor
    targets: Tensor
    num_negatives: int

    def first(self, rows: int) -> Problem:
        """Returns the problem of the first rows, with tensors of its own."""
        return replace(
            self, hidden=_leaf(self.hidden[:rows]), items=_leaf(self.items), targets=self.targets[:rows]
        )

    def doubled(self) -> Problem:
        """Returns the problem in float64."""
        return replace(self, hidden=_leaf(self.hidden.double()), items=_leaf(self.items.double()))

    @property
    def gradient_bytes(self) -> int:
        """Bytes of both gradients."""
        return self.hidden.nbytes + self.items.nbytes

    def forget_gradients(self) -> None:
        """Frees the gradients."""
        self.hidden.grad = self.items.grad = None

    def negatives(self) -> Tensor:
        """Returns the ids int64 [M, N] that the sampled losses draw."""
        rows = torch.arange(len(self.hidden), device=self.hidden.device)
        return effrec_kernels.draw_negatives(rows, self.num_negatives, len(self.items), seed=0, step=0)


@dataclass(frozen=True)
class Peer:
    """One implementation.

    Attributes:
        loss: the mean over rows, differentiable.
        sampled: over sampled negatives, not over all items.
        package: what must be importable; empty for what is always there.
        gpu_only: it does not run on a CPU.
        options: how negatives are shared, as `sampled_cross_entropy` takes it.
    """

    loss: Callable[[Problem], Tensor]
    sampled: bool = False
    package: str = ""
    gpu_only: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def group_rows(self, rows: int) -> int:
        """Returns how many of `rows` share their negatives."""
        sharing = self.options.get("sharing", 1)
        return rows if sharing == "batch" else int(sharing)


def oracle(problem: Problem, peer: Peer) -> Tensor:
    """Returns the loss of a float64 problem, by the definition (papers/cce section 1.1)."""
    if not peer.sampled:
        return cross_entropy(problem.hidden @ problem.items.T, problem.targets)
    options = {"num_negatives": problem.num_negatives} | peer.options | {"kernel": "reference"}
    return effrec_kernels.sampled_cross_entropy(problem.hidden, problem.items, problem.targets, **options)


def available(device: torch.device) -> list[str]:
    """Returns the peers that can run on `device` here."""
    return [name for name, peer in PEERS.items() if _runs(peer, device)]


def _runs(peer: Peer, device: torch.device) -> bool:
    if peer.gpu_only and device.type != "cuda":
        return False
    if peer.package == "torch.nn.LinearCrossEntropyOptions":
        return hasattr(torch.nn, "LinearCrossEntropyOptions")
    if peer.package == OFFICIAL:
        return OFFICIAL in os.environ
    return not peer.package or importlib.util.find_spec(peer.package) is not None


def _torch_ce(problem: Problem) -> Tensor:
    return cross_entropy((problem.hidden @ problem.items.T).float(), problem.targets)


@cache
def _compiled_ce() -> Callable[[Problem], Tensor]:
    return torch.compile(_torch_ce)


def _torch_chunked_ce(problem: Problem) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return torch.nn.functional.linear_cross_entropy(
        problem.hidden, problem.items, problem.targets, options=options
    )


def _torch_ce_sampled(problem: Problem) -> Tensor:
    return effrec_kernels.sampled_cross_entropy_dense(
        problem.hidden, problem.items, problem.targets, num_negatives=problem.num_negatives
    )


def _cce(problem: Problem, kernel: str = "auto") -> Tensor:
    return effrec_kernels.linear_cross_entropy(problem.hidden, problem.items, problem.targets, kernel=kernel)


def _cce_sampled(problem: Problem, **options: Any) -> Tensor:
    tensors = problem.hidden, problem.items, problem.targets
    return effrec_kernels.sampled_cross_entropy(*tensors, num_negatives=problem.num_negatives, **options)


def _ours(gpu_only: bool = False, **options: Any) -> Peer:
    """Returns the sampled softmax of `effrec_kernels` with some options."""
    return Peer(partial(_cce_sampled, **options), sampled=True, gpu_only=gpu_only, options=options)


def _official(problem: Problem) -> Tensor:
    """Returns the paper's kernels' loss, from the folder that the user gives.

    It holds a module `official_cce` with `loss(hidden, items, targets, negatives)`, the mean over rows.
    """
    folder = os.environ[OFFICIAL]
    if folder not in sys.path:
        sys.path.insert(0, folder)
    loss = importlib.import_module("official_cce").loss
    return loss(problem.hidden, problem.items, problem.targets, problem.negatives())


def _liger(problem: Problem) -> Tensor:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss()(problem.items, problem.hidden, problem.targets)


def _apple_cce(problem: Problem) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(problem.hidden, problem.items, problem.targets)


PEERS = {
    "torch ce": Peer(_torch_ce),
    "torch.compile ce": Peer(lambda problem: _compiled_ce()(problem), gpu_only=True),
    "torch linear_cross_entropy": Peer(_torch_chunked_ce, package="torch.nn.LinearCrossEntropyOptions"),
    "liger": Peer(_liger, package="liger_kernel", gpu_only=True),
    "apple cce": Peer(_apple_cce, package="cut_cross_entropy", gpu_only=True),
    "effrec cce": Peer(_cce),
    "torch ce_sampled": Peer(_torch_ce_sampled, sampled=True),
    "official cce_sampled": Peer(_official, sampled=True, package=OFFICIAL, gpu_only=True),
    "effrec cce_sampled": _ours(),
    "effrec cce_sampled, in PyTorch": _ours(gpu_only=True, kernel="torch"),
    "effrec cce_sampled, fixed order": _ours(gpu_only=True, deterministic=True),
    "effrec tiles of 16": _ours(gpu_only=True, sharing=16),
    "effrec tiles of 64": _ours(sharing=64),
    "effrec tiles of 64, fixed order": _ours(gpu_only=True, sharing=64, deterministic=True),
    "effrec tiles of 128": _ours(gpu_only=True, sharing=128),
    "effrec one set for the batch": _ours(sharing="batch"),
    "effrec cce, Triton": Peer(partial(_cce, kernel="triton"), gpu_only=True),
}


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()
