"""Batches of task next_item: what is a target, what each rank gets, and that it is a pure function."""

import collections

import numpy as np
import pytest
import torch

from effrec_cli.data.batches import Share
from effrec_cli.data.next_item import NextItemBatches, batch_size_for
from effrec_cli.data.shuffle import shuffled
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.errors import DataError

LENGTHS = [9, 2, 3, 0, 25, 12, 1, 40, 5]
HELD_OUT = 2


def make_data(lengths=LENGTHS, held_out=HELD_OUT):
    """Every interaction has an item of its own, so that an item names its position."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    train_end = np.maximum(offsets[1:] - held_out, offsets[:-1])
    none = np.zeros(0, dtype=np.int64)
    cases = EvalCases(none.astype(np.int32), none, none, none, none)
    sequences = Sequences(offsets, np.arange(total, dtype=np.int32))
    users, items = Catalogue(np.arange(len(lengths))), Catalogue(np.arange(total))
    return RecData("tiny", "0" * 12, sequences, train_end, cases, cases, users, items)


def make(window="slide", batch_size=4, max_length=7, seed=1, **changes):
    return NextItemBatches(make_data(**changes), batch_size, max_length, window, seed)


def epoch_of(batches, epoch=0, ranks=1, micros=1):
    """Returns every micro-batch of an epoch."""
    return [
        batches.batch(epoch, position, Share(rank, ranks, micro, micros), step=position)
        for position in range(batches.steps_per_epoch)
        for rank in range(ranks)
        for micro in range(micros)
    ]


def pairs(found):
    """Returns (input, target) of every place with a loss."""
    inputs = torch.cat([b.tensors["inputs"].flatten() for b in found])
    targets = torch.cat([b.tensors["targets"].flatten() for b in found])
    keep = targets != -100
    return list(zip(inputs[keep].tolist(), targets[keep].tolist(), strict=True))


@pytest.mark.parametrize("max_length", [1, 3, 7, 100])
@pytest.mark.parametrize("epoch", [0, 1])
def test_slide_makes_every_training_position_a_target_exactly_once(max_length, epoch):
    data = make_data()
    starts, ends = data.sequences.offsets[:-1], data.train_end
    expected = [(at - 1, at) for start, end in zip(starts, ends, strict=True) for at in range(start + 1, end)]
    assert sorted(pairs(epoch_of(make(max_length=max_length), epoch))) == expected


def test_last_takes_the_last_window_of_each_user():
    data = make_data()
    found = pairs(epoch_of(make("last")))
    starts, ends = data.sequences.offsets[:-1], data.train_end
    expected = [
        (at - 1, at)
        for start, end in zip(starts, ends, strict=True)
        for at in range(max(start + 1, end - 7), end)
    ]
    assert sorted(found) == expected


@pytest.mark.parametrize("window", ["slide", "last"])
def test_nothing_held_out_is_ever_read(window):
    data = make_data()
    trained = set()
    for start, end in zip(data.sequences.offsets[:-1], data.train_end, strict=True):
        trained |= set(range(start, end))
    for batch in epoch_of(make(window)):
        real = torch.arange(batch.tensors["inputs"].shape[1]) < batch.tensors["lengths"][:, None]
        assert set(batch.tensors["inputs"][real].tolist()) <= trained
        assert set(batch.tensors["targets"][real].tolist()) <= trained


def test_windows_are_right_padded_and_shifted_by_one():
    for batch in epoch_of(make()):
        tensors = batch.tensors
        column = torch.arange(tensors["inputs"].shape[1])
        real = column < tensors["lengths"][:, None]
        assert all(tensor.dtype == torch.int64 for tensor in tensors.values())
        assert (tensors["inputs"][~real] == 0).all()
        assert (tensors["targets"][~real] == -100).all()
        assert (tensors["targets"][real] == tensors["inputs"][real] + 1).all()
        assert tensors["valid"].tolist() == real.flatten().nonzero().flatten().tolist()
        assert (tensors["lengths"] >= 1).all()


def test_batches_are_a_pure_function_of_seed_epoch_and_position():
    left, right = make(), make()
    right.batch(5, 2, Share(), step=9)
    for one, other in zip(epoch_of(left), epoch_of(right), strict=True):
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        torch.cat([b.tensors["inputs"][:, 0] for b in epoch_of(make(seed=seed), epoch)]).tolist()
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_slide_cuts_elsewhere_each_epoch():
    """27 targets in three windows of 10: the first and the last are 3 short together, in any way."""
    batches = make(max_length=10, lengths=[30])
    cuts = collections.Counter()
    for epoch in range(400):
        found = [batches.batch(epoch, position, Share(), 0) for position in range(batches.steps_per_epoch)]
        start = torch.cat([b.tensors["inputs"][:, 0] for b in found])
        lengths = torch.cat([b.tensors["lengths"] for b in found])[start.argsort()].tolist()
        assert lengths[1] == 10
        assert lengths[0] + lengths[2] == 17
        cuts[lengths[0]] += 1
    assert sorted(cuts) == [7, 8, 9, 10]
    assert min(cuts.values()) > 60


def test_last_and_short_histories_are_never_cut():
    for batches in (make("last", lengths=[30]), make("slide", lengths=[9])):
        found = [epoch_of(batches, epoch)[0].tensors for epoch in range(5)]
        assert all(torch.equal(tensors["inputs"], found[0]["inputs"]) for tensors in found)
        assert found[0]["lengths"].tolist() in ([7], [6])


@pytest.mark.parametrize(("ranks", "micros"), [(2, 1), (1, 3), (2, 2), (5, 2)])
def test_shares_partition_a_step_and_keep_its_row_numbers(ranks, micros):
    batches = make(batch_size=6)
    for position in range(batches.steps_per_epoch):
        whole = batches.batch(0, position, Share(), step=position)
        parts = [
            batches.batch(0, position, Share(rank, ranks, micro, micros), step=position)
            for rank in range(ranks)
            for micro in range(micros)
        ]
        assert sum(part.size for part in parts) == whole.size
        assert max(part.size for part in parts) - min(part.size for part in parts) <= 1
        assert {part.total_targets for part in parts} == {whole.total_targets}
        assert whole.total_targets == len(whole.tensors["valid"])
        assert sorted(rows_of(parts)) == sorted(rows_of([whole]))


def rows_of(found):
    """Returns (number within the step, input, target) of every place with a loss."""
    rows = []
    for batch in found:
        at = batch.tensors["valid"]
        pair = [batch.tensors[name].flatten()[at].tolist() for name in ("inputs", "targets")]
        numbers = range(batch.first_target, batch.first_target + len(at))
        rows += zip(numbers, *pair, strict=True)
    return rows


def test_targets_are_numbered_through_the_step_without_a_gap():
    """Window by window, as `lengths` say: what groups of rows are cut by."""
    for batch in epoch_of(make(batch_size=6)):
        assert batch.first_target == 0
        assert batch.total_targets == len(batch.tensors["valid"]) == int(batch.tensors["lengths"].sum())
    batches = make(batch_size=6)
    parts = [batches.batch(0, 0, Share(rank, 4), 0) for rank in range(4)]
    ends = [part.first_target + len(part.tensors["valid"]) for part in parts]
    assert [part.first_target for part in parts] == [0, *ends[:-1]]
    assert ends[-1] == parts[0].total_targets
    assert parts[1].to(torch.device("cpu")).first_target == parts[1].first_target > 0


@pytest.mark.parametrize("window", ["slide", "last"])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_has_as_many_items_and_targets_as_said(window, epoch):
    batches = make(window)
    found = epoch_of(batches, epoch)
    assert batches.items_per_epoch == sum(int(batch.tensors["lengths"].sum()) for batch in found)
    assert batches.targets_per_epoch == sum(len(batch.tensors["valid"]) for batch in found)


def test_an_empty_share_is_a_batch_of_no_samples():
    batches = make(batch_size=1)
    empty = batches.batch(0, 0, Share(rank=0, ranks=4), step=3)
    assert empty.size == 0
    assert empty.total_targets > 0
    assert all(len(tensor) == 0 for tensor in empty.tensors.values())


@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 100])
def test_steps_are_of_even_size_and_never_above_the_batch_size(batch_size):
    batches = make(batch_size=batch_size)
    sizes = [batch.size for batch in epoch_of(batches)]
    assert sum(sizes) == batches.num_samples
    assert len(sizes) == batches.steps_per_epoch == -(-batches.num_samples // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_batches_are_no_wider_than_their_longest_window_asks():
    batches = make(batch_size=1, max_length=100, lengths=[5, 19, 60])
    widths = sorted(batch.tensors["inputs"].shape[1] for batch in epoch_of(batches))
    assert widths == [16, 16, 64]
    assert make(max_length=7).batch(0, 0, Share(), 0).tensors["inputs"].shape[1] == 7


@pytest.mark.parametrize(
    ("users", "window", "size"),
    [
        (9, "slide", 16),
        (700, "slide", 32),
        (700, "last", 16),
        (6000, "slide", 256),
        (6000, "last", 64),
        (90_000, "slide", 256),
    ],
)
def test_batch_size_makes_about_a_hundred_steps(users, window, size):
    """Each user has 27 targets: 4 windows of 7."""
    assert batch_size_for(make_data([30] * users), 7, window) == size


def test_data_with_nothing_to_foretell_are_refused():
    with pytest.raises(DataError, match="two training"):
        make(lengths=[3, 2, 0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 610, 1000, 65537])
def test_shuffled_is_a_permutation(count):
    order = shuffled(np.arange(count), count, seed=3, epoch=4)
    assert np.array_equal(np.sort(order), np.arange(count))
    some = np.array([0, count - 1, count // 2])
    assert np.array_equal(shuffled(some, count, seed=3, epoch=4), order[some])


def test_all_orders_of_a_few_samples_are_equally_likely():
    epochs = 2400
    seen = collections.Counter(tuple(shuffled(np.arange(4), 4, seed=1, epoch=e)) for e in range(epochs))
    assert len(seen) == 24
    chi_square = sum((count - epochs / 24) ** 2 / (epochs / 24) for count in seen.values())
    assert chi_square < 50  # 23 degrees of freedom: p = 0.001 is 49.7


def test_neighbours_in_one_order_are_not_neighbours_in_the_next():
    count, epochs = 40, 3000
    follows = np.zeros((count, count))
    for epoch in range(epochs):
        order = shuffled(np.arange(count), count, seed=7, epoch=epoch)
        follows[order[:-1], order[1:]] += 1
    off_diagonal = follows[~np.eye(count, dtype=bool)]
    expected = epochs / count
    chi_square = ((off_diagonal - expected) ** 2 / expected).sum()
    assert abs(chi_square - len(off_diagonal)) < 5 * np.sqrt(2 * len(off_diagonal))


def test_order_of_a_hundred_million_samples_needs_no_table():
    some = np.arange(123_456_789 - 128, 123_456_789)
    order = shuffled(some, 123_456_789, seed=1, epoch=0)
    assert len(np.unique(order)) == 128
    assert order.min() >= 0
    assert order.max() < 123_456_789
