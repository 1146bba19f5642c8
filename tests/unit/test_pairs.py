"""Task top_n is fed alike however a step is split, and never the known as unknown (papers/cadc 5: 14)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pair_helpers import data_of, random_data

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.data.known_pairs import KnownPairs
from effrec_cli.data.pairs import PairBatches, batch_size_for
from effrec_cli.errors import DataError


def epoch_of(batches, epoch, micros=1, ranks=1):
    """Returns the tensors of an epoch, name by name, in the order of the step's samples."""
    parts = [
        batches.batch(epoch, position, Share(rank, ranks, micro, micros), position).tensors
        for position in range(batches.steps_per_epoch)
        for rank in range(ranks)
        for micro in range(micros)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def pairs_of(data):
    return sorted((user, item) for user in range(data.num_users) for item in data.train_items(user).tolist())


def test_an_epoch_meets_every_training_row_once_and_none_behind_them():
    data = random_data(held=1)
    found = epoch_of(PairBatches(data, 16, 2, seed=1), 0)
    met = sorted(zip(found["users"].tolist(), found["items"].tolist(), strict=True))
    assert met == pairs_of(data)


def test_rows_that_a_sample_keeps_are_the_ones_met():
    data = random_data()
    kept = np.arange(0, len(data.sequences.items), 3)
    owners = np.searchsorted(data.sequences.offsets, kept, side="right") - 1
    at = len(data.sequences.items) + np.searchsorted(owners, np.arange(data.num_users + 1))
    behind = np.concatenate([data.sequences.items, data.sequences.items[kept]])
    sample = replace(
        data,
        sequences=replace(data.sequences, items=behind),
        train_start=at[:-1],
        train_end=at[1:],
        full_train_end=data.train_end,
    )
    found = epoch_of(PairBatches(sample, 16, 2, seed=1), 3)
    met = sorted(zip(found["users"].tolist(), found["items"].tolist(), strict=True))
    assert met == sorted(zip(owners.tolist(), data.sequences.items[kept].tolist(), strict=True))


@pytest.mark.parametrize(("ranks", "micros"), [(2, 1), (1, 3), (2, 4)])
@pytest.mark.parametrize("filtering", [False, True])
def test_14_shares_add_up_to_the_step_whoever_computes_them(ranks, micros, filtering):
    """Sheet test 14: negatives reproducible per seed and worker count."""
    data = random_data()
    known = KnownPairs(data) if filtering else None
    batches = PairBatches(data, 32, 3, seed=5, known=known)
    whole, split = epoch_of(batches, 1), epoch_of(batches, 1, micros, ranks)
    for name, tensor in whole.items():
        assert torch.equal(tensor, split[name]), name
    first = [batches.batch(1, 0, Share(rank, ranks), 0).first_target for rank in range(ranks)]
    sizes = [batches.batch(1, 0, Share(rank, ranks), 0).size for rank in range(ranks)]
    assert first == np.cumsum([0, *sizes[:-1]]).tolist()
    assert sum(sizes) == batches.batch(1, 0, Share(), 0).total_targets


def test_14_negatives_are_drawn_anew_each_epoch_and_alike_for_one_seed_whatever_the_batch():
    """Sheet test 14: fresh each epoch, reproducible per seed."""
    data = random_data()

    def drawn(seed, epoch, batch_size):
        found = epoch_of(PairBatches(data, batch_size, 3, seed=seed), epoch)
        return found["negatives"]

    assert torch.equal(drawn(1, 0, 16), drawn(1, 0, 16))
    assert torch.equal(drawn(1, 0, 16), drawn(1, 0, 50)), "the batch size changes none"
    for other in (drawn(2, 0, 16), drawn(1, 1, 16)):
        assert (drawn(1, 0, 16) == other).float().mean() < 0.2


def test_14_filtered_negatives_are_never_met_in_training_and_uniform_over_the_rest():
    """Sheet test 14: never a known training positive with filtering, uniform otherwise (chi-square)."""
    data = random_data(num_users=6, num_items=10, longest=9)
    known = KnownPairs(data)
    batches = PairBatches(data, 1000, 50, seed=3, known=known)
    tables = np.zeros((6, 10), int)
    for epoch in range(40):
        found = epoch_of(batches, epoch)
        np.add.at(tables, (found["users"][:, None].numpy(), found["negatives"].numpy()), 1)
    for user in range(6):
        met = data.train_items(user)
        rest = np.setdiff1d(np.arange(10), met)
        assert not tables[user, met].any()
        expected = tables[user].sum() / len(rest)
        chi = ((tables[user, rest] - expected) ** 2 / expected).sum()
        assert chi < 30, "9 degrees of freedom at most: p < 0.001 beyond 27.9"


def test_without_a_filter_negatives_are_uniform_over_the_catalogue():
    data = random_data(num_users=6, num_items=10, longest=9)
    batches = PairBatches(data, 1000, 50, seed=3)
    counts = np.zeros(10, int)
    for epoch in range(20):
        counts += np.bincount(epoch_of(batches, epoch)["negatives"].ravel(), minlength=10)
    expected = counts.sum() / 10
    assert ((counts - expected) ** 2 / expected).sum() < 30


def test_rows_dropped_by_a_sample_are_still_known():
    data = data_of([[0, 1, 2, 3], [4]], num_items=5)
    sample = replace(data, train_end=np.array([1, 5]), train_start=np.array([0, 4]))
    found = [epoch_of(PairBatches(sample, 8, 20, seed=1, known=KnownPairs(data)), e) for e in range(3)]
    negatives = torch.cat([each["negatives"][each["users"] == 0] for each in found])
    assert set(negatives.ravel().tolist()) == {4}


def test_who_has_met_everything_gets_no_negative():
    data = data_of([[2, 0, 1], [1]], num_items=3)
    found = epoch_of(PairBatches(data, 8, 2, seed=1, known=KnownPairs(data)), 0)
    whole = found["users"] == 0
    assert (found["negatives"][whole] == PAD_ITEM).all()
    assert set(found["negatives"][~whole].ravel().tolist()) <= {0, 2}


def test_known_pairs_are_packed_and_say_what_they_take():
    data = random_data(num_users=100, num_items=90)
    known = KnownPairs(data)
    assert known.keys.dtype == np.uint16
    assert known.bytes == 2 * len(pairs_of(data)) + 8 * 101
    items, rows = known.items_of(np.array([7, 3, 7]))
    for at, user in enumerate((7, 3, 7)):
        assert items[rows == at].tolist() == sorted(data.train_items(user).tolist())


def test_a_row_that_stands_twice_is_known_once():
    known = KnownPairs(data_of([[1, 1, 0], [2]], num_items=4))
    assert known.unmet(np.array([0, 1])).tolist() == [2, 3]
    assert known.unmet_item(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 2])).tolist() == [2, 3, 0, 1, 3]


