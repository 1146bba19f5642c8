"""SASRec's and gSASRec's losses against the oracle, and against the published forms."""

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import (
    binary_cross_entropy_sampled,
    draw_negatives,
    gbce,
    gbce_beta,
    popularity,
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


def test_a_negative_that_is_the_positive_adds_nothing():
    """The published BCE+ leaves hits among the negatives; here the loss is that of the others alone."""
    case = make_case(negatives=6, items=5000)
    case.targets[:] = 3
    case.negatives[:, 2:4] = 3
    others = case.negatives[:, [0, 1, 4, 5]]
    loss = binary_cross_entropy_sampled(*case.tensors, negatives=case.negatives)
    torch.testing.assert_close(loss, binary_cross_entropy_sampled(*case.tensors, negatives=others))


@pytest.mark.parametrize("negatives", [1, 4, 15])
def test_more_negatives_are_summed_and_divided_by_targets(negatives):
    """BCE+ as published: terms of N negatives summed, divided by M and not by M (N + 1)."""
    case = make_case(negatives=negatives, items=5000, dtype=torch.float64)
    valid = case.targets != -100
    states, ids = case.hidden[valid], case.negatives[valid]
    positive = (states * case.items[case.targets[valid]]).sum(1)
    others = torch.einsum("md,mnd->mn", states, case.items[ids])
    terms = torch.sigmoid(positive).log().sum() + (1 - torch.sigmoid(others)).log().sum()
    loss = binary_cross_entropy_sampled(*case.tensors, negatives=case.negatives)
    torch.testing.assert_close(loss, -terms / valid.sum())


# Ways to share negatives: what the loss is told, and the group number of each row.
SHARED = {
    "tile": ({"sharing": 12, "sharing_stride": 2}, lambda row: row // 24 * 2 + row % 2),
    "sequence": ({"sharing": [0, 20, 33]}, lambda row: 0 if row < 20 else 20),
    "batch": ({"sharing": "batch"}, lambda row: 0),
}


@pytest.mark.parametrize("loss", [binary_cross_entropy_sampled, gbce])
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("items", CATALOGUES)
def test_shared_negatives_equal_the_oracle_on_ids_written_out(device, loss, way, items):
    case = make_case(items=items, device=device)
    options, group_of = SHARED[way]
    if way == "sequence":
        options = {"sharing": torch.tensor(options["sharing"], device=device)}
    keys = torch.tensor([group_of(row) for row in range(33)], device=device)
    case.negatives = draw_negatives(keys, 15, items, seed=3, step=1)
    upstream = upstream_of(case)
    own = {"num_negatives": 15, "seed": 3, "step": 1, "temperature": 0.5, "reduction": "none"}
    found = answer(case, loss, upstream, **own, **options)
    beta, terms = (1.0, 1) if loss is binary_cross_entropy_sampled else (gbce_beta(15, items, 0.75), 16)
    rows, *gradients = oracle(case, upstream / terms, beta=beta, temperature=0.5)
    check(found, (rows / terms, *gradients), torch.float32)


@pytest.mark.parametrize("loss", [binary_cross_entropy_sampled, gbce])
@pytest.mark.parametrize("sampler", ["uniform", "block", "popularity"])
@pytest.mark.parametrize("in_batch", [0, 20])
@pytest.mark.parametrize("sharing", ["row", 12])
def test_any_sampler_agrees_with_the_reference_kernel(device, loss, sampler, in_batch, sharing):
    case = make_case(items=150, device=device)
    table = popularity(torch.arange(150, device=device) % 17)
    options = {
        "num_negatives": 64,
        "sampler": table if sampler == "popularity" else sampler,
        "in_batch": in_batch,
        "sharing": sharing,
        "rng_state": torch.tensor([8, 2], device=device),
    }
    found = answer(case, loss, **options)
    expected = answer(case, loss, kernel="reference", **options)
    assert all(relative(*pair) < 1e-5 for pair in zip(found, expected, strict=True))
    other = answer(case, loss, **options | {"rng_state": torch.tensor([8, 3], device=device)})
    assert relative(other[0], expected[0]) > 1e-4


def test_draws_by_popularity_are_of_popular_items():
    """Only items that were seen are drawn, so only they are pushed away."""
    case = make_case(items=100)
    counts = torch.zeros(100)
    counts[:5] = 10
    case.targets[:] = 50
    table = popularity(counts, smoothing=0)
    *_, of_items = answer(case, binary_cross_entropy_sampled, num_negatives=30, sampler=table)
    assert of_items.any(dim=1).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 50]


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
