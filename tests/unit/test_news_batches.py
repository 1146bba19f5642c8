"""Batches of news: negatives of the same impression, most recent histories, sums over ranks and micros."""

from collections import Counter

import numpy as np
import pytest
import torch
from news_helpers import history_of, log, simulated, slate_of

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.data.news_batches import NewsBatches, draw_different
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.errors import DataError

MANY = [
    [(10, 1), (11, 0), (12, 0), (13, 0), (14, 0), (15, 0)],
    [(20, 0), (21, 1), (22, 0), (23, 1)],
    [(30, 1), (31, 1)],
    [(40, 0), (41, 0)],
    [(50, 1), (51, 0), (52, 0)],
    [(60, 1), (61, 0), (62, 0)],
]
PARTS = [TRAIN, TRAIN, TRAIN, TRAIN, VALID, TEST]
HISTORIES = [[1, 2, 3, 4, 5], [], [6], [7], [8], [9]]


def small(batch_size=3, num_negatives=3, max_length=3, seed=1):
    return NewsBatches(log(HISTORIES, MANY, parts=PARTS), batch_size, num_negatives, max_length, seed)


def rows_of(batches, epoch):
    """Returns an epoch's (history, candidates) as tuples, step by step."""
    found = []
    for position in range(batches.steps_per_epoch):
        tensors = batches.batch(epoch, position, Share(), 0).tensors
        for history, length, candidates in zip(*tensors.values(), strict=True):
            assert (history[length:] == PAD_ITEM).all()
            found.append((tuple(history[:length].tolist()), tuple(candidates.tolist())))
    return found


def test_a_sample_is_a_training_click_with_non_clicks_of_its_own_impression():
    batches = small()
    assert (batches.num_samples, batches.left_out) == (3, 1)
    for epoch in range(5):
        rows = rows_of(batches, epoch)
        assert sorted(candidates[0] for _, candidates in rows) == [10, 21, 23]
        for history, (clicked, *others) in rows:
            if clicked == 10:
                assert history == (3, 4, 5)  # the most recent three, oldest first
                assert len(set(others)) == 3
                assert set(others) <= {11, 12, 13, 14, 15}
            else:
                assert history == ()
                assert set(others) <= {20, 22}
                assert len(others) == 3


def test_negatives_of_the_simulator_were_shown_beside_and_not_clicked():
    _, found = simulated()
    batches = NewsBatches(found, 64, 4, 50, seed=3)
    slates = {}
    for row in found.of_part("train"):
        slate = slate_of(found, row)
        free = frozenset(item for item, click in slate if not click)
        for item, click in slate:
            if click:
                slates.setdefault((tuple(history_of(found, row)[-50:]), item), []).append(free)
    for history, (clicked, *others) in rows_of(batches, 0):
        assert any(set(others) <= free for free in slates[history, clicked])
    assert batches.num_samples == sum(map(len, slates.values())) - _only_clicks(found)


def _only_clicks(found):
    slates = [slate_of(found, row) for row in found.of_part("train")]
    return sum(len(slate) for slate in slates if all(click for _, click in slate))


def test_negatives_are_drawn_anew_each_epoch_and_are_the_same_again():
    batches, again, other = small(), small(), small(seed=2)
    assert rows_of(batches, 0) == rows_of(again, 0)
    assert len({tuple(sorted(rows_of(batches, epoch))) for epoch in range(8)}) > 4
    assert rows_of(batches, 0) != rows_of(other, 0)


def test_each_negative_is_drawn_as_often_as_the_next():
    names = np.arange(40_000)
    picks = draw_different(np.full(len(names), 5), names, 3, seed=1, epoch=0)
    sets = Counter(map(tuple, np.sort(picks, axis=1).tolist()))
    assert all(len(set(chosen)) == 3 for chosen in sets)
    assert len(sets) == 10
    assert max(abs(count - 4000) for count in sets.values()) < 300  # five standard deviations
    assert all(abs(np.bincount(picks[:, at], minlength=5) - 8000).max() < 400 for at in range(3))


def test_fewer_than_asked_come_more_than_once():
    picks = draw_different(np.array([1, 2, 4]), np.arange(3), 4, seed=1, epoch=0)
    assert picks[0].tolist() == [0, 0, 0, 0]
    assert set(picks[1].tolist()) <= {0, 1}
    assert sorted(picks[2].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("ranks", "micros"), [(1, 3), (2, 1), (3, 2), (4, 3)])
def test_ranks_and_micro_batches_partition_the_step(ranks, micros):
    _, found = simulated()
    batches = NewsBatches(found, 10, 4, 20, seed=5)
    for position in (0, 1, batches.steps_per_epoch - 1):
        whole = batches.batch(1, position, Share(), 7)
        parts = [
            batches.batch(1, position, Share(rank, ranks, micro, micros), 7)
            for rank in range(ranks)
            for micro in range(micros)
        ]
        assert sum(part.size for part in parts) == whole.size == whole.total_targets
        assert {part.total_targets for part in parts} == {whole.total_targets}
        assert [part.first_target for part in parts] == np.cumsum([0, *(p.size for p in parts)])[:-1].tolist()
        for name in ("lengths", "candidates"):
            assert torch.equal(torch.cat([part.tensors[name] for part in parts]), whole.tensors[name])
        wide = [torch.nn.functional.pad(p.tensors["history"], (0, 20), value=PAD_ITEM) for p in parts]
        width = whole.tensors["history"].shape[1]
        assert torch.equal(torch.cat([part[:, :width] for part in wide]), whole.tensors["history"])


def test_an_epoch_has_every_sample_once():
    _, found = simulated()
    batches = NewsBatches(found, 37, 4, 5, seed=5)
    sizes = [batches.batch(0, at, Share(), 0).size for at in range(batches.steps_per_epoch)]
    assert sum(sizes) == batches.num_samples
    assert max(sizes) <= 37
    assert max(sizes) - min(sizes) <= 1
    seen = np.concatenate([batches._samples(0, at) for at in range(batches.steps_per_epoch)])
    assert np.array_equal(np.sort(seen), np.arange(batches.num_samples))


def test_an_empty_share_has_the_right_shapes():
    batch = small().batch(0, 0, Share(rank=0, ranks=8), 0)
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.tensors.items()}
    assert shapes == {"history": (0, 3), "lengths": (0,), "candidates": (0, 4)}


def test_clicks_alone_teach_nothing():
    with pytest.raises(DataError, match="beside something that was not clicked"):
        NewsBatches(log([[1]], [[(0, 1), (1, 1)]]), 8, 4, 10, seed=1)
