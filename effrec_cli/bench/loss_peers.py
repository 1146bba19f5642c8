"""Who computes a loss over a large catalogue: PyTorch as it comes, other libraries, and ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace

import effrec_kernels
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


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
    """

    loss: Callable[[Problem], Tensor]
    sampled: bool = False
    package: str = ""
    gpu_only: bool = False


def oracle(problem: Problem, *, sampled: bool) -> Tensor:
    """Returns the loss of a float64 problem, by the definition (papers/cce section 1.1)."""
    if not sampled:
        return cross_entropy(problem.hidden @ problem.items.T, problem.targets)
    rows, _ = effrec_kernels.reference.sampled_rows(
        problem.hidden, problem.items, problem.targets, problem.negatives(), correction="exact"
    )
    return rows.mean()


def available(device: torch.device) -> list[str]:
    """Returns the peers that can run on `device` here."""
    return [name for name, peer in PEERS.items() if _runs(peer, device)]


def _runs(peer: Peer, device: torch.device) -> bool:
    if peer.gpu_only and device.type != "cuda":
        return False
    if peer.package == "torch.nn.LinearCrossEntropyOptions":
        return hasattr(torch.nn, "LinearCrossEntropyOptions")
    return not peer.package or importlib.util.find_spec(peer.package) is not None


def _torch_ce(problem: Problem) -> Tensor:
    return cross_entropy((problem.hidden @ problem.items.T).float(), problem.targets)


def _torch_chunked_ce(problem: Problem) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return torch.nn.functional.linear_cross_entropy(
        problem.hidden, problem.items, problem.targets, options=options
    )


def _torch_ce_sampled(problem: Problem) -> Tensor:
    return effrec_kernels.sampled_cross_entropy_dense(
        problem.hidden, problem.items, problem.targets, num_negatives=problem.num_negatives
    )


def _cce(problem: Problem) -> Tensor:
    return effrec_kernels.linear_cross_entropy(problem.hidden, problem.items, problem.targets)


def _cce_sampled(problem: Problem) -> Tensor:
    return effrec_kernels.sampled_cross_entropy(
        problem.hidden, problem.items, problem.targets, num_negatives=problem.num_negatives
    )


def _liger(problem: Problem) -> Tensor:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss()(problem.items, problem.hidden, problem.targets)


def _apple_cce(problem: Problem) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(problem.hidden, problem.items, problem.targets)


PEERS = {
    "torch ce": Peer(_torch_ce),
    "torch linear_cross_entropy": Peer(_torch_chunked_ce, package="torch.nn.LinearCrossEntropyOptions"),
    "liger": Peer(_liger, package="liger_kernel", gpu_only=True),
    "apple cce": Peer(_apple_cce, package="cut_cross_entropy", gpu_only=True),
    "effrec cce": Peer(_cce),
    "torch ce_sampled": Peer(_torch_ce_sampled, sampled=True),
    "effrec cce_sampled": Peer(_cce_sampled, sampled=True),
}


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()
