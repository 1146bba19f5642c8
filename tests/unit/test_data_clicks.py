"""Labelled rows of a table: dense and categorical columns, parts, and what is wrong with a file."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click_helpers import PARTS, loaded, rows_of, written
from data_helpers import quiet

from effrec_cli import compose
from effrec_cli.data.clicks import _given_a_click, clicks_of
from effrec_cli.data.describe import describe
from effrec_cli.data.feature_columns import FeatureColumns
from effrec_cli.data.feature_kinds import MISSING, Category, Dense, value_hashes
from effrec_cli.data.kinds import MalformedError
from effrec_cli.data.load import load
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.report.description import tables
from effrec_cli.schema.dataset_base import SplitConfig

HEADER = ("click", "x", "y", "kind", "brand")
ROWS = [(n % 2, n / 2, "" if n % 3 else -n, f"k{n % 4}", "" if n == 7 else n % 2) for n in range(10)]
FEATURES = {"dense": ["x", "y"], "categorical": ["kind", "brand"]}


def texts(data):
    """Returns the category columns as the place of each row's value among those that are written."""
    values = np.split(data.side["labelled_values"], np.cumsum(data.side["labelled_value_counts"])[:-1])
    names = {
        int(value_hashes(np.array([name], object))[0]): name for name in ("k0", "k1", "k2", "k3", "0", "1")
    }
    codes = data.side["labelled_categories"]
    return [
        [names[int(values[at][code - 1])] if code else "" for code in codes[:, at]]
        for at in range(codes.shape[1])
    ]


def parquet(tmp_path, rows):
    columns = dict(zip(HEADER, map(list, zip(*rows, strict=True)), strict=True))
    columns["y"] = [None if v == "" else float(v) for v in columns["y"]]
    columns["brand"] = [None if v == "" else str(v) for v in columns["brand"]]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv without header", "parquet"])
def test_columns_are_read_as_written(tmp_path, kind):
    settings = dict(FEATURES)
    if kind == "parquet":
        path = parquet(tmp_path, ROWS)
    elif kind == "csv":
        path = written(tmp_path, HEADER, ROWS)
    else:
        path = written(tmp_path, None, ROWS, "train.txt", "\t")
        settings |= {"columns": list(HEADER), "separator": "tab"}
    data = loaded(tmp_path, path, **settings)
    assert data.side["labels"].tolist() == [0, 1] * 5
    dense = data.side["labelled_dense"]
    assert dense[:, 0].tolist() == [n / 2 for n in range(10)]
    np.testing.assert_array_equal(dense[:, 1], [np.nan if n % 3 else -n for n in range(10)])
    assert texts(data) == [
        [f"k{n % 4}" for n in range(10)],
        ["" if n == 7 else str(n % 2) for n in range(10)],
    ]
    assert (data.num_users, data.num_items, data.num_interactions) == (0, 0, 0)
    assert data.stats["rows_kept"] == 10
    assert data.side["labelled_value_counts"].tolist() == [4, 2]


def test_numbers_of_values_do_not_depend_on_the_order_of_the_file(tmp_path):
    first = loaded(tmp_path / "a", written(tmp_path, HEADER, ROWS), **FEATURES)
    order = [7, 3, 9, 0, 1, 8, 2, 6, 5, 4]
    second = loaded(tmp_path / "b", written(tmp_path, HEADER, [ROWS[n] for n in order], "b.csv"), **FEATURES)
    np.testing.assert_array_equal(
        second.side["labelled_categories"], first.side["labelled_categories"][order]
    )
    np.testing.assert_array_equal(first.side["labelled_values"], second.side["labelled_values"])


def test_values_of_several_blocks_are_numbered_by_their_hashes(tmp_path, monkeypatch):
    monkeypatch.setattr("effrec_cli.data.feature_columns._PENDING", 3)
    monkeypatch.setattr("effrec_cli.data.feature_columns.BLOCK_ROWS", 4)
    blocks = [np.array(each, np.uint64) for each in ([9, 2, 0], [5, 9], [], [1, 7, 2, 0, 3], [8])]
    columns = FeatureColumns([], ["kind"], tmp_path)
    for block in blocks:
        columns.add({"categorical kind": block})
    found = columns.finish()
    assert found["labelled_values"].tolist() == [1, 2, 3, 5, 7, 8, 9]
    places = {value: at + 1 for at, value in enumerate([1, 2, 3, 5, 7, 8, 9])} | {0: 0}
    written = [places[int(value)] for value in np.concatenate(blocks)]
    assert found["labelled_categories"].ravel().tolist() == written


