"""Gradients of a table as rows: emitted, added up, each row once, and equal to the dense ones (case 22)."""

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import (
    RowAdam,
    RowSparse,
    binary_cross_entropy_sampled,
    coalesce,
    gbce,
    popularity,
    sampled_cross_entropy,
    scalable_cross_entropy,
)
from kernel_cases import make_case, relative

GROUPS = [
    pytest.param({"sharing": 8}, id="tiles"),
    pytest.param({"sharing": 8, "sharing_stride": 3, "row_offset": 37}, id="stride"),
    pytest.param({"sharing": 2}, id="pairs"),
    pytest.param({"sharing": torch.tensor([0, 3, 3, 20, 31])}, id="sequences"),
    pytest.param({"sharing": "batch"}, id="batch"),
]
DRAWS = [
    pytest.param({"num_negatives": 15}, id="uniform"),
    pytest.param({"num_negatives": 64, "sampler": "block"}, id="block"),
    pytest.param({"num_negatives": 9, "in_batch": 4, "correction": "none"}, id="in batch"),
]


def dense(gradient):
    """Returns float64 [V, D] of rows, in which a slot may be unused and a row may stand more than once."""
    rows = gradient if isinstance(gradient, RowSparse) else RowSparse.of(gradient)
    out = rows.values.new_zeros(rows.num_rows + 1, rows.values.shape[1], dtype=torch.float64)
    return out.index_add_(0, rows.rows, rows.values.double())[:-1]


def gradients(case, sparse, upstream=None, loss=sampled_cross_entropy, **options):
    hidden, items = case.leaves()
    result = loss(hidden, items, case.targets, seed=3, step=5, sparse=sparse, **options)
    result.backward(upstream)
    return result.detach(), hidden.grad, items.grad


def moved(options, device):
    return {name: one.to(device) if torch.is_tensor(one) else one for name, one in options.items()}


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_rows_hold_what_the_dense_gradient_holds(kernel, groups, draws, device):
    pytest.importorskip("triton")
    case = make_case(rows=33, items=100, dim=20, device=device)
    options = moved(groups | draws, device) | {"kernel": kernel}
    loss, of_hidden, of_items = gradients(case, False, **options)
    sparse_loss, sparse_hidden, rows = gradients(case, True, **options)
    exact = {"rtol": 0, "atol": 0} if kernel == "triton" else {"rtol": 1e-5, "atol": 1e-7}  # or another route
    torch.testing.assert_close((loss, of_hidden), (sparse_loss, sparse_hidden), **exact)
    assert rows.is_sparse
    assert not rows.is_coalesced()
    torch.testing.assert_close(dense(rows), of_items.double(), rtol=1e-5, atol=1e-7)


BUCKETS = {"num_buckets": 5, "bucket_rows": 9, "bucket_items": 7}
OTHERS = [
    pytest.param(binary_cross_entropy_sampled, {"sharing": 8, "num_negatives": 15}, 5 * 15 + 33, id="bce"),
    pytest.param(gbce, {"sharing": "batch", "num_negatives": 9, "in_batch": 4}, 9 + 33, id="gbce"),
    pytest.param(
        gbce, {"sharing": torch.tensor([0, 3, 3, 20, 31]), "num_negatives": 15}, 4 * 15 + 33, id="gbce spans"
    ),
    pytest.param(scalable_cross_entropy, BUCKETS, 5 * (7 + 9), id="sce"),
    pytest.param(scalable_cross_entropy, BUCKETS | {"bucket_rows": 1}, 5 * (7 + 1), id="sce of one row"),
]


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("loss", "options", "slots"), OTHERS)
@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_sigmoids_and_buckets_give_rows_too(kernel, loss, options, slots, reduction, device):
    pytest.importorskip("triton")
    case = make_case(rows=33, items=100, dim=20, device=device)
    upstream = torch.linspace(-1, 2, 33, device=device) if reduction == "none" else None
    options = moved(options, device) | {"kernel": kernel, "reduction": reduction, "temperature": 0.5}
    value, of_hidden, of_items = gradients(case, False, upstream, loss, **options)
    sparse_value, sparse_hidden, rows = gradients(case, True, upstream, loss, **options)
    torch.testing.assert_close(value, sparse_value)
    assert relative(sparse_hidden, of_hidden) < 1e-6
    assert rows.is_sparse
    assert rows._nnz() == slots
    assert of_items.any()
    assert relative(dense(rows), of_items) < 1e-6


