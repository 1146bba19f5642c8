"""Metrics within impressions: hand-computed, by brute force over the orders of ties, and in blocks."""

import itertools
import math

import numpy as np
import pytest
import torch

from effrec_cli.errors import DataError, NonFiniteError
from effrec_cli.evaluation.impressions import METRICS, ImpressionSums, per_impression

CPU = torch.device("cpu")


def of_one(scores, clicks):
    """Returns the metrics of one impression by name."""
    values, mixed = per_impression(
        torch.tensor(scores, dtype=torch.float32), torch.tensor(clicks), torch.tensor([len(scores)])
    )
    assert mixed.all()
    return dict(zip(METRICS, values[0].tolist(), strict=True))


def by_hand(clicks):
    """Returns the metrics of clicks in the order of their scores, without ties, by their definitions."""
    places = [place for place, click in enumerate(clicks, 1) if click]
    pairs = [
        (a, b) for a, click in enumerate(clicks) for b, other in enumerate(clicks) if click and not other
    ]
    found = {"auc": np.mean([a < b for a, b in pairs]), "mrr": np.mean([1 / place for place in places])}
    for k in (5, 10):
        gain = sum(1 / math.log2(place + 1) for place in places if place <= k)
        best = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(places)) + 1))
        found[f"ndcg@{k}"] = gain / best
    return found


def over_all_orders(scores, clicks):
    """Returns the mean of the metrics over every order that ties allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    every = [by_hand([clicks[at] for at in order]) for order in orders]
    return {name: float(np.mean([found[name] for found in every])) for name in METRICS}


def test_one_click_computed_by_hand():
    found = of_one([0.3, 0.9, 0.1, 0.5], [1, 0, 0, 0])  # third of four
    assert found == pytest.approx({"auc": 1 / 3, "mrr": 1 / 3, "ndcg@5": 0.5, "ndcg@10": 0.5}, abs=1e-12)


def test_several_clicks_computed_by_hand():
    found = of_one([6, 5, 4, 3, 2, 1], [0, 1, 0, 0, 0, 1])  # second and sixth
    assert found["auc"] == pytest.approx(3 / 8, abs=1e-12)
    assert found["mrr"] == pytest.approx((1 / 2 + 1 / 6) / 2, abs=1e-12)
    best = 1 + 1 / math.log2(3)
    assert found["ndcg@5"] == pytest.approx((1 / math.log2(3)) / best, abs=1e-12)
    assert found["ndcg@10"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(7)) / best, abs=1e-12)


def test_ties_computed_by_hand():
    found = of_one([1.0, 1.0, 0.0], [1, 0, 0])  # first or second, equally often
    first_or_second = (1 + 1 / math.log2(3)) / 2
    expected = {"auc": 0.75, "mrr": 0.75, "ndcg@5": first_or_second, "ndcg@10": first_or_second}
    assert found == pytest.approx(expected, abs=1e-12)
    chance = of_one([2.0] * 4, [0, 1, 0, 0])
    assert (chance["auc"], chance["mrr"]) == pytest.approx((0.5, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 8))
    scores = rng.integers(0, 3, size).astype(float).tolist()
    clicks = np.zeros(size, dtype=int)
    clicks[rng.permutation(size)[: rng.integers(1, size)]] = 1
    assert of_one(scores, clicks.tolist()) == pytest.approx(over_all_orders(scores, clicks), abs=1e-12)


def test_the_order_of_candidates_changes_nothing():
    scores, clicks = [0.0, 1.0, 1.0, 2.0, 0.0, 1.0], [1, 1, 0, 0, 0, 1]
    expected = of_one(scores, clicks)
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 37):
        assert of_one([scores[at] for at in order], [clicks[at] for at in order]) == expected


def test_auc_agrees_with_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, clicks = rng.integers(0, 9, 40).astype(float), rng.integers(0, 2, 40)
    found = of_one(scores.tolist(), clicks.tolist())
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(clicks, scores), abs=1e-12)


def impressions(count=200, seed=1):
    """Returns random impressions with ties, some with all or no clicks."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, count)
    total = int(sizes.sum())
    scores = torch.from_numpy(rng.integers(0, 6, total).astype(np.float32))
    clicks = torch.from_numpy((rng.random(total) < 0.4).astype(np.uint8))
    return scores, clicks, torch.from_numpy(sizes), torch.from_numpy(rng.random(count) < 0.3)


def means(blocks):
    sums = ImpressionSums(CPU)
    scores, clicks, sizes, cold = impressions()
    cells = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    for low, high in blocks:
        sums.add(
            scores[cells[low] : cells[high]],
            clicks[cells[low] : cells[high]],
            sizes[low:high],
            cold[low:high],
        )
    return sums.means()


def test_neither_blocks_nor_their_order_change_a_number():
    whole = means([(0, 200)])
    assert means([(0, 1), (1, 50), (50, 50), (50, 200)]) == whole
    assert means([(at, at + 1) for at in reversed(range(200))]) == whole


def test_means_leave_out_impressions_with_all_or_no_clicks():
    scores, clicks, sizes, cold = impressions()
    each = zip(scores.split(sizes.tolist()), clicks.split(sizes.tolist()), cold.tolist(), strict=True)
    kept = [(of_one(s.tolist(), c.tolist()), is_cold) for s, c, is_cold in each if 0 < c.sum() < len(c)]
    assert 0 < len(kept) < 200
    found = means([(0, 200)])
    for name in METRICS:
        assert found[name] == pytest.approx(np.mean([one[name] for one, _ in kept]), abs=1e-9)
        of_cold = np.mean([one[name] for one, is_cold in kept if is_cold])
        assert found[f"{name}_cold"] == pytest.approx(of_cold, abs=1e-9)


def test_without_a_cold_click_there_is_no_cold_metric():
    sums = ImpressionSums(CPU)
    sums.add(torch.tensor([1.0, 0.0]), torch.tensor([1, 0]), torch.tensor([2]), torch.tensor([False]))
    assert sums.means() == dict.fromkeys(METRICS, 1.0)


def test_nothing_to_judge_is_an_error_and_so_is_nan():
    sums = ImpressionSums(CPU)
    sums.add(torch.tensor([1.0, 0.0]), torch.tensor([1, 1]), torch.tensor([2]), torch.tensor([False]))
    with pytest.raises(DataError, match="no impression to evaluate"):
        sums.means()
    with pytest.raises(NonFiniteError):
        sums.add(torch.tensor([torch.nan]), torch.tensor([1]), torch.tensor([1]), torch.tensor([False]))
