"""SCE: who is in which bucket, the oracle's values there, its draws, its memory."""

import math
from collections import namedtuple

import pytest
import torch
from effrec_kernels import reference, sampled_cross_entropy, scalable_cross_entropy
from effrec_kernels.buckets import bucket_sizes, directions, fill_buckets
from effrec_kernels.rng import Key
from kernel_cases import check, make_case, relative, upstream_of
from test_memory import allocations, run_of
from torch._dynamo.testing import CompileCounterWithBackend

Buckets = namedtuple("Buckets", "rows items")
KEY = {"seed": 5, "step": 2}


def buckets_of(case, number, rows, items, mix, first=0, seed=5, step=2):
    """Returns buckets as plain PyTorch finds them: the furthest along each direction, in float64."""
    valid = case.targets != -100
    states = case.hidden.masked_fill(~valid[:, None], 0)
    along = directions(states, number, Key(seed, step), mix, first).double()
    of_rows = (along @ states.double().T).masked_fill(~valid, -math.inf)
    of_items = along @ case.items.double().T
    return Buckets(of_rows.topk(rows).indices, of_items.topk(items).indices)


def expected(case, buckets, upstream=None, **options):
    """Returns the oracle's rows, which are covered, and both gradients, for `upstream` or the mean."""
    hidden, items = (tensor.detach().double().requires_grad_() for tensor in (case.hidden, case.items))
    rows, covered = reference.bucket_rows(hidden, items, case.targets, buckets.rows, buckets.items, **options)
    result = rows.sum() / max(1, int(covered.sum())) if upstream is None else rows
    result.backward(upstream)
    return result.detach(), hidden.grad, items.grad, covered


