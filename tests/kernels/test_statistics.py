"""Over many draws the sampled loss meets the full one: case 4 of the list. Seeds are fixed."""

import pytest
import torch
from effrec_kernels import linear_cross_entropy, sampled_cross_entropy
from kernel_cases import make_case

ROWS = 20_000


def one_row_many_draws(items):
    """Returns a state repeated ROWS times, a table, one target."""
    case = make_case(rows=1, items=items, dim=8, dtype=torch.float64, seed=4)
    hidden = case.hidden.expand(ROWS, -1).contiguous()
    return hidden, case.items * 0.5, torch.full((ROWS,), 2)


@pytest.mark.parametrize("items", [10, 300])
def test_the_exact_correction_makes_sums_of_exponentials_unbiased(items):
    """exp(L) = exp z_0 + the sampled estimate of the others' sum: its mean is that of the full softmax."""
    hidden, table, targets = one_row_many_draws(items)
    _, lse = sampled_cross_entropy(
        hidden, table, targets, num_negatives=16, seed=1, return_lse=True, reduction="none"
    )
    _, full = linear_cross_entropy(hidden[:1], table, targets[:1], return_lse=True)
    sums = lse.exp()
    error = (sums.mean() - full.exp()) / (sums.std() / ROWS**0.5)
    assert abs(error) < 4


def test_the_other_corrections_are_off_where_hits_are_common():
    """The measure tells corrections apart: with 10 items the constant one is biased by (N-r)/(N+1)."""
    hidden, table, targets = one_row_many_draws(10)
    options = {"num_negatives": 16, "seed": 1, "return_lse": True, "reduction": "none"}
    _, full = linear_cross_entropy(hidden[:1], table, targets[:1], return_lse=True)
    for correction in ("constant", "none"):
        _, lse = sampled_cross_entropy(hidden, table, targets, correction=correction, **options)
        sums = lse.exp()
        assert abs((sums.mean() - full.exp()) / (sums.std() / ROWS**0.5)) > 10


@pytest.mark.parametrize("items", [10, 300])
def test_loss_and_gradients_approach_the_full_softmax_as_negatives_grow(items):
    hidden, table, targets = one_row_many_draws(items)
    exact, of_exact = _loss_and_gradients(linear_cross_entropy, hidden[:1], table, targets[:1])
    gaps = []
    for negatives in (4, 32, 256):
        rows = slice(0, ROWS if negatives < 256 else 4000)
        loss, of_items = _loss_and_gradients(
            sampled_cross_entropy, hidden[rows], table, targets[rows], num_negatives=negatives, seed=2
        )
        gaps.append((float(exact - loss), float((of_items - of_exact).norm() / of_exact.norm())))
    losses, gradients = zip(*gaps, strict=True)
    assert losses[0] > 4 * losses[1] > 0, "biased low, by about 1/N"
    assert abs(losses[2]) < 0.01
    assert gradients[0] > 2 * gradients[1] > 2 * gradients[2]
    assert gradients[2] < 0.02


def _loss_and_gradients(loss, hidden, table, targets, **options):
    table = table.clone().requires_grad_()
    value = loss(hidden, table, targets, **options)
    value.backward()
    return value.detach(), table.grad
