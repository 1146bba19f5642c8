"""Splits that a hash draws: random inside each user, validation beside ready-made parts, held-out users."""

import numpy as np
import pytest
from data_helpers import as_cases, as_training, prepared, quiet
from data_helpers import settings as list_settings

from effrec_cli.data.load import load
from effrec_cli.data.prepare import recipe
from effrec_cli.data.sampling.sample import sample
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.methods.factors.judge import seen_users
from effrec_cli.schema.dataset_base import READ_BY, SplitConfig, split_problems
from effrec_cli.schema.dataset_synthetic import SyntheticConfig
from effrec_cli.schema.dataset_table import TableConfig
from effrec_cli.schema.sample import SampleConfig

RANDOM = {"split": "random", "valid_share": 0.1, "test_share": 0.2}
STRONG = {"split": "strong", "valid_user_share": 0.2, "test_user_share": 0.2}
KINDS = pytest.mark.parametrize("keywords", [RANDOM, STRONG], ids=["random", "strong"])


def some_rows(seed=0, users=40, items=30, count=600):
    """Rows (user, item, time, rating) of which some repeat an item of their user."""
    draw = np.random.default_rng(seed)
    columns = (draw.integers(1, n + 1, count).tolist() for n in (users, items, 500))
    return [(*row, 1.0) for row in zip(*columns, strict=True)]


def found(data):
    """Everything a split says, in raw ids: of training, validation and test, without an order."""
    cases = (as_cases(data, part) for part in (data.valid, data.test))
    return (
        {user: sorted(items) for user, items in as_training(data).items()},
        *({user: (sorted(h), sorted(t)) for user, (h, t) in each.items()} for each in cases),
    )


def items_of(rows):
    """{user: distinct items}."""
    every = {}
    for user, item, *_ in rows:
        every.setdefault(user, set()).add(item)
    return every


@KINDS
def test_neither_order_nor_chunks_nor_other_users_change_a_draw(keywords):
    rows = some_rows()
    expected = found(prepared(rows, **keywords))
    assert found(prepared(rows, **keywords)) == expected
    shuffled = [rows[at] for at in np.random.default_rng(1).permutation(len(rows))]
    assert found(prepared(shuffled, **keywords)) == expected
    assert found(prepared(rows, columns=(), **keywords)) == expected
    assert found(prepared(rows, seed=43, **keywords)) != expected
    if keywords is RANDOM:
        others = found(prepared([*rows, (0, 1, 0, 1.0), (0, 31, 1, 1.0)], **keywords))
        assert tuple({user: each[user] for user in each if user} for each in others) == expected


def test_random_parts_each_users_items_and_leaves_some_for_training():
    for seed in range(5):
        rows = some_rows(seed, users=30 + 30 * seed, count=500)
        data = prepared(rows, **RANDOM)
        train, valid, test = found(data)
        assert set(train) == set(items_of(rows))
        for user, items in items_of(rows).items():
            own = set(train[user])
            held = [set(each[user][1]) for each in (valid, test) if user in each]
            assert own.union(*held) == items
            assert len(own) + sum(map(len, held)) == len(items)
            for part, share in ((valid, 0.1), (test, 0.2)):
                size = len(set(part[user][1])) if user in part else 0
                assert abs(size - share * len(items)) < 1
            assert user not in valid or set(valid[user][0]) == own
            assert user not in test or set(test[user][0]) == own.union(*held[:-1])
        assert len(data.sequences.items) == len(rows)
        assert data.train_end.min() > 0


def test_shares_are_met_over_users_with_few_rows_each():
    rows = [(user, item, 0, 1.0) for user in range(2000) for item in range(3 + user % 3)]
    data = prepared(rows, **RANDOM)
    sizes = [int((part.target_end - part.target_start).sum()) / len(rows) for part in (data.valid, data.test)]
    assert sizes == pytest.approx([0.1, 0.2], abs=0.012)


def test_times_stay_in_order_inside_each_part():
    data = prepared(some_rows(), **RANDOM)
    times = data.sequences.times
    ranges = [(data.train_start, data.train_end), (data.test.target_start, data.test.target_end)]
    for start, end in (pair for bounds in ranges for pair in zip(*bounds, strict=True)):
        assert (np.diff(times[start:end]) >= 0).all()


