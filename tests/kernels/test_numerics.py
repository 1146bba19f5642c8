"""Extreme logits, tiny embeddings and long sums: cases 18 to 20 of the list."""

import pytest
import torch
from effrec_kernels import linear_cross_entropy, sampled_cross_entropy
from kernel_cases import answer, make_case, oracle, relative

CATALOGUES = [40, 1001]


@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("scale", [1e4, 1e-4, 0.0])
@pytest.mark.parametrize("full", [False, True])
def test_large_small_and_equal_logits(device, items, scale, full):
    case = make_case(items=items, device=device)
    case.hidden *= scale
    count = (case.targets != -100).sum()
    upstream = torch.ones(33, device=device) / count
    if full:
        found = answer(case, linear_cross_entropy)
    else:
        found = answer(case, sampled_cross_entropy, negatives=case.negatives)
    rows, of_hidden, of_items = oracle(case, upstream, full=full)
    assert relative(found[0], rows.sum() / count) < 1e-5
    assert relative(found[1], of_hidden) < 5e-5 * (20 if scale == 1e4 else 1)
    assert relative(found[2], of_items) < 5e-5 * (20 if scale == 1e4 else 1)


@pytest.mark.parametrize("full", [False, True])
def test_a_small_loss_keeps_its_digits(device, full):
    """Where the positive dominates, log(1 + small) and 1 - p are the small numbers, not 0."""
    case = make_case(rows=8, negatives=5, items=300, device=device)
    case.targets[:] = torch.arange(8, device=device)
    case.negatives[:] = torch.arange(20, 25, device=device)
    case.items[:8] *= 4 / case.items[:8].norm(dim=1, keepdim=True)
    case.hidden = case.items[:8] * 0.5
    case.items[:8] *= 3
    upstream = torch.ones(8, device=device)
    if full:
        found = answer(case, linear_cross_entropy, upstream, reduction="none")
    else:
        found = answer(case, sampled_cross_entropy, upstream, negatives=case.negatives, reduction="none")
    rows, of_hidden, of_items = oracle(case, upstream, full=full)
    assert 1e-12 < rows.max() < 1e-4
    # Below 1e-14 it is the oracle, a difference of numbers near 20, that has no digits left.
    torch.testing.assert_close(found[0].double(), rows, rtol=1e-3, atol=1e-14)
    assert (found[0] > 0).all()
    assert relative(found[1], of_hidden) < 1e-3
    assert relative(found[2], of_items) < 1e-3


@pytest.mark.parametrize("items", CATALOGUES)
def test_float16_states_near_the_end_of_their_range(device, items):
    case = make_case(items=items, dtype=torch.float16, device=device)
    case.hidden[:] = 6e4 * case.hidden.sign()
    found = answer(case, sampled_cross_entropy, negatives=case.negatives, reduction="sum")
    rows, _, of_items = oracle(case, torch.ones(33, device=device))
    assert all(torch.isfinite(tensor).all() for tensor in found[:2])
    assert relative(found[0], rows.sum()) < 1e-5
    # Gradients of items reach beyond float16 here and are infinite where the true ones are too large.
    fits = of_items.abs() < 6e4
    assert relative(found[2][fits], of_items[fits]) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("items", CATALOGUES)
def test_tiny_embeddings_keep_their_gradients(device, items, dtype):
    """Embeddings of 1e-3 under a mean over a million rows, with a loss scale of 65,536."""
    case = make_case(items=items, dtype=dtype, device=device)
    case.hidden, case.items = case.hidden * 1e-3, case.items * 1e-3
    scale = torch.tensor(65_536.0, device=device)
    found = answer(case, sampled_cross_entropy, scale, negatives=case.negatives, normalizer=1_000_000)
    _, of_hidden, of_items = oracle(case, torch.full((33,), 0.065536, device=device))
    bound = {torch.float32: 5e-5, torch.bfloat16: 4e-3, torch.float16: 4e-3}[dtype]
    assert relative(found[1], of_hidden) < bound
    assert relative(found[2], of_items) < bound


@pytest.mark.parametrize("items", CATALOGUES)
def test_unscaled_tiny_gradients_survive_in_a_float32_table(device, items):
    case = make_case(items=items, device=device)
    case.hidden, case.items = (case.hidden * 1e-3).half(), case.items * 1e-3
    found = answer(case, sampled_cross_entropy, negatives=case.negatives, normalizer=1_000_000)
    case.items = case.items.half()
    _, _, of_items = oracle(case, torch.full((33,), 1e-6, device=device))
    assert relative(found[2], of_items) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("items", [200, 30_000])
def test_long_sums(device, items, dtype):
    """4,095 negatives a row, and thousands of contributions to one item, around a common mean."""
    draw = torch.Generator().manual_seed(0)
    case = make_case(rows=40, negatives=4095, items=items, dim=32, device=device)
    mean = torch.randn(32, generator=draw).to(device)
    case.items = (0.3 * (case.items + 0.5 * mean)).to(dtype)
    case.hidden = (case.hidden + 0.5 * mean).to(dtype)
    case.negatives[:, :130] = 17
    upstream = torch.full((40,), 1 / 40, device=device)
    found = answer(case, sampled_cross_entropy, upstream, negatives=case.negatives, reduction="none")
    _, of_hidden, of_items = oracle(case, upstream)
    bound = 1e-4 if dtype == torch.float32 else 1e-3
    assert relative(found[1], of_hidden) < bound
    assert relative(found[2][17], of_items[17]) < bound
    assert relative(found[2], of_items) < bound
