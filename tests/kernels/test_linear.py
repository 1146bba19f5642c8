"""The full softmax in chunks equals PyTorch's cross-entropy, whatever the chunk."""

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import linear_cross_entropy
from kernel_cases import answer, check, make_case, oracle, relative, upstream_of

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# One row at a time, several blocks of items for all rows, and everything at once.
CHUNKS = [1, 2_000, 40_000, None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_the_oracle(device, reduction, chunk_bytes, dtype):
    case = make_case(items=333, dtype=dtype, device=device)
    count = (case.targets != -100).sum()
    if reduction == "none":
        upstream = of_rows = upstream_of(case)
        upstream = upstream.to(torch.float64 if dtype == torch.float64 else torch.float32)
    else:
        upstream = None
        of_rows = torch.ones(33, dtype=torch.float64, device=device) / (count if reduction == "mean" else 1)
    found = answer(case, linear_cross_entropy, upstream, reduction=reduction, chunk_bytes=chunk_bytes)
    rows, of_hidden, of_items = oracle(case, of_rows, full=True)
    result = rows if reduction == "none" else (rows * of_rows).sum()
    check(found, (result, of_hidden, of_items), dtype)


@pytest.mark.parametrize("rows", [1, 2, 64, 65, 300])
@pytest.mark.parametrize("items", [1, 2, 100, 1009])
@pytest.mark.parametrize("chunk_bytes", [3_000, None])
def test_equals_torch_for_any_shape(device, rows, items, chunk_bytes):
    case = make_case(rows=rows, items=items, dim=7, device=device)
    found = answer(case, linear_cross_entropy, reduction="sum", chunk_bytes=chunk_bytes)
    hidden, table = case.leaves()
    loss = F.cross_entropy(hidden @ table.T, case.targets, reduction="sum")
    loss.backward()
    assert abs(found[0] - loss) <= 1e-5 * (1 + loss.abs())
    torch.testing.assert_close(found[1], hidden.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], table.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_weights_normalizer_and_strides(device, chunk_bytes):
    case = make_case(items=200, dtype=torch.float64, device=device)
    options = {"row_weights": case.weights, "normalizer": 50.0, "chunk_bytes": chunk_bytes}
    plain = answer(case, linear_cross_entropy, **options)
    rows, of_hidden, of_items = oracle(case, case.weights.double() / 50, full=True)
    check(plain, ((rows * case.weights).sum() / 50, of_hidden, of_items), torch.float64)
    columns = case.items.T.contiguous().requires_grad_()
    linear_cross_entropy(case.hidden, columns.T, case.targets, **options).backward()
    assert relative(columns.grad.T, plain[2]) < 1e-12


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_autocast(device, chunk_bytes):
    case = make_case(items=200, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        found = answer(case, linear_cross_entropy, chunk_bytes=chunk_bytes)
    case.hidden, case.items = case.hidden.bfloat16(), case.items.bfloat16()
    count = (case.targets != -100).sum()
    rows, of_hidden, of_items = oracle(case, torch.ones(33, device=device) / count, full=True)
    bound = 1e-4 if device.type == "cpu" else 4e-3
    assert relative(found[0], rows.sum() / count) < 1e-5
    assert relative(found[1], of_hidden) < bound
    assert relative(found[2], of_items) < bound


@pytest.mark.parametrize("wrong", [-1, 333])
def test_targets_outside_the_table_are_refused(wrong):
    case = make_case(items=333)
    case.targets[5] = wrong
    with pytest.raises(IndexError, match=f"targets holds 1 ids outside .* the first is {wrong}"):
        linear_cross_entropy(*case.tensors)