def test_malformed_numbers_are_counted_or_named(tmp_path):
    path = written(tmp_path, HEADER, [*ROWS, (1, "many", 2, "k0", 1)])
    with pytest.raises(DataError, match="column 'x' is not a number") as caught:
        loaded(tmp_path, path, **FEATURES)
    assert "line 12" in str(caught.value.where)
    data = loaded(tmp_path, path, bad_rows="drop", **FEATURES)
    assert data.stats["dropped"]["bad_rows"] == 1
    assert len(data.side["labels"]) == data.stats["rows_kept"] == 10


@pytest.mark.parametrize(("key", "wrong"), [("dense", ["x", "clik"]), ("categorical", ["kynd"])])
def test_a_column_that_is_not_there_is_told_with_the_nearest_name(tmp_path, key, wrong):
    path = written(tmp_path, HEADER, ROWS)
    with pytest.raises(DataError, match=f"no column called '{wrong[-1]}'") as caught:
        loaded(tmp_path, path, **(FEATURES | {key: wrong}))
    assert f"dataset.{key}=COLUMN" in str(caught.value.fix)
    assert caught.value.nearest == {"clik": "click", "kynd": "kind"}[wrong[-1]]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"label": None}, "need labels"),
        ({"user": "kind"}, "a user and an item"),
        ({"dense": [], "categorical": []}, "need columns"),
        ({"categorical": ["kind", "x"]}, "'x' is named twice"),
        ({"title": "kind"}, "no title"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, what):
    path = written(tmp_path, HEADER, ROWS)
    with pytest.raises(ConfigError, match=what):
        loaded(tmp_path, path, **(FEATURES | settings))


def test_users_and_items_are_read_beside_features(tmp_path):
    lines = [(n % 3, n % 2, n % 2, f"k{n}", n) for n in range(6)]
    path = written(tmp_path, ("user", "item", "click", "kind", "x"), lines)
    data = loaded(tmp_path, path, user="user", item="item", categorical=["kind"], dense=["x"])
    assert data.side["labelled_users"].tolist() == [0, 1, 2, 0, 1, 2]
    assert data.num_interactions == 3
    assert data.side["labelled_dense"].ravel().tolist() == list(range(6))


