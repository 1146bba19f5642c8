"""SASRec's and gSASRec's losses against the oracle, and against the published forms."""

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import (
    binary_cross_entropy_sampled,
    draw_negatives,
    gbce,
    gbce_beta,
)
from kernel_cases import answer, check, make_case, oracle, relative, upstream_of

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
CATALOGUES = [8, 40, 1001]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("negatives", [1, 15])
def test_binary_equals_the_oracle(device, items, negatives, dtype):
    case = make_case(negatives=negatives, items=items, dtype=dtype, device=device)
    upstream = upstream_of(case)
    found = answer(
        case,
        binary_cross_entropy_sampled,
        upstream.to(torch.float64 if dtype == torch.float64 else torch.float32),
        negatives=case.negatives,
        reduction="none",
    )
    check(found, oracle(case, upstream, beta=1.0), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_gbce_equals_the_oracle(device, items, t, dtype):
    case = make_case(items=items, dtype=dtype, device=device)
    case.negatives = draw_negatives(torch.arange(33, device=device), 15, items, seed=3, step=1)
    found = answer(case, gbce, num_negatives=15, t=t, seed=3, step=1)
    count = (case.targets != -100).sum()
    upstream = torch.ones(33, dtype=torch.float64, device=device) / count / 16
    rows, of_hidden, of_items = oracle(case, upstream, beta=gbce_beta(15, items, t))
    check(found, ((rows * upstream).sum(), of_hidden, of_items), dtype)


def test_one_negative_is_sasrecs_loss():
    case = make_case(negatives=1, items=5000)
    valid = case.targets != -100
    states, targets, ids = case.hidden[valid], case.targets[valid], case.negatives[valid, 0]
    positive, negative = (states * case.items[targets]).sum(1), (states * case.items[ids]).sum(1)
    expected = -(torch.sigmoid(positive).log() + (1 - torch.sigmoid(negative)).log()).mean()
    loss = binary_cross_entropy_sampled(*case.tensors, negatives=case.negatives)
    torch.testing.assert_close(loss, expected)


def test_gbce_is_the_binary_loss_of_transformed_logits():
    """gSASRec's own way: the positive's probability raised to beta, then plain binary cross-entropy."""
    case = make_case(negatives=20, items=5000, dtype=torch.float64)
    valid = case.targets != -100
    states, targets, ids = case.hidden[valid], case.targets[valid], case.negatives[valid]
    positive = (states * case.items[targets]).sum(1, keepdim=True)
    negative = torch.einsum("md,mnd->mn", states, case.items[ids])
    rate = 20 / 4999
    beta = rate * (0.75 * (1 - 1 / rate) + 1 / rate)
    raised = torch.sigmoid(positive) ** beta
    probabilities = torch.cat([raised, torch.sigmoid(negative)], dim=1)
    truth = torch.zeros_like(probabilities)
    truth[:, 0] = 1
    expected = F.binary_cross_entropy(probabilities, truth)
    torch.testing.assert_close(gbce(*case.tensors, negatives=case.negatives), expected)


@pytest.mark.parametrize(
    ("negatives", "items", "t", "beta"),
    [
        (256, 1001, 0.0, 1.0),
        (250, 1001, 1.0, 0.25),
        (250, 1001, 0.5, 0.625),
        (70, 8, 0.75, 1.0),
        (5, 1, 0.75, 1.0),
    ],
)
def test_beta(negatives, items, t, beta):
    assert gbce_beta(negatives, items, t) == pytest.approx(beta)


@pytest.mark.parametrize("loss", [binary_cross_entropy_sampled, gbce])
@pytest.mark.parametrize("items", CATALOGUES)
def test_large_logits_stay_finite(device, loss, items):
    case = make_case(items=items, device=device)
    case.hidden *= 1e4
    found = answer(case, loss, num_negatives=6)
    assert all(torch.isfinite(tensor).all() for tensor in found)
    case.hidden *= 1e-8
    assert all(torch.isfinite(tensor).all() for tensor in answer(case, loss, num_negatives=6))


def test_a_row_of_nothing_but_hits_keeps_its_positive(device):
    case = make_case(device=device)
    case.targets[:] = 6
    case.negatives[:] = 6
    loss = binary_cross_entropy_sampled(*case.tensors, negatives=case.negatives, reduction="none")
    torch.testing.assert_close(loss, F.softplus(-case.hidden @ case.items[6]))


@pytest.mark.parametrize("loss", [binary_cross_entropy_sampled, gbce])
@pytest.mark.parametrize("options", [{}, {"chunk_bytes": 500}, {"row_offset": 9}, {"normalizer": 12}])
def test_options_agree_with_the_reference_kernel(device, loss, options):
    case = make_case(device=device)
    options = options | {"num_negatives": 5, "row_weights": case.weights, "seed": 8}
    found = answer(case, loss, **options)
    expected = answer(case, loss, kernel="reference", **options)
    assert all(relative(*pair) < 1e-5 for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("t", [-0.1, 1.1])
def test_t_outside_its_range_is_refused(t):
    with pytest.raises(ValueError, match="t must be"):
        gbce(*make_case().tensors, num_negatives=3, t=t)
