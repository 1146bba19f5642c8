"""What is held out: leave-one-out and ready-made parts."""

import pytest
from data_helpers import as_cases, as_training, prepared
from hypothesis import given, settings
from hypothesis import strategies as st

from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.errors import ConfigError, DataError

ROW = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 5), st.just(1.0))


def by_user(rows):
    """{user: [(time, place, item)] in order}."""
    users = {}
    for place, (user, item, time, _) in enumerate(rows):
        users.setdefault(user, []).append((time, place, item))
    return {user: [item for _, _, item in sorted(seen)] for user, seen in users.items()}


@given(st.lists(ROW, min_size=3, max_size=50))
@settings(deadline=None)
def test_leave_one_out_holds_out_the_last_two_rows(rows):
    data = prepared(rows)
    train, valid, test = as_training(data), as_cases(data, data.valid), as_cases(data, data.test)
    for user, items in by_user(rows).items():
        if len(items) < 3:
            assert train[user] == items
            assert user not in valid
            assert user not in test
        else:
            assert train[user] == items[:-2]
            assert valid[user] == (items[:-2], items[-2:-1])
            assert test[user] == (items[:-1], items[-1:])


@given(st.lists(ROW, min_size=3, max_size=50))
@settings(deadline=None)
def test_no_target_is_trained_on_and_histories_precede_targets(rows):
    data = prepared(rows)
    offsets, times = data.sequences.offsets, data.sequences.times
    for part in (data.valid, data.test):
        for case, user in enumerate(part.users):
            assert offsets[user] <= part.history_start[case] < part.history_end[case]
            assert part.history_end[case] <= part.target_start[case] < part.target_end[case]
            assert part.target_end[case] <= offsets[user + 1]
            assert data.train_end[user] <= part.target_start[case]
            assert times[part.history_end[case] - 1] <= times[part.target_start[case]]
    assert data.num_train + len(data.valid) + len(data.test) == len(rows)
    assert data.train_counts().sum() == data.num_train


def given_rows(*pairs):
    return [(user, item, time, 1.0) for time, (user, item) in enumerate(pairs)]


def test_ready_made_parts_are_taken_as_they_are():
    parts = {
        TRAIN: given_rows((1, 10), (2, 20), (1, 11), (2, 21)),
        VALID: given_rows((1, 30), (1, 31)),
        TEST: given_rows((2, 40), (1, 41), (3, 42)),
    }
    data = prepared(parts, split="files")
    assert as_training(data) == {1: [10, 11], 2: [20, 21]}
    assert as_cases(data, data.valid) == {1: ([10, 11], [30, 31])}
    assert as_cases(data, data.test) == {1: ([10, 11, 30, 31], [41]), 2: ([20, 21], [40])}
    assert data.stats["split"]["test_users_without_history"] == 1
    assert data.protocol == {"kind": "files", "valid": "given"}


def test_without_a_validation_part_the_last_training_row_is_held_out():
    parts = {TRAIN: given_rows((1, 10), (1, 11), (1, 12), (2, 20)), TEST: given_rows((1, 13), (2, 21))}
    data = prepared(parts, split="files")
    assert as_training(data) == {1: [10, 11], 2: [20]}
    assert as_cases(data, data.valid) == {1: ([10, 11], [12])}
    assert as_cases(data, data.test) == {1: ([10, 11, 12], [13]), 2: ([20], [21])}
    assert data.protocol["valid"] == "last_training_row"


def test_parts_and_the_split_must_fit():
    rows = given_rows((1, 10), (1, 11), (1, 12))
    with pytest.raises(ConfigError, match="without ready-made parts"):
        prepared(rows, split="files")
    with pytest.raises(ConfigError, match="would ignore them"):
        prepared({TRAIN: rows, TEST: rows})
    with pytest.raises(DataError, match="test part has no rows"):
        prepared({TRAIN: rows, VALID: rows}, split="files")
