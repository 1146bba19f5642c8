import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ranking_helpers import full_order, mix

from effrec_cli.errors import NonFiniteError
from effrec_cli.evaluation.order import NOTHING, best, exclude, tie_keys, tie_ranks


def assert_same_lists(scores, k):
    scores = torch.as_tensor(scores)
    items, values = best(scores, k, tie_ranks(scores.shape[1]))
    assert items.shape == values.shape == (len(scores), min(k, scores.shape[1]))
    for row in range(len(scores)):
        expected = full_order(scores[row].tolist())[:k]
        found = items[row].tolist()
        assert found == expected + [NOTHING] * (len(found) - len(expected))
        assert values[row, : len(expected)].tolist() == [float(scores[row, item]) for item in expected]
        assert (values[row, len(expected) :] == -math.inf).all()


few_values = st.sampled_from([-math.inf, -1e30, -1.0, 0.0, -0.0, 0.5, 1.0, math.inf])


@given(
    scores=hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 120)), elements=few_values),
    k=st.integers(1, 150),
)
@settings(max_examples=150, deadline=None)
def test_lists_are_the_top_of_the_total_order_with_many_ties(scores, k):
    assert_same_lists(scores, k)


@given(
    seed=st.integers(0, 10_000),
    num_items=st.integers(1, 700),
    k=st.integers(1, 12),
    levels=st.integers(1, 300),
)
@settings(max_examples=100, deadline=None)
def test_wide_rows_go_by_groups_and_stay_exact(seed, num_items, k, levels):
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, levels, size=(3, num_items)).astype(np.float64)
    scores[draw.random(scores.shape) < 0.2] = -np.inf
    assert_same_lists(scores, k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_ranked(dtype):
    assert_same_lists(torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).to(dtype), 7)


def test_a_constant_score_lists_items_by_key_alone():
    items, _ = best(torch.zeros(2, 5000), 10, tie_ranks(5000))
    expected = sorted(range(5000), key=mix)[:10]
    assert items.tolist() == [expected, expected]


def test_one_crowded_row_among_others():
    scores = torch.randn(4, 3000, generator=torch.Generator().manual_seed(1))
    scores[2] = 0
    scores[2, 17] = 1
    scores[3, :2990] = 5
    assert_same_lists(scores, 20)


def test_float64_differences_beyond_float32_decide():
    scores = torch.full((1, 40), 1.0, dtype=torch.float64)
    scores[0, 7] += 1e-12
    assert best(scores, 1, tie_ranks(40))[0].item() == 7


@pytest.mark.parametrize("num_items", [5, 2000])
def test_not_a_number_is_refused(num_items):
    scores = torch.zeros(2, num_items)
    scores[1, 3] = math.nan
    with pytest.raises(NonFiniteError, match="not a number"):
        best(scores, 2, tie_ranks(num_items))


def test_tie_keys_are_the_published_mix_and_distinct():
    keys = tie_keys(100_000)
    assert keys[:50].tolist() == [mix(item) for item in range(50)]
    assert len(keys.unique()) == 100_000


def test_ties_favour_neither_low_nor_high_rows():
    ranks = tie_ranks(100_000)
    halves = ranks[:50_000].mean() / ranks.mean()
    assert abs(halves - 1) < 0.01


def test_excluded_cells_can_be_a_view_of_one_shared_row():
    scores = exclude(torch.zeros(4).expand(3, 4), torch.tensor([1, 1]), torch.tensor([2, 2]))
    assert (scores == -math.inf).nonzero().tolist() == [[1, 2]]
