"""The global time split against a slow and plain reading of papers/cce section 3.3."""

import math

import numpy as np
import pytest
from data_helpers import as_cases, as_training, prepared
from hypothesis import given, settings
from hypothesis import strategies as st

from effrec_cli.data.split_time import draw_users, moment_of
from effrec_cli.errors import DataError

ROW = st.tuples(st.integers(1, 8), st.integers(1, 6), st.integers(0, 20), st.just(1.0))


def oracle(rows, test_share, valid_share, seed):
    """Returns training, validation and test as dicts of raw ids, computed user by user."""
    users = {}
    for place, (user, item, time, _) in enumerate(rows):
        users.setdefault(user, []).append((time, place, item))
    users = {user: [(time, item) for time, _, item in sorted(seen)] for user, seen in sorted(users.items())}
    times = sorted(row[2] for row in rows)
    moment = times[max(math.ceil(len(times) * (1 - test_share)) - 1, 0)]
    number = {user: row for row, user in enumerate(users)}
    active = np.array([number[u] for u, seen in users.items() if seen[0][0] <= moment])
    drawn = set(draw_users(active, valid_share, seed).tolist())
    before = {u: [item for time, item in seen if time <= moment] for u, seen in users.items()}
    train = {u: items for u, items in before.items() if items and number[u] not in drawn}
    warm = {item for items in train.values() for item in items}
    valid, test = {}, {}
    for user, seen in users.items():
        past = before[user]
        if number[user] in drawn and past[-1] in warm and set(past[:-1]) & warm:
            valid[user] = ([i for i in past[:-1] if i in warm], past[-1:])
        if user in train and seen[-1][0] > moment and seen[-1][1] in warm:
            test[user] = ([item for _, item in seen[:-1] if item in warm], [seen[-1][1]])
    return train, valid, test


@given(st.lists(ROW, min_size=5, max_size=80), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.05, 0.4]))
@settings(deadline=None, max_examples=200)
def test_the_split_is_what_the_paper_says(rows, test_share, valid_share):
    train, valid, test = oracle(rows, test_share, valid_share, seed=42)
    arguments = {"split": "global_time", "test_share": test_share, "valid_user_share": valid_share}
    if not valid or not test:
        with pytest.raises(DataError, match="leaves no"):
            prepared(rows, **arguments)
        return
    data = prepared(rows, **arguments)
    assert as_training(data) == train
    assert as_cases(data, data.valid) == valid
    assert as_cases(data, data.test) == test
    assert set(data.items.ids.tolist()) == {item for items in train.values() for item in items}
    assert (data.train_counts() > 0).all()


def test_the_moment_leaves_at_most_the_share_after_it_and_cuts_no_second():
    times = np.array([5, 1, 9, 9, 9, 2, 3, 4, 6, 7])
    assert moment_of(times, 0.1) == 9
    assert moment_of(times, 0.3) == 7
    assert moment_of(times, 0.25) == 9


def test_the_draw_is_a_fixed_function_of_the_seed():
    candidates = np.arange(1000)
    drawn = draw_users(candidates, 0.05, 42)
    assert len(drawn) == 50
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert drawn[:5].tolist() == draw_users(candidates, 0.05, 42)[:5].tolist()
    assert drawn.tolist() != draw_users(candidates, 0.05, 43).tolist()
    assert len(draw_users(np.arange(3), 0.05, 42)) == 1
    # Far from uniform would show: each tenth of the users gets about a tenth of the draw.
    half = draw_users(candidates, 0.5, 42)
    assert np.histogram(half, bins=10, range=(0, 1000))[0].min() > 30


def test_the_moment_and_settings_are_stamped():
    rows = [(user, item, 10 * item + user, 1.0) for user in range(1, 21) for item in range(1, 11)]
    data = prepared(rows, split="global_time")
    assert data.protocol == {
        "kind": "global_time",
        "test_share": 0.1,
        "valid_user_share": 0.05,
        "seed": 42,
        "moment": data.protocol["moment"],
    }
    assert np.mean([row[2] > data.protocol["moment"] for row in rows]) <= 0.1


def test_no_times_is_an_error_that_names_the_column_setting():
    with pytest.raises(DataError, match="needs times") as caught:
        prepared([(1, 1, 0, 1)] * 4, columns=(), split="global_time")
    assert "dataset.time=COLUMN" in caught.value.fix
