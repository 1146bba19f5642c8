"""PyTorch's counter of operations sees the losses, a fused one as large as its plain form."""

import importlib

import effrec_kernels
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

M, V, N, D = 12, 40, 7, 16


@pytest.fixture
def rows():
    torch.manual_seed(0)
    hidden = torch.randn(M, D, requires_grad=True)
    items = torch.randn(V, D, requires_grad=True)
    return hidden, items, torch.randint(0, V, (M,))


def counted(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_the_full_softmax_counts_as_its_plain_form(rows):
    hidden, items, targets = rows

    def plain():
        return F.cross_entropy(hidden @ items.T, targets)

    with torch.no_grad():
        assert counted(lambda: effrec_kernels.linear_cross_entropy(*rows)) == counted(plain) == 2 * M * V * D
    whole = counted(lambda: effrec_kernels.linear_cross_entropy(*rows).backward())
    assert whole == counted(lambda: plain().backward()) == 6 * M * V * D


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_sampled_softmax_counts_its_candidates_alone(rows, reduction):
    def loss():
        return effrec_kernels.sampled_cross_entropy(*rows, num_negatives=N, reduction=reduction)

    with torch.no_grad():
        assert counted(loss) == 2 * M * (N + 1) * D
    passes = 3 if reduction == "mean" else 4  # kept rows' gradients need the logits again
    assert counted(lambda: loss().sum().backward()) == passes * 2 * M * (N + 1) * D


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_kernel_and_kind_of_gradient_is_counted(rows, kernel, sparse):
    """Forward, logits again and both gradients, of which Triton's forward makes that by hidden states."""
    if kernel == "triton":
        pytest.importorskip("triton")
        # A counter knows the formulas that there are when it is made.
        importlib.import_module("effrec_kernels.triton_kernels.operators")

    def loss():
        options = {"num_negatives": N, "sharing": 4, "sparse": sparse, "reduction": "none", "kernel": kernel}
        return effrec_kernels.sampled_cross_entropy(*rows, **options)

    with torch.no_grad():
        assert counted(loss) == 2 * M * (N + 1) * D
    assert counted(lambda: loss().sum().backward()) == 4 * 2 * M * (N + 1) * D
