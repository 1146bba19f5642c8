"""Problems for kernel tests, the oracle's answers to them, and how far an answer may be off."""

from dataclasses import dataclass

import torch
from effrec_kernels import reference

# Relative L2 error allowed against the oracle on inputs rounded to the dtype that gradients are stored in.
LOSS_BOUND = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float16: 1e-5}
GRADIENT_BOUND = {torch.float64: 1e-11, torch.float32: 5e-5, torch.bfloat16: 2e-3, torch.float16: 5e-4}
# On CUDA 16-bit coefficients meet 16-bit tables in tensor cores, so coefficients are rounded too.
CUDA_16_BIT_SLACK = 2


@dataclass
class Case:
    hidden: torch.Tensor
    items: torch.Tensor
    targets: torch.Tensor
    negatives: torch.Tensor
    weights: torch.Tensor

    @property
    def tensors(self):
        return self.hidden, self.items, self.targets

    def leaves(self):
        """Returns fresh copies of hidden and items that take gradients."""
        return tuple(tensor.detach().clone().requires_grad_() for tensor in (self.hidden, self.items))


def make_case(rows=33, negatives=15, items=1001, dim=16, dtype=torch.float32, device="cpu", seed=0):
    """Returns a random problem with logits of spread about 2, every seventh row without a target."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, dim, generator=draw) * 2 / dim**0.5
    table = torch.randn(items, dim, generator=draw)
    targets = torch.randint(items, (rows,), generator=draw)
    if rows > 2:
        targets[::7] = -100
    ids = torch.randint(items, (rows, negatives), generator=draw)
    weights = torch.rand(rows, generator=draw) + 0.5
    return Case(
        hidden.to(device, dtype),
        table.to(device, dtype),
        targets.to(device),
        ids.to(device),
        weights.to(device),
    )


def upstream_of(case):
    """Returns an uneven gradient for the rows' losses."""
    return torch.linspace(-1, 2, len(case.targets), device=case.targets.device)


def oracle(case, upstream, *, full=False, beta=None, **options):
    """Returns the reference's loss [M] and both gradients, float64, for `upstream` flowing into the rows."""
    hidden, items = (
        tensor.detach().double().clone().requires_grad_() for tensor in (case.hidden, case.items)
    )
    if full:
        loss, _ = reference.full_rows(hidden, items, case.targets, **options)
    elif beta is not None:
        loss = reference.binary_rows(hidden, items, case.targets, case.negatives, beta=beta, **options)
    else:
        loss, _ = reference.sampled_rows(hidden, items, case.targets, case.negatives, **options)
    loss.backward(upstream.double())
    return loss.detach(), hidden.grad, items.grad


def answer(case, loss_function, upstream=None, **options):
    """Returns a kernel's result and both gradients."""
    hidden, items = case.leaves()
    result = loss_function(hidden, items, case.targets, **options)
    result.backward(upstream)
    return result.detach(), hidden.grad, items.grad


def relative(found, true):
    """Returns the L2 error as a share of the true tensor's norm."""
    return float((found.double() - true.double()).norm() / true.double().norm().clamp(min=1e-30))


def check(found, true, dtype):
    """Asserts that loss and gradients are near enough, finite, and gradients stored in `dtype`."""
    slack = CUDA_16_BIT_SLACK if found[0].is_cuda and dtype in (torch.float16, torch.bfloat16) else 1
    bounds = LOSS_BOUND[dtype], GRADIENT_BOUND[dtype] * slack, GRADIENT_BOUND[dtype] * slack
    for name, one, other, bound in zip(("loss", "hidden", "items"), found, true, bounds, strict=True):
        assert torch.isfinite(one).all(), name
        # A few numbers may all be unlucky in rounding: what storing the truth would cost is allowed.
        stored = relative(other.to(dtype), other) if name != "loss" else 0
        assert relative(one, other) <= max(bound, 1.1 * stored), name
    assert found[1].dtype == found[2].dtype == dtype