def test_users_with_one_item_only_train():
    rows = [(1, 5, time, 1.0) for time in range(4)] + [(2, item, item, 1.0) for item in range(10)]
    train, valid, test = found(prepared(rows, split="random", valid_share=0.4, test_share=0.5))
    assert train[1] == [5, 5, 5, 5]
    assert (set(valid), set(test)) == ({2}, {2})
    with pytest.raises(DataError, match="no validation and no test cases"):
        prepared([(user, 1, 0, 1.0) for user in range(5)], **RANDOM)


def test_a_sample_of_the_splits_own_seed_is_no_other_draw():
    rows = [(user, item, 0, 1.0) for user in range(60) for item in range(50)]
    data = prepared(rows, columns=(), seed=42, **RANDOM)
    kept = sample(data, SampleConfig(rate=0.5, seed=42))
    assert kept.num_train / data.num_train == pytest.approx(0.5, abs=0.05)


def test_validation_is_drawn_beside_a_ready_made_test_part():
    train = [(user, item, 0, 1.0) for user in range(200) for item in range(user % 7 + 1)]
    test = [(user, 50 + item, 0, 1.0) for user in range(200) for item in range(2)]
    data = prepared({TRAIN: train, TEST: test}, columns=(), split="files_random", valid_share=0.1)
    trained, valid, tested = found(data)
    drawn = 0
    for user, items in items_of(train).items():
        targets = set(valid[user][1]) if user in valid else set()
        assert set(trained[user]) == items - targets
        assert trained[user]
        assert user not in valid or valid[user][0] == trained[user]
        assert tested[user] == (sorted(items), [50, 51])
        drawn += len(targets)
    assert drawn / len(train) == pytest.approx(0.1, abs=0.02)
    assert data.protocol == {"kind": "files_random", "valid_share": 0.1, "seed": 42}
    mixed = [(each, part) for part, rows in ((TRAIN, train), (TEST, test)) for each in rows]
    backwards = {part: [row for row, its in mixed[::-1] if its == part] for part in (TRAIN, TEST)}
    assert found(prepared(backwards, columns=(), split="files_random")) == (trained, valid, tested)


def test_what_files_random_cannot_take():
    rows = some_rows(count=60)
    with pytest.raises(ConfigError, match="without ready-made parts") as caught:
        prepared(rows, split="files_random")
    assert "files_random" in caught.value.where
    with pytest.raises(ConfigError, match="would draw another"):
        prepared({TRAIN: rows, VALID: rows, TEST: rows}, split="files_random")
    with pytest.raises(ConfigError, match="would ignore them"):
        prepared({TRAIN: rows, TEST: rows}, **RANDOM)


def test_strong_users_never_train_and_are_ranked_for_from_a_part_of_their_rows():
    for seed in range(5):
        rows = some_rows(seed, count=300 + 100 * seed)
        data = prepared(rows, fold_in=0.7, **STRONG)
        train, valid, test = found(data)
        every = items_of(rows)
        assert not set(train) & (set(valid) | set(test))
        assert not set(valid) & set(test)
        assert len(test) == len(valid) == 8
        warm = {item for items in train.values() for item in items}
        assert all(set(train[user]) == every[user] for user in train)
        for history, targets, items in ((*case, every[user]) for user, case in {**valid, **test}.items()):
            assert set(history) | set(targets) == items & warm
            assert not set(history) & set(targets)
            assert len(set(targets)) == round(0.3 * len(items & warm) + 1e-9)
        assert set(data.items.ids.tolist()) == warm


def test_strong_users_are_told_by_their_rows_and_are_unseen():
    data = prepared(some_rows(), **STRONG)
    held = np.concatenate([data.valid.users, data.test.users])
    assert (data.train_end[held] == data.train_start[held]).all()
    assert not seen_users(data)[held].any()
    assert int(seen_users(data).sum()) == data.num_users - len(held)
    assert data.protocol == {
        "kind": "strong",
        "valid_user_share": 0.2,
        "test_user_share": 0.2,
        "fold_in": 0.8,
        "seed": 42,
    }