def test_the_items_of_the_step_are_the_same_for_every_share():
    data = random_data()
    batches = PairBatches(data, 32, 0, seed=5, known=KnownPairs(data), in_batch=True)
    whole = batches.batch(0, 1, Share(), 1).tensors
    counts = data.train_counts()
    for rank in range(3):
        part = batches.batch(0, 1, Share(rank, 3), 1).tensors
        assert "negatives" not in part
        for name in ("candidates", "log_times", "log_p"):
            assert torch.equal(whole[name], part[name])
        assert torch.equal(part["candidates"][part["labels"]], part["items"])
        cells = set(zip(part["met_rows"].tolist(), part["met_columns"].tolist(), strict=True))
        expected = {
            (row, column)
            for row, user in enumerate(part["users"].tolist())
            for column, item in enumerate(part["candidates"].tolist())
            if item in data.train_items(user) and item != part["items"][row]
        }
        assert cells == expected
    times = torch.bincount(whole["items"], minlength=30)[whole["candidates"]]
    torch.testing.assert_close(whole["log_times"], times.float().log())
    share = torch.from_numpy(counts / counts.sum()).float()[whole["candidates"]]
    torch.testing.assert_close(whole["log_p"], share.log())


def test_fresh_goes_over_another_share_of_the_rows_each_epoch():
    data = random_data()
    batches = PairBatches(data, 16, 1, seed=5, fresh=0.25)
    total = len(pairs_of(data))
    assert batches.num_samples == round(0.25 * total)
    epochs = [
        set(zip(found["users"].tolist(), found["items"].tolist(), strict=True))
        for found in (epoch_of(batches, epoch) for epoch in range(30))
    ]
    assert all(len(each) == batches.num_samples for each in epochs)
    assert epochs[0] != epochs[1]
    assert len(set().union(*epochs)) > 0.99 * total


def test_weights_go_with_their_rows_and_have_mean_1():
    data = random_data()
    own = np.arange(1, len(data.sequences.items) + 1, dtype=np.float32)
    found = epoch_of(PairBatches(replace(data, train_weights=own), 16, 1, seed=5), 0, micros=3)
    by_pair = dict(zip(pairs_in_order(data), own / own.mean(), strict=True))
    for user, item, weight in zip(found["users"], found["items"], found["weights"], strict=True):
        assert weight == pytest.approx(by_pair[int(user), int(item)], rel=1e-6)
    assert found["weights"].mean() == pytest.approx(1, rel=1e-6)


def pairs_in_order(data):
    return [(user, item) for user in range(data.num_users) for item in data.train_items(user).tolist()]


@pytest.mark.parametrize(("rows", "size"), [(10, 32), (20_000, 256), (100_000, 1024), (20_000_000, 4096)])
def test_small_samples_get_small_batches(rows, size):
    assert batch_size_for(rows) == size


def test_nothing_to_train_on_is_told():
    with pytest.raises(DataError, match="no training row"):
        PairBatches(data_of([[0], [1]], num_items=2, held=1), 8, 1, seed=1)
