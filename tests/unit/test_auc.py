"""AUC counted by hand, against scikit-learn, in any order; its interval over users; accuracy, log loss."""

import math

import numpy as np
import pytest

from effrec_cli.evaluation.auc import _drawn_aucs, accuracy, auc, auc_interval, log_loss


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], 1.0),
        ([4.0, 3.0, 2.0, 1.0], [0, 0, 1, 1], 0.0),
        ([5.0, 5.0, 5.0], [0, 1, 1], 0.5),
        # Pairs (positive, negative): 3>1, 3>2, 2>1 count one each, 2=2 counts half: 3.5 of 4.
        ([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0], 3.5 / 4),
        # Positives 1, 4, 4; negatives 4, 0: 1<4 none, 1>0 one, 4=4 half twice, 4>0 twice: 4 of 6.
        ([1.0, 4.0, 4.0, 4.0, 0.0], [1, 1, 1, 0, 0], 4 / 6),
    ],
)
def test_auc_counts_a_tie_half(scores, labels, expected):
    assert auc(np.array(scores), np.array(labels)) == expected


@pytest.mark.parametrize("levels", [3, 40, 10**9])
def test_auc_is_that_of_scikit_learn(levels):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(levels % 1000)
    scores, labels = rng.integers(0, levels, 5000) / 7, rng.random(5000) < 0.3
    assert auc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)


def test_auc_is_the_same_to_the_bit_in_every_order():
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 50, 999) / 3, rng.random(999) < 0.5
    orders = [rng.permutation(999) for _ in range(5)]
    assert len({auc(scores[order], labels[order]) for order in orders} | {auc(scores, labels)}) == 1


@pytest.mark.parametrize("label", [0, 1])
def test_auc_needs_both_kinds(label):
    with pytest.raises(ValueError, match="positives and negatives"):
        auc(np.arange(3.0), np.full(3, label))
    with pytest.raises(ValueError, match="positives and negatives"):
        auc_interval(np.arange(3.0), np.full(3, label), np.arange(3), seed=1)


def users_and_scores(seed=0, num_users=80):
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), rng.integers(1, 20, num_users))
    scores = rng.normal(size=len(users)) + rng.normal(size=num_users)[users]
    labels = rng.random(len(users)) < 1 / (1 + np.exp(-scores))
    return scores, labels, users


def test_the_interval_is_seeded_its_draws_differ_and_it_holds_the_auc():
    scores, labels, users = users_and_scores()
    low, high, deviation = auc_interval(scores, labels, users, seed=1)
    assert low < auc(scores, labels) < high
    assert deviation > 0.005
    assert (low, high, deviation) == auc_interval(scores, labels, users, seed=1)
    assert (low, high, deviation) != auc_interval(scores, labels, users, seed=2)


def test_a_draw_of_users_is_the_auc_of_their_rows_repeated():
    scores, labels, users = users_and_scores(num_users=6)
    scores = np.round(scores)
    found = _drawn_aucs(scores, labels, users, seed=5)
    rng, expected = np.random.default_rng(5), []
    for _ in range(20):
        drawn = rng.integers(0, 6, 6)
        rows = np.concatenate([np.flatnonzero(users == user) for user in drawn])
        expected.append(auc(scores[rows], labels[rows]))
    assert found[:20] == pytest.approx(expected, abs=1e-12)


def test_more_users_make_a_narrower_interval():
    widths = []
    for num_users in (50, 2000):
        low, high, _ = auc_interval(*users_and_scores(num_users=num_users), seed=1)
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_accuracy_and_log_loss_by_hand():
    logits, labels = np.array([2.0, -1.0, 0.0, -3.0]), np.array([1, 1, 1, 0])
    assert accuracy(logits, labels) == 0.75
    losses = [math.log1p(math.exp(-2)), math.log1p(math.exp(1)), math.log(2), math.log1p(math.exp(-3))]
    assert log_loss(logits, labels) == pytest.approx(sum(losses) / 4, abs=1e-15)
    assert math.isfinite(log_loss(np.array([1e4]), np.array([0])))
