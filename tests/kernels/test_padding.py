"""Rows without a target leak nothing, wherever they are and whatever they hold: cases 12 and 13."""

import pytest
import torch
from effrec_kernels import (
    binary_cross_entropy_sampled,
    compute,
    gbce,
    linear_cross_entropy,
    sampled_cross_entropy,
    sampled_cross_entropy_dense,
)
from kernel_cases import answer, make_case, relative

LOSSES = [
    sampled_cross_entropy,
    sampled_cross_entropy_dense,
    linear_cross_entropy,
    binary_cross_entropy_sampled,
    gbce,
]
PLACES = {
    "start": slice(0, 10),
    "end": slice(25, None),
    "interleaved": slice(0, None, 2),
    "all but one": slice(1, None),
}


def options_of(loss, case):
    return {} if loss is linear_cross_entropy else {"negatives": case.negatives}


def _all_rows(problem):
    return torch.arange(len(problem.targets), device=problem.targets.device)


@pytest.fixture(params=["rows with a target", "all rows"])
def visited(request, monkeypatch):
    """A CPU skips rows without a target; a GPU, where counting them would wait, computes and blanks them."""
    if request.param == "all rows":
        monkeypatch.setattr(compute, "_rows_to_visit", _all_rows)


@pytest.mark.usefixtures("visited")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("items", [40, 1001])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_padding_equals_absence(device, loss, place, items, reduction):
    case = make_case(items=items, dtype=torch.float64, device=device)
    case.targets[case.targets == -100] = 1
    padding = torch.zeros(33, dtype=torch.bool, device=device)
    padding[PLACES[place]] = True
    upstream = torch.linspace(1, 2, 33, device=device, dtype=torch.float64) if reduction == "none" else None

    absent = make_case(items=items, dtype=torch.float64, device=device)
    absent.targets = case.targets[~padding]
    absent.hidden, absent.negatives = case.hidden[~padding], case.negatives[~padding]
    expected = answer(
        absent,
        loss,
        upstream[~padding] if reduction == "none" else None,
        reduction=reduction,
        **options_of(loss, absent),
    )

    case.targets[padding] = -100
    case.hidden[padding] = float("nan")
    case.hidden[padding.nonzero()[0]] = float("inf")
    case.negatives[padding] = 1 << 40
    weights = torch.ones(33, dtype=torch.float64, device=device)
    weights[padding] = float("nan")
    found = answer(case, loss, upstream, reduction=reduction, row_weights=weights, **options_of(loss, case))
    rows = found[0][~padding] if reduction == "none" else found[0]
    assert relative(rows, expected[0]) < 1e-12
    assert relative(found[1][~padding], expected[1]) < 1e-12
    assert relative(found[2], expected[2]) < 1e-12
    assert (found[1][padding] == 0).all()
    if reduction == "none":
        assert (found[0][padding] == 0).all()


@pytest.mark.usefixtures("visited")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_no_targets_at_all_are_a_loss_of_zero(device, loss, reduction, rows):
    case = make_case(rows=rows, device=device)
    case.targets[:] = -100
    case.hidden[:] = float("nan")
    upstream = torch.ones(rows, device=device) if reduction == "none" else None
    found = answer(case, loss, upstream, reduction=reduction, **options_of(loss, case))
    assert found[0].shape == ((rows,) if reduction == "none" else ())
    assert all((tensor == 0).all() for tensor in found)
    assert found[1].shape == case.hidden.shape
    assert found[2].shape == case.items.shape


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("normalizer", [0, 0.0, torch.tensor(0)])
def test_a_normalizer_of_zero_counts_as_one(device, loss, normalizer):
    if isinstance(normalizer, torch.Tensor):
        normalizer = normalizer.to(device)
    case = make_case(device=device)
    case.targets[:] = -100
    found = answer(case, loss, normalizer=normalizer, **options_of(loss, case))
    assert all((tensor == 0).all() for tensor in found)


def test_another_ignore_index(device):
    case = make_case(device=device)
    case.targets[case.targets == 7] = 8
    expected = answer(case, sampled_cross_entropy, negatives=case.negatives)
    case.targets[case.targets == -100] = 7
    found = answer(case, sampled_cross_entropy, negatives=case.negatives, ignore_index=7)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
