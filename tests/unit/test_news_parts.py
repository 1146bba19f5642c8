"""Impressions: parts by time, histories strictly before, cold items, and nothing held out in training."""

import numpy as np
import pytest
from news_helpers import data_of, history_of, log, ready_made, simulated, slate_of

from effrec_cli.data.news import contents_of_impressions, impressions_of, ranges
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import PartsConfig

WARM = {"cold_item_share": 0.0}


def slates_at(users, times, rows):
    """Data of the users' (item, time) rows with a slate [0, 1] at each of `times`, 0 clicked."""
    n = len(times)
    side = {
        "impressions_user": np.array(users, dtype=np.int32),
        "impressions_time": np.array(times, dtype=np.int64),
        "impressions_candidates": np.tile(np.array([0, 1], dtype=np.int32), (n, 1)),
        "impressions_clicks": np.tile(np.array([1, 0], dtype=np.uint8), (n, 1)),
    }
    return data_of(rows, side)


def test_history_is_strictly_before_the_impression():
    rows = [[(2, 10), (3, 20), (2, 20), (1, 30)], [(3, 5)]]
    times = [9, 10, 11, 20, 21, 30, 99, 5, 6]
    found = impressions_of(
        slates_at([0] * 7 + [1] * 2, times, rows), PartsConfig(test_share=0.2, valid_share=0.2, **WARM)
    )
    histories = [history_of(found, row) for row in range(9)]
    assert histories == [[], [], [2], [2], [2, 3, 2], [2, 3, 2], [2, 3, 2, 1], [], [3]]


def test_parts_are_by_time_over_all_users_and_never_part_a_second():
    times = [50, 10, 20, 30, 40, 60, 70, 80, 90, 90]
    found = impressions_of(
        slates_at([0, 1] * 5, times, [[(0, 1)], [(0, 1)]]),
        PartsConfig(test_share=0.2, valid_share=0.3, **WARM),
    )
    assert found.part.tolist() == [TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, VALID, VALID, VALID, TEST, TEST]
    with pytest.raises(DataError, match="test part"):  # a tenth would cut the second 90 in two
        impressions_of(slates_at([0, 1] * 5, times, [[(0, 1)], [(0, 1)]]), PartsConfig(test_share=0.1))


def test_training_ends_before_all_that_is_held_out():
    data, found = simulated(PartsConfig(**WARM))
    train, valid, test = (found.of_part(part) for part in ("train", "valid", "test"))
    assert found.times[train].max() < found.times[valid].min()
    assert found.times[valid].max() < found.times[test].min()
    assert 0.05 * len(found) < len(test) <= 0.1 * len(found)
    moments = data.sequences.times
    for rows in (train, valid, test):
        rows = rows[found.history_end[rows] > found.history_start[rows]]
        assert np.all(moments[found.history_end[rows] - 1] < found.times[rows])
    later = found.history_end[train] < data.sequences.offsets[1:][found.users[train]]
    owned = train[later]
    assert np.all(moments[found.history_end[owned]] >= found.times[owned])  # and nothing before is missing


def test_histories_are_of_the_impressions_user():
    data, found = simulated(PartsConfig(**WARM))
    assert np.all(found.history_start == data.sequences.offsets[found.users])
    assert np.all(found.history_end <= data.sequences.offsets[found.users + 1])


def test_train_counts_and_cold_items_by_counting():
    data, found = simulated()
    expected = np.zeros(data.num_items, dtype=np.int64)
    for row in found.of_part("train"):
        for item in history_of(found, row) + [item for item, _ in slate_of(found, row)]:
            expected[item] += 1
    assert np.array_equal(found.train_counts, expected)
    test = found.of_part("test")
    slow = [any(click and not expected[item] for item, click in slate_of(found, row)) for row in test]
    assert found.with_cold_click(test).tolist() == slow
    assert 0 < sum(slow) < len(test)


def test_cold_items_leave_training_and_nothing_else_changes():
    _, found = simulated()
    _, whole = simulated(PartsConfig(**WARM))
    clicked = np.unique(whole.candidates[whole.clicks == 1])
    cold = set(np.flatnonzero((found.train_counts == 0) & (whole.train_counts > 0)).tolist())
    assert len(cold) == int(0.05 * len(clicked))
    assert cold <= set(clicked.tolist())
    for row in range(len(whole)):
        taken = cold if whole.part[row] == TRAIN else set()
        assert history_of(found, row) == [item for item in history_of(whole, row) if item not in taken]
        assert slate_of(found, row) == [pair for pair in slate_of(whole, row) if pair[0] not in taken]
    _, other = simulated(PartsConfig(seed=1))
    assert set(np.flatnonzero(other.train_counts == 0).tolist()) != cold


def test_what_is_held_out_does_not_count_as_trained():
    slates = [[(0, 1), (1, 0)], [(2, 1), (0, 0)], [(3, 1), (0, 0)]]
    found = impressions_of(
        ready_made([1, 2, 3], [TRAIN, VALID, TEST], slates, [[1], [2, 2], [3, 2, 1]]), PartsConfig()
    )
    assert found.train_counts.tolist() == [1, 2, 0, 0]
    assert found.with_cold_click(np.array([0, 1, 2])).tolist() == [False, True, True]


def test_ready_made_impressions_keep_their_test_part_and_give_their_last_for_validation():
    slates, histories = [[(0, 1), (1, 0)]] * 6, [[], [1], [2], [3], [1, 2], []]
    data = ready_made([40, 10, 30, 20, 5, 6], [TRAIN] * 4 + [TEST] * 2, slates, histories)
    found = impressions_of(data, PartsConfig(valid_share=0.25))
    assert found.part.tolist() == [VALID, TRAIN, TRAIN, TRAIN, TEST, TEST]
    assert [history_of(found, row) for row in range(6)] == histories
    assert found.protocol == {
        "kind": "files",
        "history": "given",
        "valid": "last_of_training",
        "valid_share": 0.25,
    }
    assert contents_of_impressions(data).texts.tolist() == ["one", "two", "drei", "fünf"]


def test_mixed_needs_a_click_and_a_non_click():
    found = log([[]] * 3, [[(0, 1), (1, 0)], [(0, 1), (1, 1)], [(0, 0), (1, 0)]])
    assert found.mixed().tolist() == [True, False, False]
    assert found.clicked().tolist() == [1, 2, 0]


def test_data_without_impressions_say_which_tasks_they_offer():
    with pytest.raises(DataError, match="it offers next_item and knowledge_tracing"):
        impressions_of(data_of([[(0, 1)]], {"answers_user": np.zeros(1)}), PartsConfig())


def test_ranges_follow_each_other():
    assert ranges(np.array([5, 9, 2]), np.array([2, 0, 3])).tolist() == [5, 6, 2, 3, 4]
    assert ranges(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []
