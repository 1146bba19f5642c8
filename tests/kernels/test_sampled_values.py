"""Values and gradients of the sampled softmax against the oracle: cases 1 to 3, 14 to 16 of the list."""

import math

import effrec_kernels
import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import sampled_cross_entropy
from kernel_cases import answer, check, make_case, oracle, relative, upstream_of

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Few items a negative go by products with the whole table, many by gathers.
CATALOGUES = [40, 1001]


def compare(case, dtype=torch.float32, correction="exact", **options):
    """Checks the rows' losses and both gradients under an uneven upstream gradient."""
    upstream = upstream_of(case)
    found = answer(
        case,
        sampled_cross_entropy,
        upstream.double() if dtype == torch.float64 else upstream,
        negatives=case.negatives,
        correction=correction,
        reduction="none",
        **options,
    )
    check(found, oracle(case, upstream, correction=correction), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("correction", ["exact", "constant", "none"])
@pytest.mark.parametrize("items", CATALOGUES)
def test_rows_and_gradients_for_every_dtype_and_correction(device, items, correction, dtype):
    compare(make_case(items=items, dtype=dtype, device=device), dtype, correction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("items", CATALOGUES)
def test_reductions_with_weights_and_a_scale_from_above(device, items, reduction, dtype):
    case = make_case(items=items, dtype=dtype, device=device)
    valid = case.targets != -100
    divisor = valid.sum() if reduction == "mean" else 1
    upstream = case.weights.double() * 3 / divisor
    found = answer(
        case,
        sampled_cross_entropy,
        torch.tensor(3.0, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32),
        negatives=case.negatives,
        reduction=reduction,
        row_weights=case.weights,
    )
    rows, of_hidden, of_items = oracle(case, upstream)
    check(found, ((rows * case.weights).sum() / divisor, of_hidden, of_items), dtype)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 127, 128, 129, 1000])
def test_any_number_of_rows(device, rows):
    compare(make_case(rows=rows, device=device))


@pytest.mark.parametrize("negatives", [1, 2, 15, 16, 511, 1000, 4095])
@pytest.mark.parametrize("items", [100, 30_000])
def test_any_number_of_negatives(device, items, negatives):
    compare(make_case(rows=5, negatives=negatives, items=items, device=device))


def test_more_negatives_than_a_chunk_holds(device):
    compare(make_case(rows=3, negatives=70_000, items=1001, dim=8, device=device))
    compare(make_case(rows=3, negatives=7_000, items=65_537, dim=8, device=device), chunk_bytes=1000)


@pytest.mark.parametrize("items", [2, 3, 100, 1001, 65_537, 1_000_000])
def test_any_number_of_items(device, items):
    compare(make_case(rows=20, negatives=7, items=items, dim=4, device=device))


@pytest.mark.parametrize("dim", [1, 16, 50, 64, 100, 123, 128, 192, 256, 257, 300, 512, 1024])
@pytest.mark.parametrize("items", [60, 400])
def test_any_width(device, items, dim):
    compare(make_case(rows=9, items=items, dim=dim, device=device))


@pytest.mark.parametrize("chunk_bytes", [1, 5_000, 60_000, None])
@pytest.mark.parametrize("items", CATALOGUES)
def test_any_chunk(device, items, chunk_bytes):
    compare(make_case(rows=70, items=items, device=device), chunk_bytes=chunk_bytes)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 33, 300])
@pytest.mark.parametrize("negatives", [1, 16, 511])
@pytest.mark.parametrize("items", [3, 1001, 20_011])
@pytest.mark.parametrize("dim", [1, 50, 257])
def test_the_whole_grid(device, dim, items, negatives, rows, dtype):
    compare(make_case(rows, negatives, items, dim, dtype, device), dtype, chunk_bytes=1 << 20)


@pytest.mark.parametrize("items", CATALOGUES)
def test_strides_and_slices(device, items):
    case = make_case(items=items, dim=16, device=device)
    upstream = upstream_of(case)
    expected = oracle(case, upstream)
    options = {"negatives": case.negatives, "reduction": "none"}

    columns = case.items.T.contiguous().requires_grad_()
    states = torch.cat([case.hidden, case.hidden], dim=1).detach().requires_grad_()
    sampled_cross_entropy(states[:, 16:], columns.T, case.targets, **options).backward(upstream)
    assert relative(states.grad[:, 16:], expected[1]) < 5e-5
    assert relative(columns.grad.T, expected[2]) < 5e-5
    assert (states.grad[:, :16] == 0).all()

    # One number before and one row after: an odd storage offset and a row for padding.
    store = torch.zeros(1 + (items + 1) * 16, device=device)
    store[1 : 1 + items * 16] = case.items.flatten()
    store[1 + items * 16 :] = float("nan")
    store.requires_grad_()
    table = store[1:].view(items + 1, 16)
    loss = sampled_cross_entropy(case.hidden, table[:items], case.targets, **options)
    loss.backward(upstream)
    assert relative(store.grad[1:].view(items + 1, 16)[:items], expected[2]) < 5e-5
    assert (store.grad[1 + items * 16 :] == 0).all()


@pytest.mark.parametrize("items", [30, 300])
def test_all_other_items_as_negatives_are_the_full_softmax(device, items):
    case = make_case(items=items, device=device)
    everyone = torch.arange(items, device=device).expand(len(case.targets), -1)
    of_sampled = answer(case, sampled_cross_entropy, negatives=everyone, correction="none", reduction="sum")
    hidden, table = case.leaves()
    F.cross_entropy(hidden @ table.T, case.targets, reduction="sum").backward()
    assert relative(of_sampled[1], hidden.grad) < 5e-5
    assert relative(of_sampled[2], table.grad) < 5e-5
    # With r = 1 hit among V ids, the exact correction is log((V-1)/(V-1)) = 0 too.
    exact = answer(case, sampled_cross_entropy, negatives=everyone, reduction="sum")
    torch.testing.assert_close(exact[0], of_sampled[0])


def test_one_negative_is_a_logistic_loss(device):
    case = make_case(negatives=1, device=device)
    loss = sampled_cross_entropy(
        *case.tensors, negatives=case.negatives, reduction="none", correction="constant"
    )
    valid = case.targets != -100
    difference = (
        (case.items[case.targets.clamp(min=0)] - case.items[case.negatives[:, 0]]) * case.hidden
    ).sum(1)
    expected = F.softplus(math.log(1000 / 2) - difference)
    torch.testing.assert_close(loss[valid], expected[valid])


@pytest.mark.parametrize("items", CATALOGUES)
def test_order_of_negatives_does_not_matter(device, items):
    case = make_case(items=items, device=device)
    one = answer(case, sampled_cross_entropy, negatives=case.negatives)
    shuffled = case.negatives[:, torch.randperm(15, generator=torch.Generator().manual_seed(1))]
    other = answer(case, sampled_cross_entropy, negatives=shuffled)
    assert all(relative(*pair) < 1e-6 for pair in zip(one, other, strict=True))


def test_a_shift_of_all_logits_changes_no_gradient_of_probabilities(device):
    """A constant in all logits, by a constant column of the table, leaves loss and gradients as they are."""
    case = make_case(dtype=torch.float64, device=device)
    one = answer(case, sampled_cross_entropy, negatives=case.negatives)
    case.hidden = torch.cat([case.hidden, torch.ones_like(case.hidden[:, :1])], dim=1)
    case.items = torch.cat([case.items, torch.full_like(case.items[:, :1], 7.5)], dim=1)
    other = answer(case, sampled_cross_entropy, negatives=case.negatives)
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1][:, :-1])
    torch.testing.assert_close(one[2], other[2][:, :-1])


@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_float32_table_under_16_bit_states(device, items, dtype):
    """The table is read in the states' dtype; its gradient keeps float32."""
    case = make_case(items=items, device=device)
    case.hidden = case.hidden.to(dtype)
    upstream = upstream_of(case)
    found = answer(case, sampled_cross_entropy, upstream, negatives=case.negatives, reduction="none")
    case.items = case.items.to(dtype)
    expected = oracle(case, upstream)
    assert found[2].dtype == torch.float32
    assert relative(found[0], expected[0]) < 1e-5
    assert relative(found[2], expected[2]) < (1e-4 if device.type == "cpu" else 4e-3)


@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("loss", [sampled_cross_entropy, effrec_kernels.sampled_cross_entropy_dense])
def test_autocast_rounds_operands_and_nothing_else(device, loss, items):
    case = make_case(items=items, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        found = answer(case, loss, negatives=case.negatives)
    assert found[0].dtype == found[1].dtype == found[2].dtype == torch.float32
    bound = 1e-4 if loss is sampled_cross_entropy and device.type == "cpu" else 1e-2
    if loss is sampled_cross_entropy:
        case.hidden, case.items = case.hidden.bfloat16(), case.items.bfloat16()
    count = (case.targets != -100).sum()
    rows, of_hidden, of_items = oracle(case, torch.ones_like(case.weights) / count)
    assert relative(found[0], rows.sum() / count) < bound
    assert relative(found[1], of_hidden) < bound
    assert relative(found[2], of_items) < bound


def test_the_normalizer_replaces_the_count(device):
    case = make_case(device=device)
    options = {"negatives": case.negatives}
    total = sampled_cross_entropy(*case.tensors, reduction="sum", **options)
    for normalizer in (40, 40.0, torch.tensor(40, device=device)):
        for reduction in ("mean", "sum"):
            loss = sampled_cross_entropy(*case.tensors, reduction=reduction, normalizer=normalizer, **options)
            torch.testing.assert_close(loss, total / 40)
            assert loss.dtype == torch.float32