def found(case, upstream=None, **options):
    hidden, items = case.leaves()
    result = scalable_cross_entropy(hidden, items, case.targets, **KEY, **options)
    result.backward(upstream)
    return result.detach(), hidden.grad, items.grad


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("items", [12, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradients_are_the_oracles(device, items, temperature, mix, dtype):
    case = make_case(items=items, dtype=dtype, device=device)
    options = {"num_buckets": 6, "bucket_rows": 7, "bucket_items": 8, "mix": mix}
    buckets = buckets_of(case, 6, 7, 8, mix)
    *true, covered = expected(case, buckets, temperature=temperature)
    assert 10 < covered.sum() < 28, "some in several buckets, some in none"
    check(found(case, temperature=temperature, **options), true, dtype)
    upstream = upstream_of(case)
    *true, _ = expected(case, buckets, upstream.double(), temperature=temperature)
    rows = found(case, upstream.to(dtype), reduction="none", temperature=temperature, **options)
    check(rows, true, dtype)
    assert torch.equal(rows[0] != 0, covered & (true[0] != 0).to(device))


@pytest.mark.parametrize("kernel", ["reference", "triton"])
def test_any_kernel_has_the_same_values(device, kernel):
    if kernel == "triton":
        pytest.importorskip("triton")
    case = make_case(items=60, device=device)
    options = {"num_buckets": 4, "bucket_rows": 9, "bucket_items": 7}
    for one, other in zip(found(case, **options), found(case, kernel=kernel, **options), strict=True):
        assert relative(one, other) < 1e-5


def test_a_position_in_several_buckets_has_its_largest_loss():
    """Every position in every bucket: each has the hardest bucket's loss."""
    case = make_case(items=50)
    case.targets[case.targets == -100] = 3
    buckets = buckets_of(case, 7, 33, 5, mix=False)
    each = [
        reference.sampled_rows(*case.tensors, ids.expand(33, -1), correction="none")[0]
        for ids in buckets.items
    ]
    assert len({tuple(sorted(ids.tolist())) for ids in buckets.items}) > 1
    hardest = torch.stack(each).amax(0).mean()
    loss = scalable_cross_entropy(
        *case.tensors, num_buckets=7, bucket_rows=33, bucket_items=5, mix=False, **KEY
    )
    assert loss.item() == pytest.approx(hardest.item(), rel=1e-5)


@pytest.mark.parametrize("mix", [False, True])
def test_with_all_positions_and_items_it_is_the_full_softmax(mix):
    case = make_case(items=40)
    loss = scalable_cross_entropy(
        *case.tensors, num_buckets=2, bucket_rows=99, bucket_items=999, mix=mix, **KEY
    )
    rows, _ = reference.full_rows(*case.tensors)
    assert loss.item() == pytest.approx(rows[case.targets != -100].mean().item(), rel=1e-5)


def test_mined_items_are_harder_than_drawn_ones():
    case = make_case(rows=400, items=5000, dim=32)
    drawn = sampled_cross_entropy(*case.tensors, num_negatives=256, correction="none", **KEY)
    plain, mixed = (scalable_cross_entropy(*case.tensors, mix=mix, **KEY) for mix in (False, True))
    assert plain > drawn + 0.3
    assert mixed > drawn + 0.3


def test_projections_stay_in_the_range_of_float16():
    """States that have much in common make long directions, on which projections would all be infinite."""
    draw = torch.Generator().manual_seed(1)
    states = (20 + torch.randn(64, 64, generator=draw)).half()
    items = (20 * torch.rand(500, 1, generator=draw) + torch.randn(500, 64, generator=draw)).half()
    counts, options = (8, 8, 16), (True, 1 << 20, None)
    targets = torch.zeros(64, dtype=torch.int64)
    rows, ids = fill_buckets(states, items, targets, None, 0, -100, *KEY.values(), *counts, *options)
    along = directions(states, 8, Key(*KEY.values()), True)
    for found, vectors in ((rows.view(8, 8), states), (ids, items)):
        scores = along @ vectors.float().T
        others = scores.scatter(1, found, -math.inf).amax(dim=1)
        assert (scores.gather(1, found).amin(dim=1) >= others - 2e-3 * scores.abs().amax(dim=1)).all()


def test_a_target_in_the_bucket_is_masked():
    """The only item of the bucket is the position's own: nothing is left to tell it from."""
    case = make_case(rows=1, items=1)
    loss, *gradients = found(case, num_buckets=1)
    assert loss == 0
    assert not any(tensor.any() for tensor in gradients)


@pytest.mark.parametrize("rows", [0, 5])
def test_no_targets_at_all_are_a_loss_of_zero(device, rows):
    case = make_case(rows=rows, device=device)
    case.targets[:] = -100
    loss, of_hidden, of_items = found(case)
    assert loss == 0
    assert not of_hidden.any()
    assert not of_items.any()


@pytest.mark.parametrize("mix", [False, True])
def test_padding_is_in_no_bucket_and_leaks_nothing(mix):
    """More positions asked for than there are targets."""
    case = make_case(items=100)
    options = {"num_buckets": 5, "bucket_rows": 30, "bucket_items": 9, "mix": mix}
    clean = found(case, **options)
    case.hidden[case.targets == -100] = math.nan
    for one, other in zip(found(case, **options), clean, strict=True):
        torch.testing.assert_close(one, other)
    assert (case.targets != -100).sum() < 30


@pytest.mark.parametrize("mix", [False, True])
def test_draws_are_a_function_of_seed_and_step(mix):
    case = make_case(items=200)
    options = {"num_buckets": 3, "bucket_rows": 8, "bucket_items": 8, "mix": mix}
    state = torch.get_rng_state()
    values = [
        scalable_cross_entropy(*case.tensors, seed=seed, step=step, **options).item()
        for seed, step in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert values[0] == values[1]
    assert len(set(values)) == 3


def test_directions_are_standard_normal_and_differ():
    along = directions(torch.zeros(1, 64), 4000, Key(3, 7), mix=False)
    assert abs(along.mean()) < 0.01
    assert along.std() == pytest.approx(1, abs=0.01)
    assert (along.abs() < 1).double().mean() == pytest.approx(0.6827, abs=0.005)
    assert (along**4).mean() == pytest.approx(3, abs=0.1)
    correlations = (along.T @ along / 4000 - torch.eye(64)).abs()
    assert correlations.max() < 6 / 4000**0.5
    assert len(along.unique()) > 0.99 * along.numel()


@pytest.mark.parametrize("room", [100, 10_000, 1 << 25])
def test_mixtures_weigh_rows_by_their_global_numbers(room):
    """Two halves, each with its numbers, add up to the whole; numbers one by one are the same."""
    states = make_case(rows=40).hidden
    whole = directions(states, 6, Key(3, 7), True, 100, room)
    halves = [
        directions(states[some], 6, Key(3, 7), True, 100 + some.start)
        for some in (slice(0, 15), slice(15, 40))
    ]
    torch.testing.assert_close(sum(halves), whole)
    numbers = torch.arange(100, 140)
    torch.testing.assert_close(directions(states, 6, Key(3, 7), True, numbers), whole)
    weights = directions(torch.eye(4000), 8, Key(3, 7), True)
    assert weights.std() == pytest.approx(1, abs=0.02)
    assert abs(weights.mean()) < 0.02


@pytest.mark.parametrize(
    ("rows", "asked", "sizes"),
    [
        (0, (None, None), (0, 0)),
        (1, (None, None), (2, 1)),
        (100, (None, None), (20, 20)),
        (49_152, (None, None), (443, 443)),
        (100, (7, 300), (7, 100)),
    ],
)
def test_sizes_follow_the_batch(rows, asked, sizes):
    """443 is what the published runs have."""
    assert bucket_sizes(rows, *asked) == sizes


@pytest.mark.parametrize("room", [1, 2000, 1 << 20])
def test_any_chunk(room):
    case = make_case(items=200)
    one = found(case, chunk_bytes=room)
    assert all(relative(*pair) < 1e-5 for pair in zip(one, found(case), strict=True))


def test_no_logits_of_all_items_are_held():
    """States of buckets are 4 M D; beyond them a chunk, and gradients."""
    rows, items, dim, room = 2000, 20_000, 32, 1 << 20
    run = run_of(scalable_cross_entropy, rows=rows, items=items, chunk_bytes=room, bucket_items=32)
    largest, peak = allocations(run)
    copies = 4 * rows * dim * 4
    assert largest <= max(items * dim * 4, room, copies) < rows * items * 4 / 10
    assert peak < 2 * items * dim * 4 + 4 * copies + 6 * room < rows * items * 4 / 4


def test_one_bucket_alone_moves_a_state():
    """Gradients of a state that is in several buckets do not add up, but for the largest loss's."""
    case = make_case(rows=20, items=50)
    case.targets[case.targets == -100] = 3
    options = {"num_buckets": 6, "bucket_rows": 20, "bucket_items": 5, "mix": False}
    _, of_hidden, _ = found(case, **options)
    buckets = buckets_of(case, 6, 20, 5, mix=False)
    hidden = case.hidden.detach().requires_grad_()
    each = torch.stack(
        [
            reference.sampled_rows(hidden, *case.tensors[1:], ids.expand(20, -1), correction="none")[0]
            for ids in buckets.items
        ]
    )
    hardest = each.argmax(0)
    assert len(hardest.unique()) > 1
    each.gather(0, hardest[None]).mean().backward()
    assert relative(of_hidden, hidden.grad) < 1e-5


def test_autocast_and_compiled_graphs(device):
    case = make_case(items=300, dtype=torch.bfloat16, device=device)
    case.hidden, case.items = case.hidden.float(), case.items.float()
    options = {"num_buckets": 5, "bucket_rows": 8, "bucket_items": 9, **KEY}
    plain = scalable_cross_entropy(*case.tensors, **options)
    with torch.autocast(device.type, torch.bfloat16):
        rounded = scalable_cross_entropy(*case.tensors, **options)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(plain.item(), rel=0.05)
    compiled = torch.compile(
        lambda *tensors: scalable_cross_entropy(*tensors, **options), backend="aot_eager"
    )
    torch.testing.assert_close(compiled(*case.tensors), plain)


def test_one_graph_for_any_number_of_rows(device):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(scalable_cross_entropy, backend=counter, fullgraph=True)
    torch._dynamo.reset()
    counts = []
    for step, rows in enumerate([33, 40, 27, 50]):
        case = make_case(rows=rows, items=300, device=device)
        results = []
        for loss in (scalable_cross_entropy, compiled):
            hidden, items = case.leaves()
            value = loss(hidden, items, case.targets, seed=3, step=step)
            value.backward()
            results.append((value.detach(), hidden.grad, items.grad))
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
        counts.append(counter.frame_count)
    assert counts[2] == counts[-1], f"compiled again at each number of rows: {counts}"


@pytest.mark.parametrize("rounding", [None, torch.bfloat16])
@pytest.mark.parametrize("mix", [False, True])
def test_the_operator_keeps_pytorchs_contract(device, mix, rounding):
    case = make_case(items=60, device=device)
    options = (None, 3, -100, 5, 2, 4, 6, 7, mix, 1 << 20, rounding)
    torch.library.opcheck(fill_buckets, (*case.tensors, *options))


@pytest.mark.parametrize("compiled", [False, True])
def test_targets_outside_the_table_are_found_in_rows_of_no_bucket(compiled):
    case = make_case(items=60)
    options = {"num_buckets": 1, "bucket_rows": 1, "bucket_items": 5, **KEY}
    loss = scalable_cross_entropy
    if compiled:
        loss = torch.compile(loss, backend="aot_eager", fullgraph=True)
    case.targets[1:] = 60
    with pytest.raises(IndexError, match=r"targets holds 32 ids outside \[0, 60\), the first is 60"):
        loss(*case.tensors, **options)


def test_micro_batches_add_up_to_all_that_is_covered():
    """The sum over covered positions, divided by their number in all micro-batches."""
    case = make_case(items=300)
    options = {"num_buckets": 2, "bucket_rows": 5, "bucket_items": 6, **KEY}
    parts = [case.hidden[:20], case.hidden[20:]], [case.targets[:20], case.targets[20:]]
    total, number, rows = 0.0, 0, []
    for hidden, targets in zip(*parts, strict=True):
        loss, covered = scalable_cross_entropy(
            hidden, case.items, targets, reduction="sum", return_covered=True, **options
        )
        assert covered.dtype == torch.bool
        rows.append(scalable_cross_entropy(hidden, case.items, targets, reduction="none", **options))
        assert loss.item() == pytest.approx(rows[-1].sum().item(), rel=1e-6)
        assert (rows[-1][~covered] == 0).all()
        mean = scalable_cross_entropy(hidden, case.items, targets, **options)
        assert mean.item() == pytest.approx(loss.item() / int(covered.sum()), rel=1e-6)
        total, number = total + loss.item(), number + int(covered.sum())
    assert 0 < number < 28
    normalizer = torch.tensor(float(number))
    divided = [
        scalable_cross_entropy(hidden, case.items, targets, normalizer=normalizer, **options).item()
        for hidden, targets in zip(*parts, strict=True)
    ]
    assert sum(divided) == pytest.approx(total / number, rel=1e-6)


def test_row_weights_multiply_positions():
    case = make_case(items=300)
    options = {"num_buckets": 3, "bucket_rows": 7, "bucket_items": 6, **KEY}
    case.weights[case.targets == -100] = float("nan")
    plain = scalable_cross_entropy(*case.tensors, reduction="none", **options)
    weighed = scalable_cross_entropy(*case.tensors, reduction="none", row_weights=case.weights, **options)
    live = case.targets != -100
    assert torch.equal(weighed[live], (plain * case.weights)[live])
    assert (weighed[~live] == 0).all()
    mean, covered = scalable_cross_entropy(
        *case.tensors, row_weights=case.weights, return_covered=True, **options
    )
    assert mean.item() == pytest.approx(weighed.sum().item() / int(covered.sum()), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_buckets": 0}, "num_buckets must be at least 1"),
        ({"bucket_rows": 0}, "bucket_rows must be at least 1"),
        ({"bucket_items": 0}, "bucket_items must be at least 1"),
        ({"reduction": "avg"}, "reduction must be one of mean, sum, none"),
        ({"step": -1}, "step must be"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"return_covered": "no"}, "return_covered must be True or False"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        scalable_cross_entropy(*make_case().tensors, **options)