@pytest.mark.parametrize(("loss", "options", "slots"), OTHERS)
def test_rows_in_every_gradient_train_as_under_dense_adam(loss, options, slots):
    """All 6 items are drawn in each step, so that Adam of rows has to be the ordinary one."""
    if loss is not scalable_cross_entropy:
        options = options | {"num_negatives": 40, "in_batch": 0}
    else:
        options = options | {"bucket_items": 6}
    case = make_case(rows=33, items=6, dim=8)
    ends = []
    for sparse in (False, True):
        hidden, items = case.leaves()
        kind = RowAdam if sparse else torch.optim.Adam
        optimizer = kind([items], lr=0.05)
        for step in range(20):
            optimizer.zero_grad()
            loss(hidden, items, case.targets, step=step, sparse=sparse, **options).backward()
            optimizer.step()
        ends.append(items.detach())
    assert (ends[0] - case.items).abs().max() > 0.3
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_only_rows_in_buckets_are_touched():
    case = make_case(rows=33, items=1000)
    _, _, rows = gradients(case, True, loss=scalable_cross_entropy, **BUCKETS)
    named = set(rows._indices()[0].tolist())
    assert len(named) <= 5 * (7 + 9)
    _, _, of_items = gradients(case, False, loss=scalable_cross_entropy, **BUCKETS)
    assert set(of_items.any(1).nonzero().flatten().tolist()) <= named


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_small_batches_have_buckets_of_rows_too(rows):
    case = make_case(rows=rows, items=50)
    value, _, found = gradients(case, True, loss=scalable_cross_entropy)
    true, _, of_items = gradients(case, False, loss=scalable_cross_entropy)
    torch.testing.assert_close(value, true)
    torch.testing.assert_close(dense(found), of_items.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_nothing_is_touched_that_no_one_drew(kernel):
    """Unused slots, rows without a target and groups without rows name no item of their own."""
    pytest.importorskip("triton")
    case = make_case(rows=33, items=1000, dim=4)
    ids = torch.randint(500, 1000, (5, 6))
    ids[:, 3:] = -100
    case.targets[case.targets >= 0] = torch.arange(100, 100 + int((case.targets >= 0).sum()))
    options = {"sharing": 8, "negatives": ids, "kernel": kernel, "correction": "none"}
    _, _, rows = gradients(case, True, **options)
    named = set(rows._indices()[0].tolist())
    assert named == set(case.targets[case.targets >= 0].tolist()) | set(ids[:, :3].flatten().tolist())


def test_the_number_of_slots_follows_from_shapes():
    for targets in (1, 17, 33):
        case = make_case(rows=33, items=1000)
        case.targets[targets:] = -100
        _, _, rows = gradients(case, True, sharing=8, num_negatives=15)
        assert rows._nnz() == 5 * 15 + 33


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("rows", [0, 5])
def test_a_batch_without_targets_gives_zeros(kernel, rows):
    pytest.importorskip("triton")
    items = make_case(items=50).leaves()[1]
    hidden = torch.ones(rows, items.shape[1], requires_grad=True)
    targets = torch.full((rows,), -100)
    sampled_cross_entropy(
        hidden, items, targets, sharing="batch", num_negatives=7, sparse=True, kernel=kernel
    ).backward()
    assert items.grad._values().abs().sum() == 0
    assert items.grad._indices().max() < 50


def test_weights_reductions_log_sum_exp_and_dtypes(device):
    case = make_case(rows=33, items=100, dim=16, device=device)
    upstream = torch.linspace(-1, 2, 33, device=device)
    options = {"sharing": 8, "num_negatives": 15, "row_weights": case.weights}
    for more in ({"reduction": "none"}, {"reduction": "sum"}, {"normalizer": 7.0}):
        flow = upstream if more.get("reduction") == "none" else None
        _, _, of_items = gradients(case, False, flow, **options, **more)
        _, _, rows = gradients(case, True, flow, **options, **more)
        torch.testing.assert_close(dense(rows), of_items.double(), rtol=1e-5, atol=1e-7)
    narrow = make_case(rows=33, items=100, dim=16, device=device, dtype=torch.bfloat16)
    _, _, rows = gradients(narrow, True, **options)
    assert rows.dtype == torch.bfloat16
    hidden, items = case.leaves()
    loss, lse = sampled_cross_entropy(
        hidden, items, case.targets, sharing=8, num_negatives=15, sparse=True, return_lse=True
    )
    (loss + lse.sum()).backward()
    assert items.grad.is_sparse


def test_head_look_up_and_micro_batches_add_up():
    """A tied table: what autograd adds up is what the dense gradients add up to."""
    total = {}
    for sparse in (False, True):
        table = make_case(items=100).leaves()[1]
        for micro in range(3):
            case = make_case(items=100, seed=micro)
            states = case.hidden + F.embedding(case.targets.clamp(min=0), table, sparse=sparse)
            sampled_cross_entropy(
                states, table, case.targets, sharing=8, num_negatives=15, step=micro, sparse=sparse
            ).backward()
        total[sparse] = table.grad
    assert total[True].is_sparse
    torch.testing.assert_close(dense(total[True]), total[False].double(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(dense(coalesce(total[True])), total[False].double(), rtol=1e-5, atol=1e-7)


def test_two_runs_give_the_same_bits():
    def once():
        case = make_case(rows=200, items=60, dim=16)
        return coalesce(gradients(case, True, sharing="batch", num_negatives=30, chunk_bytes=4096)[2]).values

    assert torch.equal(once(), once())


def test_popularity_draws(device):
    case = make_case(rows=33, items=100, dim=16, device=device)
    sampler = popularity(torch.arange(100)).to(device)
    options = {"sharing": 8, "num_negatives": 15, "sampler": sampler, "correction": "logq"}
    _, _, of_items = gradients(case, False, **options)
    _, _, rows = gradients(case, True, **options)
    torch.testing.assert_close(dense(rows), of_items.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [sampled_cross_entropy, binary_cross_entropy_sampled, gbce])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "M N rows"),
        ({"sharing": 1}, "M N rows"),
        ({"sharing": 8, "row_offset": torch.arange(33)}, "row_offset must be a number"),
        ({"sharing": 8, "kernel": "reference"}, "reference"),
    ],
)
def test_what_cannot_be_rows_is_refused(options, words, loss):
    case = make_case()
    with pytest.raises(ValueError, match=words):
        loss(*case.tensors, num_negatives=4, sparse=True, **options)


