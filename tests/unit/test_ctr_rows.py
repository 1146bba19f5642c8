"""Labelled rows as a network reads them, and which of them it trains on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click_helpers import clicks

from effrec_cli.data.batches import Share
from effrec_cli.data.click_batches import ClickBatches
from effrec_cli.data.click_features import ClickFeatures, Reading
from effrec_cli.data.click_rows import Kept, click_hashes, keep_rows
from effrec_cli.errors import DataError
from effrec_cli.schema.sample import SampleConfig


def with_test_rows_changed(made):
    """Returns the rows with other features where they are for validation and test."""
    held = made.part != 0
    dense, codes = made.dense.copy(), made.categories.copy()
    dense[held] += 100
    codes[held] = 1
    return replace(made, dense=dense, categories=codes)


def shuffled(made, seed=0):
    """Returns the rows in another order, and that order."""
    order = np.random.default_rng(seed).permutation(len(made))
    names = ["labels", "part", "dense", "categories"]
    names += ["users", "items"] if made.users is not None else []
    names += ["times"] if made.times is not None else []
    return replace(made, **{name: getattr(made, name)[order] for name in names}), order


def test_numbers_are_scaled_by_training_rows_alone():
    made = clicks()
    rows = made.of_part("train")
    dense = ClickFeatures(made, Reading()).dense(rows)
    np.testing.assert_allclose(dense.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(dense.std(0), 1, atol=1e-5)
    changed = ClickFeatures(with_test_rows_changed(made), Reading()).dense(rows)
    np.testing.assert_array_equal(dense, changed)


def test_moments_are_the_same_whatever_the_blocks(monkeypatch):
    made = clicks()
    rows = made.of_part("test")
    whole = ClickFeatures(made, Reading()).dense(rows)
    monkeypatch.setattr("effrec_cli.data.click_features.BLOCK_ROWS", 7)
    np.testing.assert_allclose(ClickFeatures(made, Reading()).dense(rows), whole, atol=1e-6)


def test_missing_numbers_are_the_mean_and_flagged():
    made = clicks(dense=2)
    made.dense[[0, 5, 190], 1] = np.nan
    features = ClickFeatures(made, Reading())
    found = features.dense(np.array([0, 1, 190]))
    assert features.num_dense == found.shape[1] == 3
    assert found[:, 1].tolist()[::2] == [0, 0]
    assert found[:, 2].tolist() == [1, 0, 1]


def test_log1p_keeps_the_sign():
    made = clicks(dense=1)
    made.dense[:2, 0] = [np.e - 1, 1 - np.e]
    found = ClickFeatures(made, Reading(log1p=True)).dense(np.arange(2)).ravel()
    read = np.sign(made.dense) * np.log1p(np.abs(made.dense))
    train = read[made.of_part("train")]
    np.testing.assert_allclose(found, ([1, -1] - train.mean()) / train.std(), rtol=1e-5)


def test_rare_and_unknown_values_are_one_and_missing_is_too():
    made = clicks(columns=1, values=4)
    train = made.of_part("train")
    made.categories[:, 0] = 1
    made.categories[train[:5], 0] = 2
    made.categories[train[5], 0] = 3
    made.categories[-1, 0] = 4
    made.categories[-2, 0] = 0
    features = ClickFeatures(made, Reading(min_count=5))
    found = features.categories(np.array([0, train[5], train[6], len(made) - 1, len(made) - 2])).ravel()
    assert found.tolist() == [2, 0, 1, 0, 0]
    assert features.cardinalities == [3]


def test_rare_values_share_buckets_by_their_hash():
    made = clicks(columns=1, values=50, rows=400)
    made.categories[made.of_part("train"), 0] = 1
    features = ClickFeatures(made, Reading(buckets=3))
    codes = np.arange(1, 51, dtype=np.int32)
    rows = np.arange(350, 400)
    made.categories[rows, 0] = codes
    found = features.categories(rows).ravel()
    assert found[0] == 4
    np.testing.assert_array_equal(found[1:], 1 + made.values[0][1:].astype(object) % 3)
    assert features.cardinalities == [5]


def test_who_has_no_training_row_is_not_known():
    made = clicks(ids=True)
    made.users[made.of_part("train")] = 3
    found = ClickFeatures(made, Reading()).ids(np.arange(len(made)))
    np.testing.assert_array_equal(found[:, 0], np.where(made.users == 3, 3, -1))


@pytest.mark.parametrize("mode", ["uniform", "exact"])
def test_samples_are_of_training_rows_nested_and_reproducible(mode):
    made = clicks(2000)
    large = keep_rows(made, SampleConfig(rate=0.5, mode=mode)).rows
    small = keep_rows(made, SampleConfig(rate=0.1, mode=mode)).rows
    assert set(small) < set(large) < set(made.of_part("train"))
    np.testing.assert_array_equal(small, keep_rows(made, SampleConfig(rate=0.1, mode=mode)).rows)
    other = keep_rows(made, SampleConfig(rate=0.1, mode=mode, seed=7)).rows
    assert len(set(other) & set(small)) < len(small) / 2
    n, rate = len(made.of_part("train")), 0.5
    if mode == "exact":
        assert len(large) == round(rate * n)
    assert abs(len(large) - rate * n) < 4 * np.sqrt(n * rate * (1 - rate))


def test_a_sample_does_not_depend_on_the_order_of_rows():
    made = clicks(1000, ids=True, times=True)
    other, order = shuffled(made)
    settings = SampleConfig(rate=0.3)
    kept = keep_rows(made, settings, 0.5).rows
    again = order[keep_rows(other, settings, 0.5).rows]
    np.testing.assert_array_equal(np.sort(again), kept)


def test_what_rows_say_decides_their_hash():
    made = clicks(50, ids=True, times=True)
    rows = np.arange(50)
    first = click_hashes(made, rows, 1)
    for name in ("labels", "users", "items", "times", "dense", "categories"):
        column = getattr(made, name).copy()
        column[0] = 1 - column[0] if name == "labels" else (column[0] + 1) % 3 + 1
        changed = click_hashes(replace(made, **{name: column}), rows, 1)
        assert changed[0] != first[0], name
        np.testing.assert_array_equal(changed[1:], first[1:])


def test_all_ones_stay_and_a_share_of_zeros():
    made = clicks(4000)
    train = made.of_part("train")
    kept = keep_rows(made, SampleConfig(rate=1), 0.25)
    ones = train[made.labels[train] == 1]
    assert set(ones) <= set(kept.rows)
    zeros = len(train) - len(ones)
    assert abs(len(kept.rows) - len(ones) - zeros / 4) < 4 * np.sqrt(zeros * 0.25 * 0.75)
    assert kept.weights is None
    assert kept.base_rate == pytest.approx(len(ones) / len(kept.rows))


def test_weights_stand_for_the_zeros_left_out():
    made = clicks(4000)
    train = made.of_part("train")
    kept = keep_rows(made, SampleConfig(rate=1), 0.25, weighted=True)
    labels = made.labels[kept.rows]
    assert kept.weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(kept.weights[labels == 0] / kept.weights[labels == 1][0], 4, rtol=1e-6)
    assert kept.base_rate == pytest.approx(made.labels[train].mean(), rel=0.05)


def test_a_sample_without_ones_is_refused():
    made = clicks(300)
    made.labels[made.of_part("train")[1:]] = 0
    with pytest.raises(DataError, match="nothing to learn") as caught:
        keep_rows(made, SampleConfig(rate=0.05, mode="exact"))
    assert "method.sample.rate" in str(caught.value.fix)


def batches(batch_size=16, **settings):
    made = clicks(ids=True, **settings)
    rows = made.of_part("train")
    weights = np.arange(len(rows), dtype=np.float32)
    return made, ClickBatches(ClickFeatures(made, Reading()), Kept(rows, weights, 0.3), batch_size, 1)


def test_an_epoch_meets_each_row_once_in_an_order_of_its_own():
    made, fed = batches()
    met = [
        torch.cat([fed.batch(epoch, at, Share(), at).tensors["weights"] for at in range(fed.steps_per_epoch)])
        for epoch in (0, 1)
    ]
    for order in met:
        assert sorted(order.tolist()) == list(range(len(made.of_part("train"))))
    assert met[0].tolist() != met[1].tolist()


def test_shares_of_a_step_make_the_whole():
    _, fed = batches()
    whole = fed.batch(2, 1, Share(), 0)
    parts = [fed.batch(2, 1, Share(rank=rank, ranks=3), 0) for rank in range(3)]
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(torch.cat([part.tensors[name] for part in parts]), tensor)
    assert {part.total_targets for part in parts} == {whole.total_targets} == {len(whole.tensors["labels"])}


def test_tensors_say_what_rows_do():
    made, fed = batches()
    tensors = fed.batch(0, 0, Share(), 0).tensors
    rows = made.of_part("train")[tensors["weights"].long().numpy()]
    assert tensors["labels"].tolist() == made.labels[rows].tolist()
    assert tensors["ids"].tolist() == np.stack([made.users[rows], made.items[rows]], 1).tolist()
    assert tensors["categories"].shape == (len(rows), 2)
