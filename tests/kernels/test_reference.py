"""The oracle itself: written-out gradients, closed forms, and PyTorch's cross-entropy where they meet."""

import math

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import reference
from kernel_cases import make_case, oracle, relative, upstream_of


@pytest.mark.parametrize("correction", ["exact", "constant", "none"])
@pytest.mark.parametrize("items", [3, 40])
def test_written_out_gradients_are_those_of_autograd(items, correction):
    case = make_case(rows=9, negatives=6, items=items, dim=5)
    case.negatives[1, 2:4] = -100
    upstream = upstream_of(case)
    _, of_hidden, of_items = oracle(case, upstream, correction=correction)
    written = reference.sampled_gradients(*case.tensors, case.negatives, upstream, correction=correction)
    assert relative(written[0], of_hidden) < 1e-13
    assert relative(written[1], of_items) < 1e-13


def test_full_rows_are_torchs_cross_entropy():
    case = make_case(rows=20, items=50, dtype=torch.float64)
    loss, lse = reference.full_rows(*case.tensors)
    logits = case.hidden @ case.items.T
    torch.testing.assert_close(loss, F.cross_entropy(logits, case.targets, reduction="none"))
    valid = case.targets != -100
    torch.testing.assert_close(lse[valid], logits.logsumexp(1)[valid])
    hidden, items = (tensor.clone().requires_grad_() for tensor in (case.hidden, case.items))
    F.cross_entropy(hidden @ items.T, case.targets, reduction="sum").backward()
    written = reference.full_gradients(*case.tensors, torch.ones(20))
    assert relative(written[0], hidden.grad) < 1e-13
    assert relative(written[1], items.grad) < 1e-13


def test_one_negative_has_a_closed_form():
    hidden, items = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.1], [0.3, -0.4], [0.0, 0.0]])
    loss, lse = reference.sampled_rows(hidden, items, torch.tensor([0]), torch.tensor([[1]]))
    k = math.log(2 / 1)
    positive, negative = 0.5 + 0.2, 0.3 - 0.8 + k
    assert loss.item() == pytest.approx(math.log1p(math.exp(negative - positive)), rel=1e-6)
    assert lse.item() == pytest.approx(loss.item() + positive, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"), [("exact", math.log(99 / 7)), ("constant", math.log(99 / 11)), ("none", 0.0)]
)
def test_corrections_are_those_documented(kind, expected):
    assert reference.correction_of(kind, 100, 10, 7) == pytest.approx(expected)


def test_binary_rows_are_torchs_binary_cross_entropy():
    case = make_case(rows=8, negatives=4, items=30, dtype=torch.float64)
    loss = reference.binary_rows(*case.tensors, case.negatives, beta=0.3)
    for row in (case.targets != -100).nonzero().flatten().tolist():
        state, target = case.hidden[row], int(case.targets[row])
        others = [item for item in case.negatives[row].tolist() if item != target]
        expected = -0.3 * F.logsigmoid(case.items[target] @ state)
        for item in others:
            expected += F.binary_cross_entropy_with_logits(
                case.items[item] @ state, torch.zeros((), dtype=torch.float64)
            )
        assert loss[row].item() == pytest.approx(expected.item(), rel=1e-12)
    assert (loss[case.targets == -100] == 0).all()
