"""The order of rows, and which of them stay."""

import numpy as np
import pytest
from data_helpers import as_cases, as_training, prepared, quiet, raw_items
from hypothesis import given
from hypothesis import strategies as st

from effrec_cli.data.batches import Share
from effrec_cli.data.filters import drop_duplicates, drop_older, drop_rare
from effrec_cli.data.in_batch import InBatches
from effrec_cli.data.load import load
from effrec_cli.data.order import sort_rows
from effrec_cli.data.prepare import recipe
from effrec_cli.data.rows import Rows
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import DatasetConfig, FilterConfig
from effrec_cli.schema.dataset_table import TableConfig

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=40)


def rows_of(pairs, times=None, parts=None):
    users, items = zip(*pairs, strict=True)
    return Rows(
        np.array(users, np.int32),
        np.array(items, np.int32),
        None if times is None else np.array(times, np.int64),
        parts=None if parts is None else np.array(parts, np.int8),
    )


def pairs_of(rows):
    return list(zip(rows.users.tolist(), rows.items.tolist(), strict=True))


@given(st.data(), st.sampled_from([1, 2**40, 2**61]))
def test_order_is_user_part_time_then_place_in_the_file(data, scale):
    count = data.draw(st.integers(1, 30))
    users = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    times = [t * scale for t in data.draw(st.lists(st.integers(-2, 1), min_size=count, max_size=count))]
    parts = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    rows = rows_of([(user, place) for place, user in enumerate(users)], times, parts)
    sort_rows(rows)
    expected = sorted(range(count), key=lambda place: (users[place], parts[place], times[place], place))
    assert rows.items.tolist() == expected


def test_rows_without_times_keep_the_order_of_the_file():
    rows = [(2, 30, 0, 1), (1, 10, 0, 1), (2, 20, 0, 1), (1, 40, 0, 1), (2, 10, 0, 1)]
    data = prepared(rows, columns=())
    assert raw_items(data, 0, 5) == [10, 40, 30, 20, 10]
    assert data.sequences.times is None
    assert data.sequences.ratings is None


@given(PAIRS, st.sampled_from(["first", "last", "keep"]))
def test_duplicates_keep_one_of_each_pair(pairs, rule):
    rows = rows_of(sorted(pairs, key=lambda pair: pair[0]))
    before = pairs_of(rows)
    rows.ratings = np.arange(len(before), dtype=np.float32)
    dropped = drop_duplicates(rows, rule, 6)
    if rule == "keep":
        expected = list(enumerate(before))
    elif rule == "first":
        expected = [(at, pair) for at, pair in enumerate(before) if pair not in before[:at]]
    else:
        expected = [(at, pair) for at, pair in enumerate(before) if pair not in before[at + 1 :]]
    assert list(zip(rows.ratings.tolist(), pairs_of(rows), strict=True)) == expected
    assert dropped == len(before) - len(expected)


@given(PAIRS, st.sampled_from([1, 2, 3, 40, None]))
def test_the_last_rows_of_each_user_stay(pairs, most):
    rows = rows_of(sorted(pairs, key=lambda pair: pair[0]))
    before = pairs_of(rows)
    dropped = drop_older(rows, FilterConfig(max_user_count=most, min_user_count=1), 5)
    users = [[pair for pair in before if pair[0] == user] for user in range(5)]
    expected = [pair for own in users for pair in (own if most is None else own[-most:])]
    assert pairs_of(rows) == expected
    assert dropped == len(before) - len(expected)


def people(counts):
    """Rows of users 1, 2 ... with so many items each, all different, shuffled in the file."""
    rows = [(user, 100 * user + at, at, 5) for user, n in enumerate(counts, 1) for at in range(1, n + 1)]
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]


def test_of_long_histories_the_last_are_split_and_older_items_are_none_of_the_catalogue(tmp_path):
    """A user of 15 items keeps 3 to 15 (papers/iisan section 5.3): trained on 3 to 13, then 14, then 15."""
    lines = [f"{user},{item},{time}" for user, item, time, _ in people([15, 5])]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *lines]))
    config = TableConfig(name="log", family="table", path=str(tmp_path / "log.csv"), time="time")
    config.filter.max_user_count = 13
    data = load(config, tmp_path / "root", quiet)
    long, short = [100 + at for at in range(3, 16)], [200 + at for at in range(1, 6)]
    assert as_training(data) == {1: long[:11], 2: short[:3]}
    assert as_cases(data, data.valid) == {1: (long[:11], long[11:12]), 2: (short[:3], short[3:4])}
    assert as_cases(data, data.test) == {1: (long[:12], long[12:]), 2: (short[:4], short[4:])}
    assert data.items.ids.tolist() == [*long, *short]
    assert data.stats["dropped"]["older_than_max_user_count"] == 2
    batch = InBatches(data, 9, 10, "last", 0).batch(0, 0, Share(), 0)
    met = data.items.ids[batch.tensors["candidates"].numpy()].tolist()
    assert met == [*long[:11], *short[:3]]
    assert sorted(batch.tensors["lengths"].tolist()) == [2, 10]


