"""The Triton kernels where no interpreter speaks for them: graphs, large offsets, contention, memory."""

import pytest
import torch
from effrec_kernels import draw_negatives, sampled_cross_entropy, which_kernel
from effrec_kernels.reference import sampled_rows

pytestmark = pytest.mark.gpu

SHARINGS = [{}, {"sharing": 64}, {"sharing": "batch"}]
NAMES = ["row", "tile", "batch"]


def problem(gpu, rows=1000, items=5000, dim=64, dtype=torch.bfloat16):
    draw = torch.Generator(gpu).manual_seed(1)
    hidden = torch.randn(rows, dim, generator=draw, device=gpu).to(dtype).requires_grad_()
    table = (torch.randn(items, dim, generator=draw, device=gpu) / dim**0.5).to(dtype).requires_grad_()
    return hidden, table, torch.randint(items, (rows,), generator=draw, device=gpu)


def gradients(tensors, **options):
    """Returns loss and gradients, leaving none behind."""
    loss = sampled_cross_entropy(*tensors, **options)
    found = torch.autograd.grad(loss, tensors[:2])
    return loss.detach(), *found


def test_auto_takes_triton(gpu):
    assert which_kernel("auto", torch.zeros(1, device=gpu)) == "triton"
    assert which_kernel("auto", torch.zeros(1, device=gpu), full=True) == "torch"
    assert which_kernel("auto", torch.zeros(1, device=gpu, dtype=torch.float64)) == "torch"


@pytest.mark.parametrize("sharing", SHARINGS, ids=NAMES)
def test_a_graph_replayed_draws_anew(gpu, sharing):
    """The generator's state is on the device: counted on between replays, each draws what that step draws."""
    tensors = problem(gpu)
    state = torch.tensor([7, 0], device=gpu)
    options = {"num_negatives": 127, **sharing}
    gradients(tensors, rng_state=state, **options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients(tensors, rng_state=state, **options)
    for step in range(3):
        state[1] = step
        graph.replay()
        eager = gradients(tensors, seed=7, step=step, **options)
        torch.testing.assert_close(captured[0], eager[0], rtol=1e-6, atol=0)
        for one, other in zip(captured[1:], eager[1:], strict=True):
            torch.testing.assert_close(one.float(), other.float(), rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("sharing", SHARINGS, ids=NAMES)
def test_a_fixed_order_gives_the_same_bits(gpu, sharing):
    tensors = problem(gpu, items=50)
    options = {"num_negatives": 255, "deterministic": True, **sharing}
    first = gradients(tensors, **options)
    for _ in range(20):
        assert all(map(torch.equal, gradients(tensors, **options), first))


@pytest.mark.parametrize("sharing", SHARINGS, ids=NAMES)
def test_atomics_under_contention_end_and_add_up(gpu, sharing):
    """Every negative of every row is one item: a thousand passes end, and sums stay near PyTorch's."""
    tensors = problem(gpu, rows=4096, items=8, dtype=torch.float32)
    sets = {"row": 4096, "tile": 64, "batch": 1}[NAMES[SHARINGS.index(sharing)]]
    negatives = torch.full((sets, 256), 3, dtype=torch.int32, device=gpu)
    options = {"negatives": negatives, "correction": "none", **sharing}
    for _ in range(1000):
        _, _, of_items = gradients(tensors, **options)
    exact = gradients(tensors, kernel="torch", **options)[2]
    assert float((of_items - exact).norm() / exact.norm()) < 1e-4


@pytest.mark.parametrize("sharing", SHARINGS, ids=NAMES)
def test_memory_is_a_float_a_row_and_the_rows_gradient(gpu, sharing):
    rows, dim = 65_536, 128
    tensors = problem(gpu, rows=rows, items=100_000, dim=dim, dtype=torch.float32)
    gradients(tensors, num_negatives=511, **sharing)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = sampled_cross_entropy(*tensors, num_negatives=511, **sharing)
    kept = torch.cuda.memory_allocated() - before
    assert kept < rows * dim * 4 + 8 * rows * 4 + (1 << 20)
    loss.backward()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - before - sum(tensor.grad.nbytes for tensor in tensors[:2])
    assert extra < rows * dim * 4 + 16 * rows * 4 + (2 << 20)


# Sizes that 32-bit offsets cannot reach: V D, M D and M (N + 1) beyond 2^31.
LARGE = {
    "table": (64, 20_000_000, 128, 15),
    "states": (4_300_000, 1000, 512, 3),
    "pairs": (1_100_000, 1000, 16, 2047),
}


@pytest.mark.parametrize("sharing", SHARINGS[:2], ids=NAMES[:2])
@pytest.mark.parametrize("shape", LARGE)
def test_offsets_beyond_32_bits(gpu, shape, sharing):
    """The last rows' losses are the oracle's, and neither they nor the last item lose their gradient."""
    rows, items, dim, negatives = LARGE[shape]
    hidden = torch.randn(rows, dim, device=gpu, dtype=torch.bfloat16).requires_grad_()
    table = torch.randn(items, dim, device=gpu, dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(items, (rows,), device=gpu)
    targets[-1] = items - 1
    options = {"num_negatives": negatives, "correction": "none", "reduction": "none", **sharing}
    loss = sampled_cross_entropy(hidden, table, targets, **options)
    last = torch.arange(rows - 4, rows, device=gpu)
    keys = last if not sharing else last // 64
    ids = draw_negatives(keys, negatives, items, seed=0, step=0)
    few, where = torch.unique(torch.cat([ids.flatten(), targets[last]]), return_inverse=True)
    ids, own = where[: ids.numel()].view_as(ids), where[ids.numel() :]
    true, _ = sampled_rows(hidden[last].double(), table[few].double(), own, ids, correction="none")
    torch.testing.assert_close(loss[last].double(), true.double(), rtol=1e-3, atol=1e-3)
    loss.sum().backward()
    assert torch.isfinite(hidden.grad[last]).all()
    assert hidden.grad[-1].any()
    assert table.grad[-1].any()


def test_another_stream_and_compiled_code_give_the_same(gpu):
    tensors = problem(gpu, dtype=torch.float32)
    options = {"num_negatives": 63, "sharing": 64, "deterministic": True}
    expected = gradients(tensors, **options)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = gradients(tensors, **options)
    torch.cuda.current_stream().wait_stream(stream)
    assert all(map(torch.equal, found, expected))

    @torch.compile(fullgraph=True)
    def compiled(hidden, table, targets):
        return sampled_cross_entropy(hidden, table, targets, **options)

    loss = compiled(*tensors)
    of_hidden, of_items = torch.autograd.grad(loss, tensors[:2])
    torch.testing.assert_close(of_hidden, expected[1])
    torch.testing.assert_close(of_items, expected[2])