def test_rows_of_items_that_only_strong_users_have_leave_and_so_may_these_users():
    rows = [(user, item, 0, 1.0) for user in range(40) for item in (1, 2, 3, 100 + user)]
    data = prepared(rows, **STRONG)
    _, valid, test = found(data)
    assert all(sorted({*h, *t}) == [1, 2, 3] for h, t in (*valid.values(), *test.values()))
    assert data.stats["split"]["rows_of_unseen_items_or_users"] == 16
    alone = [(user, item, 0, 1.0) for user in range(40) for item in (1, 1000 + user)]
    with pytest.raises(DataError, match="no validation and no test cases"):
        prepared(alone, **STRONG)


def test_strong_needs_somebody_to_train_on():
    with pytest.raises(DataError, match="leaves none of 2 to train on"):
        prepared(some_rows(users=2, count=20), **STRONG)


def problems(**keywords):
    return [
        (each.path.removeprefix("dataset.split."), each.what)
        for each in split_problems(SplitConfig(**keywords))
    ]


def test_settings_that_a_kind_does_not_read_are_refused():
    other = {"seed": 7, "fold_in": 0.5}
    other |= dict.fromkeys(("test_share", "valid_share", "valid_user_share", "test_user_share"), 0.2)
    for kind, read in READ_BY.items():
        refused = [path for path, _ in problems(kind=kind, **other)]
        assert sorted(refused) == sorted(set(other) - set(read)), kind
        assert not problems(kind=kind)
    ((path, what),) = problems(fold_in=0.5)
    assert (path, "it is for kind=strong, not leave_one_out" in what) == ("fold_in", True)


def test_shares_that_leave_nothing_to_train_on_are_refused():
    ((path, what),) = problems(kind="random", valid_share=0.5, test_share=0.6)
    assert (path, "leave nothing to train on" in what) == ("valid_share", True)
    assert problems(kind="strong", valid_user_share=0.5, test_user_share=0.5)
    assert not problems(kind="random", valid_share=0.3, test_share=0.6)


def test_what_decides_a_prepared_folder_is_what_the_kind_reads():
    def of(**keywords):
        return recipe(list_settings(**keywords), {})["split"]

    # As it was before other settings came, so that prepared folders stay known.
    assert of() == {"kind": "leave_one_out"}
    was = {"kind": "global_time", "test_share": 0.1, "valid_user_share": 0.05, "seed": 42}
    assert of(split="global_time", fold_in=0.5) == was
    assert of(**RANDOM) == {"kind": "random", "valid_share": 0.1, "test_share": 0.2, "seed": 42}


def test_the_simulators_ceiling_is_not_of_a_drawn_split(tmp_path):
    config = SyntheticConfig(name="s", family="synthetic", num_users=40, num_items=60, num_clusters=5)
    config.split = SplitConfig(kind="random", test_share=0.02)
    assert load(config, tmp_path, quiet).ceiling is None
    config.split = SplitConfig()
    assert load(config, tmp_path, quiet).ceiling is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"correct": "right"}, "Answers are parted by dataset.parts"),
        ({"user": None, "item": None, "label": "y", "dense": ["x"]}, "Rows that name no users are parted"),
    ],
)
def test_rows_that_have_parts_of_their_own_are_not_drawn(tmp_path, settings, says):
    (tmp_path / "log.csv").write_text("user,item,right,y,x\n1,1,1,1,1\n")
    config = TableConfig(name="t", family="table", path=str(tmp_path / "log.csv"), **settings)
    config.split = SplitConfig(kind="random")
    with pytest.raises(ConfigError, match=says):
        load(config, tmp_path / "root", quiet)


def test_a_table_with_a_test_file_draws_validation(tmp_path):
    for name, users in (("train", range(20)), ("test", range(0, 20, 2))):
        rows = [f"{user},{name}{item}\n" for user in users for item in range(10)]
        (tmp_path / f"{name}.csv").write_text("user,item\n" + "".join(rows))
    config = TableConfig(name="t", family="table", path=str(tmp_path / "train.csv"))
    config.split = SplitConfig(kind="files_random", valid_share=0.2)
    with pytest.raises(ConfigError, match="needs a test file"):
        load(config, tmp_path / "root", quiet)
    config.test_path = str(tmp_path / "test.csv")
    data = load(config, tmp_path / "root", quiet)
    assert (len(data.valid), len(data.test), data.num_train) == (20, 10, 160)