def test_items_are_counted_after_older_rows_are_gone():
    rows = [(1, 7, 0, 5), (1, 1, 1, 5), (1, 2, 2, 5), (2, 7, 0, 5), (2, 1, 1, 5), (2, 2, 2, 5)]
    kept = prepared(rows, max_user_count=2, min_item_count=2)
    assert kept.items.ids.tolist() == [1, 2]
    assert prepared(rows, min_item_count=2).items.ids.tolist() == [1, 2, 7]


def test_more_rows_asked_for_than_may_stay_is_an_error():
    with pytest.raises(ConfigError, match="nobody is left") as caught:
        prepared(people([5]), max_user_count=2, min_user_count=3)
    assert caught.value.where == "dataset.filter.max_user_count=2"


def test_what_was_prepared_before_it_was_there_keeps_its_key():
    config = DatasetConfig(name="d", family="table")
    old = {"min_rating", "min_item_count", "min_user_count", "k_core", "duplicates"}
    assert recipe(config, {})["filter"].keys() == old
    config.filter.max_user_count = 13
    assert recipe(config, {})["filter"].keys() == {*old, "max_user_count"}


@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
def test_once_drops_rare_items_and_then_short_users(pairs, least_item, least_user):
    rows = rows_of(pairs)
    settings = FilterConfig(min_item_count=least_item, min_user_count=least_user, k_core="once")
    by_item, by_user = drop_rare(rows, settings, 5, 6)
    frequent = [p for p in pairs if sum(q[1] == p[1] for q in pairs) >= least_item]
    expected = [p for p in frequent if sum(q[0] == p[0] for q in frequent) >= least_user]
    assert pairs_of(rows) == expected
    assert (by_item, by_user) == (len(pairs) - len(frequent), len(frequent) - len(expected))


@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
def test_iterative_leaves_the_largest_core(pairs, least_item, least_user):
    rows = rows_of(pairs)
    drop_rare(
        rows, FilterConfig(min_item_count=least_item, min_user_count=least_user, k_core="iterative"), 5, 6
    )
    core = pairs
    while True:
        smaller = [p for p in core if sum(q[1] == p[1] for q in core) >= least_item]
        smaller = [p for p in smaller if sum(q[0] == p[0] for q in smaller) >= least_user]
        if smaller == core:
            break
        core = smaller
    assert pairs_of(rows) == core


def test_once_may_leave_an_item_below_its_count_and_iterative_does_not():
    rows = [(1, 1, 0, 5), (1, 2, 1, 5), (2, 1, 2, 5), (3, 2, 3, 5), (3, 3, 4, 5), (4, 3, 5, 5), (4, 1, 6, 5)]
    once = prepared(rows, min_item_count=2, min_user_count=2)
    assert once.train_counts().tolist() == [2, 2, 2]
    core = prepared(rows, min_item_count=3, min_user_count=1, k_core="iterative")
    assert core.items.ids.tolist() == [1]


def test_low_ratings_go_before_anything_is_counted():
    rows = [(1, 1, 0, 3.5), (1, 2, 1, 4.0), (1, 3, 2, 5.0), (2, 1, 0, 1.0), (2, 2, 1, 4.0)]
    data = prepared(rows, min_rating=4.0, min_user_count=2)
    assert as_training(data) == {1: [2, 3]}
    assert data.stats["dropped"]["rated_below_min_rating"] == 2
    assert data.stats["dropped"]["users_below_min_user_count"] == 1
    assert data.stats["rows_read"] == 5
    assert data.stats["rows_kept"] == 2


def test_a_rating_threshold_without_ratings_is_an_error():
    with pytest.raises(ConfigError, match="no ratings"):
        prepared([(1, 1, 0, 0)], columns=("time",), min_rating=3.0)


def test_nothing_left_is_an_error_that_names_the_filter():
    rows = [(1, 1, 0, 1.0), (2, 1, 1, 5.0), (3, 2, 2, 5.0)]
    with pytest.raises(DataError) as caught:
        prepared(rows, min_user_count=2, min_rating=2.0)
    assert caught.value.what == (
        "No interaction is left: 3 rows read, "
        "3 dropped (1 rated below min_rating, 2 of users below min_user_count), 0 kept."
    )
    assert caught.value.fix == "a lower dataset.filter.min_user_count"