def test_the_oracles_buckets_have_no_rows():
    with pytest.raises(ValueError, match="reference"):
        scalable_cross_entropy(*make_case().tensors, sparse=True, kernel="reference")


def test_no_second_derivative():
    hidden, items = make_case().leaves()
    loss = sampled_cross_entropy(
        hidden, items, make_case().targets, sharing=8, num_negatives=4, sparse=True, reduction="none"
    )
    (first,) = torch.autograd.grad((loss * hidden.sum(1)).sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        first.sum().backward()


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("slots", [0, 1, 7, 300, 4000])
def test_coalescing_sums_each_row_once(slots, dtype, compact, device):
    num_rows = 40
    draw = torch.Generator().manual_seed(slots)
    rows = torch.randint(num_rows + 1, (slots,), generator=draw)
    values = torch.randn(slots, 6, generator=draw).masked_fill(rows[:, None] == num_rows, 0)
    given = RowSparse(rows.to(device), values.to(device, dtype), num_rows)
    found = coalesce(given, compact=compact)
    used = found.rows[found.rows < num_rows]
    assert used.tolist() == sorted(set(rows[rows < num_rows].tolist()))
    assert len(found.rows) == (len(used) if compact and slots else slots)
    assert not found.values[found.rows == num_rows].any(), "unused slots hold zeros"
    assert found.values.dtype == dtype
    true = dense(given)
    assert (dense(found) - true).norm() <= {4: 1e-6, 8: 1e-14, 2: 1e-2}[dtype.itemsize] * (true.norm() + 1e-9)


def test_coalescing_keeps_the_order_of_sums():
    """float32 sums in slot order, whichever rows stand between."""
    values = torch.tensor([1e8, 1.0, -1e8, 5.0])[:, None]
    rows = torch.tensor([3, 3, 3, 1])
    for compact in (True, False):
        found = coalesce(RowSparse(rows, values, 10), compact=compact)
        assert found.values[:2].flatten().tolist() == [5.0, float((torch.tensor(1e8) + 1) - 1e8)]


def test_rows_as_a_sparse_tensor_and_back():
    rows = RowSparse(torch.tensor([2, 0, 2]), torch.ones(3, 4), 5)
    tensor = rows.gradient()
    assert tensor.shape == (5, 4)
    assert RowSparse.of(tensor).values.data_ptr() == rows.values.data_ptr()
    assert coalesce(tensor).gradient(coalesced=True).is_coalesced()


def test_in_a_compiled_model_the_loss_is_left_out_of_the_graph():
    case = make_case(items=100)

    def loss(hidden, items):
        return sampled_cross_entropy(
            hidden * 2, items, case.targets, sharing=8, num_negatives=5, sparse=True
        ).sin()

    plain, compiled = case.leaves(), case.leaves()
    loss(*plain).backward()
    torch.compile(loss, backend="aot_eager")(*compiled).backward()
    torch.testing.assert_close(plain[0].grad, compiled[0].grad)
    torch.testing.assert_close(dense(plain[1].grad), dense(compiled[1].grad))
