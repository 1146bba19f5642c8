"""Real ratings, where they are at hand: counts as their publishers state them."""

import os
from pathlib import Path

import numpy as np
import pytest
from data_helpers import quiet

from effrec_cli.compose import compose
from effrec_cli.data.load import load, open_source

DATA = Path(os.environ.get("EFFREC_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MOVIELENS, NPM = DATA / "movielens-latest-small", DATA / "npm-dependents-2016"


def dataset(*overrides):
    return compose(list(overrides)).dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def movielens(root):
    if not MOVIELENS.is_dir():
        pytest.skip(f"{MOVIELENS} is not here")
    config = dataset("dataset=ml-latest-small")
    open_source(config, root).import_from(MOVIELENS, quiet)
    return config


def test_movielens_latest_small(movielens, root):
    data = load(movielens, root, quiet)
    assert (data.stats["rows_read"], data.num_users, data.num_items) == (100_836, 610, 9_724)
    assert data.num_train == 100_836 - 2 * 610
    assert len(data.valid) == len(data.test) == 610
    lengths = np.diff(data.sequences.offsets)
    assert (lengths.min(), np.median(lengths), lengths.max()) == (20, 70.5, 2_698)
    assert data.items.titles[0] == "Toy Story (1995)"
    assert not (data.items.titles == "").any()
    assert data.side["item_genres"].shape == (9_724, 19)
    for user in (0, 300, 609):
        start, end = data.sequences.offsets[user : user + 2]
        assert (np.diff(data.sequences.times[start:end]) >= 0).all()


def test_movielens_split_by_time(movielens, root):
    config = dataset(
        "dataset=ml-latest-small", "dataset.split.kind=global_time", "dataset.filter.min_item_count=5"
    )
    data = load(config, root, quiet)
    assert data.num_items == np.count_nonzero(data.train_counts())
    last_trained = [
        data.sequences.times[end - 1] for end in data.train_end[data.train_end > data.sequences.offsets[:-1]]
    ]
    assert max(last_trained) <= data.protocol["moment"]
    assert (data.sequences.times[data.test.target_start] > data.protocol["moment"]).all()
    assert (data.sequences.times[data.valid.target_start] <= data.protocol["moment"]).all()


def test_npm_dependents_without_times(root):
    if not NPM.is_dir():
        pytest.skip(f"{NPM} is not here")
    config = dataset(
        "dataset=table",
        f"dataset.path={NPM / 'interactions.parquet'}",
        f"dataset.items_path={NPM / 'items.parquet'}",
        "dataset.user=user_id",
        "dataset.item=item_id",
        "dataset.title=name",
        "dataset.filter.min_user_count=1",
    )
    data = load(config, root, quiet)
    assert (data.stats["rows_read"], data.num_users, data.num_items) == (2_345_506, 290_563, 94_358)
    counts = np.bincount(data.sequences.items)
    assert (counts.min(), np.median(counts), counts.max()) == (1, 2, 89_055)
    assert np.count_nonzero(counts == 1) == 46_256
    assert np.count_nonzero(counts >= 5) == 20_545
    assert np.count_nonzero(np.diff(data.sequences.offsets) >= 5) == 159_548
    assert data.items.titles[counts.argmax()] == "mocha"
    assert data.sequences.times is None
