"""The plain baseline gives the values of the kernels, drawn ids and given ones."""

import pytest
import torch
from effrec_kernels import sampled_cross_entropy, sampled_cross_entropy_dense
from kernel_cases import answer, check, make_case, oracle, relative, upstream_of


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("correction", ["exact", "constant", "none"])
@pytest.mark.parametrize("items", [8, 1001])
def test_equals_the_oracle(device, items, correction, dtype):
    case = make_case(items=items, dtype=dtype, device=device)
    case.negatives[1, 4:] = -100
    upstream = upstream_of(case)
    found = answer(
        case,
        sampled_cross_entropy_dense,
        upstream.to(dtype),
        negatives=case.negatives,
        correction=correction,
        reduction="none",
    )
    check(found, oracle(case, upstream, correction=correction), dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("items", [8, 1001])
def test_equals_the_kernels_on_drawn_ids(device, items, reduction):
    case = make_case(items=items, dtype=torch.float64, device=device)
    options = {
        "num_negatives": 12,
        "seed": 3,
        "step": 8,
        "row_offset": torch.arange(33, device=device) * 5,
        "row_weights": case.weights,
        "reduction": reduction,
    }
    found = answer(case, sampled_cross_entropy_dense, **options)
    expected = answer(case, sampled_cross_entropy, **options)
    assert all(relative(*pair) < 1e-12 for pair in zip(found, expected, strict=True))


def test_a_row_of_nothing_but_hits_is_no_nan(device):
    case = make_case(device=device)
    case.targets[5] = 6
    case.negatives[5] = 6
    found = answer(
        case,
        sampled_cross_entropy_dense,
        torch.ones(33, device=device),
        negatives=case.negatives,
        reduction="none",
    )
    assert found[0][5] == 0
    assert (found[1][5] == 0).all()
    assert all(torch.isfinite(tensor).all() for tensor in found)
