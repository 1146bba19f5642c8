"""Losses on a GPU: the values of a CPU, the same negatives to the bit, and no tensor of size [M, N, D]."""

import effrec_kernels
import pytest
import torch

pytestmark = pytest.mark.gpu

M, V, N, D = 300, 1009, 65, 48
SAMPLED = (effrec_kernels.sampled_cross_entropy, effrec_kernels.sampled_cross_entropy_dense)


def problem(dtype=torch.float32):
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(M, D, generator=draw).to(dtype)
    items = (torch.randn(V, D, generator=draw) / D**0.5).to(dtype)
    targets = torch.randint(V, (M,), generator=draw)
    targets[::7] = -100
    return hidden, items, targets


def on(device, loss, tensors, **options):
    """Returns the loss and both gradients, in float64 on the CPU."""
    hidden, items, targets = (tensor.to(device) for tensor in tensors)
    hidden.requires_grad_()
    items.requires_grad_()
    value = loss(hidden, items, targets, **options)
    value.backward()
    return [tensor.detach().cpu().double() for tensor in (value, hidden.grad, items.grad)]


def relative(found, true):
    return float((found - true).norm() / true.norm())


def test_negatives_are_those_of_a_cpu_to_the_bit(gpu):
    rows = torch.tensor([0, 1, 5, 2**31, 2**40 + 3])
    for seed, step, items in [(0, 0, 2), (1, 7, 1009), (2**40 + 1, 2**31, 10_000_000)]:
        there = effrec_kernels.draw_negatives(rows.to(gpu), 333, items, seed=seed, step=step)
        here = effrec_kernels.draw_negatives(rows, 333, items, seed=seed, step=step)
        assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize("loss", SAMPLED)
@pytest.mark.parametrize("correction", ["exact", "constant", "none"])
def test_sampled_losses_equal_those_of_a_cpu(gpu, loss, correction):
    options = {"num_negatives": N, "seed": 5, "step": 2, "correction": correction}
    there, here = (on(device, loss, problem(), **options) for device in (gpu, "cpu"))
    assert all(relative(*pair) < 1e-5 for pair in zip(there, here, strict=True))


def test_full_softmax_equals_that_of_a_cpu(gpu):
    there, here = (on(device, effrec_kernels.linear_cross_entropy, problem()) for device in (gpu, "cpu"))
    assert all(relative(*pair) < 1e-5 for pair in zip(there, here, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float64(gpu, dtype):
    tensors = problem(dtype)
    found = on(gpu, effrec_kernels.sampled_cross_entropy, tensors, num_negatives=N)
    exact = [tensors[0].double(), tensors[1].double(), tensors[2]]
    true = on("cpu", effrec_kernels.sampled_cross_entropy, exact, num_negatives=N)
    assert all(relative(*pair) < 4e-3 for pair in zip(found, true, strict=True))


def peak(gpu, loss, tensors, **options):
    """Returns the peak beyond what stood before, in bytes."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss(*tensors, **options).backward()
    torch.cuda.synchronize()
    for tensor in tensors[:2]:
        tensor.grad = None
    return torch.cuda.max_memory_allocated() - before


def test_sampled_loss_needs_a_fraction_of_the_dense_ones_memory(gpu):
    rows, items, negatives, dim = 8192, 50_000, 511, 128
    hidden = torch.randn(rows, dim, device=gpu, requires_grad=True)
    table = torch.randn(items, dim, device=gpu, requires_grad=True)
    tensors = (hidden, table, torch.randint(items, (rows,), device=gpu))
    bound = 16 << 20
    dense = peak(gpu, effrec_kernels.sampled_cross_entropy_dense, tensors, num_negatives=negatives)
    ours = peak(
        gpu, effrec_kernels.sampled_cross_entropy, tensors, num_negatives=negatives, chunk_bytes=bound
    )
    gathered = rows * negatives * dim * 4
    gradients = hidden.nbytes + table.nbytes
    assert dense > gathered
    assert ours < 2 * gradients + 4 * bound
    assert ours < dense / 10