@pytest.mark.parametrize("times", [False, True])
def test_parts_do_not_overlap_and_are_the_last(tmp_path, times):
    rng = np.random.default_rng(0)
    moments = rng.permutation(50) if times else np.arange(50)
    lines = [(int(moment), n % 2, n) for n, moment in enumerate(moments)]
    path = written(tmp_path, ("t", "click", "x"), lines)
    found = rows_of(loaded(tmp_path, path, dense=["x"], time="t" if times else None))
    parts = [found.of_part(part) for part in ("train", "valid", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(50))
    assert [len(part) for part in parts] == [30, 10, 10]
    order = [moments[part] for part in parts]
    assert order[0].max() < order[1].min()
    assert order[1].max() < order[2].min()


def test_rows_of_one_moment_are_never_parted(tmp_path):
    lines = [(n // 7, n % 2, n) for n in range(70)]
    found = rows_of(loaded(tmp_path, written(tmp_path, ("t", "click", "x"), lines), dense=["x"], time="t"))
    for moment in range(10):
        assert len(set(found.part[found.times == moment].tolist())) == 1


def test_ready_made_parts_are_taken(tmp_path):
    train = written(tmp_path, HEADER, ROWS)
    test = written(tmp_path, HEADER, ROWS[:4], "test.csv")
    split = SplitConfig(kind="files")
    found = rows_of(loaded(tmp_path, train, test_path=str(test), split=split, **FEATURES))
    assert found.part.tolist() == [0] * 8 + [1] * 2 + [2] * 4
    assert found.protocol["parts"]["test"] == "ready-made"


def test_a_part_with_one_label_alone_is_refused(tmp_path):
    path = written(tmp_path, ("click", "x"), [(n % 2 * (n < 40), n) for n in range(50)])
    with pytest.raises(DataError, match="0 of 10 rows of the test part"):
        rows_of(loaded(tmp_path, path, dense=["x"]))


def test_data_without_labels_say_what_has_some(tmp_path):
    path = written(tmp_path, ("user", "item"), [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (2, 5)])
    data = loaded(tmp_path, path, user="user", item="item", label=None)
    with pytest.raises(DataError, match="no labels") as caught:
        clicks_of(data, PARTS)
    assert "dataset.label=COLUMN" in str(caught.value.fix)


def test_such_data_are_described(tmp_path):
    found = describe(loaded(tmp_path, written(tmp_path, HEADER, ROWS), **FEATURES))
    assert found["side"]["labelled_dense"]["shape"] == [10, 2]
    assert tables(found)


def test_the_chance_of_a_click_is_that_of_slates_that_got_one():
    chance = np.array([[0.5, 0.2], [0.9, 0.0]])
    found = _given_a_click(chance)
    np.testing.assert_allclose(found, [0.5 / 0.6, 0.2 / 0.6, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("text", ["", "NaN", "null", " 2.5", "-1e3"])
def test_numbers_fast_and_careful_agree(text):
    given = None if text.strip() in ("", "NaN", "null") else float(text)
    fast, flagged = Dense().fast(pa.array([given], pa.float64()))
    assert not flagged.any()
    np.testing.assert_array_equal(fast[0], np.float32(Dense().careful(text)))


@pytest.mark.parametrize("text", ["inf", "1e39", "1_0", "x"])
def test_what_is_no_finite_number_is_malformed(text):
    with pytest.raises(MalformedError):
        Dense().careful(text)


def test_values_are_hashed_alike_as_numbers_and_texts():
    fast, _ = Category().fast(pa.array(["12", "a", None, "0"]))
    assert fast.tolist() == [Category().careful(text) for text in ("12", "a", "", "0")]
    assert fast[2] == MISSING
    assert len(set(fast.tolist())) == 4


def test_criteo_and_epinions_are_read_as_laid_out(tmp_path):
    numbers = [[n, *([n] * 12), ""] for n in range(4)]
    lines = [[n % 2, *row[:12], row[-1], *([f"{n:08x}"] * 26)] for n, row in enumerate(numbers)]
    path = written(tmp_path, None, lines, "train.txt", "\t")
    config = compose.compose(["method=cadc", "model=dlrm", "dataset=criteo", f"dataset.path={path}"]).dataset
    data = load(config, tmp_path / "root", quiet)
    assert data.side["labelled_dense"].shape == (4, 13)
    assert np.isnan(data.side["labelled_dense"][:, 12]).all()
    assert data.side["labelled_value_counts"].tolist() == [4] * 26
    rated = [(user, item, 1 + item % 5) for user in (10, 20) for item in (1, 2, 3)]
    path = written(tmp_path, None, rated, "ratings_data.txt", " ")
    config = compose.compose(["method=ials", "dataset=epinions", f"dataset.path={path}"]).dataset
    data = load(config, tmp_path / "root", quiet)
    assert data.users.ids.tolist() == [10, 20]
    assert data.sequences.ratings.tolist() == [2, 3, 4] * 2


_READ = """
import sys
from pathlib import Path
from effrec_cli.data import delimited, feature_columns
from effrec_cli.data.table import TableSource
from effrec_cli.schema.dataset_table import TableConfig
import pyarrow.csv
# Blocks of a thirty-second of their size, so that a short file is many of them.
delimited.line_blocks.__defaults__ = (delimited._BLOCK_BYTES >> 5,)
feature_columns.BLOCK_ROWS, feature_columns._PENDING = 1 << 13, 1 << 15
root = Path(sys.argv[1])
def peak(name):
    source = TableSource(TableConfig(name="t", path=str(root / name), user=None, item=None, label="click",
        dense=[f"x{n}" for n in range(8)], categorical=[f"c{n}" for n in range(8)]), root)
    for chunk in source.chunks():
        pass
    held = source._labelled.finish()
    assert held["labelled_categories"].shape[1] == 8
    status = Path("/proc/self/status").read_text()  # a child's ru_maxrss begins at its parent's
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
small, large = peak("small.csv"), peak("large.csv")
print(small, large)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path):
    header = ",".join(["click", *(f"x{n}" for n in range(8)), *(f"c{n}" for n in range(8))])
    line = "1,0.5,1,2,3,4,5,6,7,a,b,c,d,e,f,g,h\n0,0.5,1,2,3,4,5,6,7,a,b,c,d,e,f,g,z\n"
    for name, rows in (("small.csv", 100_000), ("large.csv", 800_000)):
        (tmp_path / name).write_text(f"{header}\n{line * (rows // 2)}")
    ran = subprocess.run(
        [sys.executable, "-c", _READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    small, large = map(int, ran.stdout.split())
    columns = 700_000 * 8 * (4 + 8 + 4)
    assert large - small < columns / 4, (small, large)
