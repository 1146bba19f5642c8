"""AUC, log loss and calibration against their definitions."""

import numpy as np
import pytest

from effrec_cli.evaluation.calibration import (
    calibration,
    expected_calibration_error,
    normalised_entropy,
    probabilities,
)
from effrec_cli.methods.ctr.judge import metrics_of_labels


def some(rows=60, seed=0, tied=True):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, rows)
    return (logits.round(1) if tied else logits), (rng.random(rows) < 0.3).astype(np.int8)


def test_metrics_are_what_they_say():
    logits, labels = some()
    found = metrics_of_labels(logits, labels)
    chance = 1 / (1 + np.exp(-logits))
    pairs = [
        (a > b) + 0.5 * (a == b) for a in logits[labels == 1].tolist() for b in logits[labels == 0].tolist()
    ]
    assert found["auc"] == pytest.approx(np.mean(pairs), abs=1e-12)
    loss = -np.mean(np.where(labels == 1, np.log(chance), np.log(1 - chance)))
    assert found["log_loss"] == pytest.approx(loss, abs=1e-12)
    rate = labels.mean()
    always = -np.mean(np.where(labels == 1, np.log(rate), np.log(1 - rate)))
    assert found["ne"] == pytest.approx(loss / always, abs=1e-12)
    assert found["calibration"] == pytest.approx(chance.mean() / rate, abs=1e-12)


def brute_force(logits, labels, bins):
    """Groups of equal size by logit, a tie as a whole where its middle falls."""
    chance, total = 1 / (1 + np.exp(-logits)), 0.0
    groups = {}
    for logit in sorted(set(logits.tolist())):
        rows = np.flatnonzero(logits == logit)
        middle = np.count_nonzero(logits < logit) + len(rows) / 2
        groups.setdefault(int(bins * middle / len(logits)), []).extend(rows.tolist())
    for rows in groups.values():
        total += abs(chance[rows].mean() - labels[rows].mean()) * len(rows)
    return total / len(logits)


@pytest.mark.parametrize("bins", [1, 5, 20])
@pytest.mark.parametrize("tied", [False, True])
def test_calibration_error_is_that_of_groups(bins, tied):
    logits, labels = some(tied=tied)
    found = expected_calibration_error(logits, labels, bins)
    assert found == pytest.approx(brute_force(logits, labels, bins), abs=1e-12)


def test_calibration_error_does_not_depend_on_the_order_of_rows():
    logits, labels = some()
    order = np.random.default_rng(1).permutation(len(logits))
    same = expected_calibration_error(logits[order], labels[order])
    assert same == pytest.approx(expected_calibration_error(logits, labels), abs=1e-15)


def test_a_shift_of_all_logits_shows_in_calibration_and_not_in_auc():
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 1, 20_000)
    labels = (rng.random(20_000) < probabilities(logits)).astype(np.int8)
    true, moved = metrics_of_labels(logits, labels), metrics_of_labels(logits + 1, labels)
    assert true["auc"] == moved["auc"]
    assert true["calibration"] == pytest.approx(1, abs=0.05)
    assert moved["calibration"] > 1.5
    assert moved["ece"] > 5 * true["ece"]
    assert moved["log_loss"] > true["log_loss"]


def test_the_base_rate_alone_has_an_entropy_of_one():
    labels = np.array([1, 0, 0, 0])
    logits = np.full(4, np.log(0.25 / 0.75))
    found = metrics_of_labels(logits, labels)
    assert (found["ne"], found["calibration"]) == pytest.approx((1, 1))
    assert found["ece"] == pytest.approx(0, abs=1e-12)
    assert normalised_entropy(found["log_loss"], 0.25) == found["ne"]


def test_extreme_logits_are_finite_probabilities():
    np.testing.assert_array_equal(probabilities(np.array([-1e4, 0, 1e4])), [0, 0.5, 1])


def test_calibration_needs_a_click():
    with pytest.raises(ValueError, match="label"):
        calibration(np.zeros(3), np.zeros(3))
