"""No tensor of size M*N, M*N*D or M*V is ever allocated: cases 23 of the list."""

import gc
import weakref

import pytest
import torch
from effrec_kernels import (
    binary_cross_entropy_sampled,
    linear_cross_entropy,
    sampled_cross_entropy,
    sampled_cross_entropy_dense,
)
from effrec_kernels.arguments import Form, Frame, Negatives, Stream, sampled_problem
from effrec_kernels.compute import compute
from effrec_kernels.objectives import Upstream
from effrec_kernels.parts import Sums
from effrec_kernels.products import add_by_item
from effrec_kernels.slices import slice_of
from kernel_cases import make_case
from torch.profiler import ProfilerActivity, profile

M, N, V, D = 2000, 64, 5000, 32
CHUNK = 1 << 18
# Counters of the generator in flight, whatever the chunk.
GENERATOR = 3 << 20


def allocations(run):
    """Returns the largest allocation and the peak of all together, in bytes, while `run` runs on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = largest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak, largest = max(peak, alive), max(largest, event.nbytes())
    return largest, peak


def run_of(loss, rows=M, items=V, **options):
    case = make_case(rows=rows, negatives=1, items=items, dim=D)
    hidden, table = case.leaves()

    def run():
        loss(hidden, table, case.targets, **options).sum().backward()

    run()
    hidden.grad = table.grad = None
    return run


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("loss", [sampled_cross_entropy, binary_cross_entropy_sampled])
def test_sampled_losses_hold_gradients_and_a_chunk(loss, reduction):
    largest, peak = allocations(run_of(loss, num_negatives=N, reduction=reduction, chunk_bytes=CHUNK))
    gradients = (M + V) * D * 4
    assert largest <= max(V * D * 4, CHUNK) < M * N * 8, "not even ids of all rows"
    assert peak <= 2 * gradients + 3 * CHUNK + GENERATOR < M * N * D * 4


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("sharing", [16, "batch", torch.arange(0, M + 1, 8)])
def test_shared_negatives_hold_gradients_and_a_chunk(sharing, reduction):
    """No [G, N, D] of all groups either, nor logits of all rows."""
    options = {"num_negatives": N, "sharing": sharing, "reduction": reduction, "chunk_bytes": CHUNK}
    largest, peak = allocations(run_of(sampled_cross_entropy, **options))
    gradients = (M + V) * D * 4
    assert largest <= max(V * D * 4, CHUNK) < M * N * 8
    assert peak <= 2 * gradients + 5 * CHUNK + GENERATOR < M * N * D * 4


@pytest.mark.parametrize("sharing", ["row", 16])
def test_a_slice_of_the_catalogue_holds_gradients_of_its_rows_and_a_chunk(sharing):
    case = make_case(rows=M, items=V, dim=D)
    drawn, frame = Negatives(N, None, Stream(), sharing=sharing), Frame(chunk_bytes=CHUNK, kernel="torch")
    whole = sampled_problem(*case.tensors, drawn, Form(), frame)
    part, ones = slice_of(whole, case.items[: V // 4], 0), torch.ones(M)

    def run():
        sums = Sums(torch.zeros_like(part.hidden), torch.zeros_like(part.items))
        compute(part, Upstream(ones, ones), sums)

    run()
    largest, peak = allocations(run)
    assert largest <= max(M * D * 4, CHUNK) < M * N * 8
    assert peak <= (M + V // 4) * D * 4 + 5 * CHUNK + GENERATOR < M * N * D * 4


def test_a_small_catalogue_is_scored_a_chunk_at_a_time():
    items = 6 * N
    largest, _ = allocations(run_of(sampled_cross_entropy, M, items, num_negatives=N, chunk_bytes=CHUNK))
    assert largest <= max(CHUNK, M * D * 4) < M * items * 4


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("rows", "items"), [(M, V), (200, 50_000)])
def test_the_full_softmax_never_holds_more_than_a_chunk_of_logits(rows, items, reduction):
    largest, peak = allocations(
        run_of(linear_cross_entropy, rows, items, reduction=reduction, chunk_bytes=CHUNK)
    )
    assert largest <= items * D * 4 < rows * items * 4
    assert peak <= 2 * (rows + items) * D * 4 + 3 * CHUNK


def test_sums_by_item_keep_to_their_room_where_all_ids_are_distinct():
    rows, width, items, dim, room = 300, 50, 15_000, 32, 1 << 16
    draw = torch.Generator().manual_seed(0)
    ids = torch.randperm(items, generator=draw).int().view(rows, width)
    weights, hidden = torch.rand(rows, width, generator=draw), torch.randn(rows, dim, generator=draw)
    total = torch.zeros(items, dim)
    largest, _ = allocations(lambda: add_by_item(total, ids, weights, hidden, room))
    assert largest <= rows * width * 8 < rows * width * dim * 4
    expected = torch.zeros(items, dim)
    expected[ids.flatten().long()] = (weights[:, :, None] * hidden[:, None]).flatten(0, 1)
    assert torch.equal(total, expected)


def test_the_baseline_holds_it_all():
    """The measure itself works: it sees the [M, N, D] tensors of the plain way."""
    largest, peak = allocations(run_of(sampled_cross_entropy_dense, num_negatives=N))
    assert largest >= (M - M // 7 - 1) * N * D * 4
    assert peak > 2 * largest


def test_backward_frees_what_forward_kept():
    case = make_case()
    hidden, table = case.leaves()
    doubled = hidden * 2
    kept = weakref.ref(doubled)
    loss = sampled_cross_entropy(doubled, table, case.targets, num_negatives=4, reduction="none").sum()
    del doubled
    gc.collect()
    assert kept() is not None, "saved for backward"
    loss.backward()
    gc.collect()
    assert kept() is None
