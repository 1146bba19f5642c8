"""Malformed data: every error says file, line, column, value and the option that decides."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import as_training, quiet

from effrec_cli.data.load import load
from effrec_cli.errors import DataError
from effrec_cli.schema.dataset_base import FilterConfig
from effrec_cli.schema.dataset_table import TableConfig

HEADER = "user,item,time,rating,name\n"
GOOD = ["1,10,100,4.0,a", "1,11,101,3.5,b", "2,10,102,1,c"]

# (row, column or None, what is wrong)
BAD = [
    ("1,12,103,5", None, "has 4 columns instead of 5"),
    ("1,12,103,5,x,y", None, "has 6 columns instead of 5"),
    ("x,12,103,5,d", "user", "is not a whole number"),
    ("1.5,12,103,5,d", "user", "is not a whole number"),
    (",12,103,5,d", "user", "is missing"),
    ("1,99999999999999999999,103,5,d", "item", "does not fit into 64 bits"),
    ("1,12,,5,d", "time", "is missing"),
    ("1,12,soon,5,d", "time", "is not a whole number"),
    ("1,12,103,,d", "rating", "is missing"),
    ("1,12,103,good,d", "rating", "is not a number"),
    ("1,12,103,nan,d", "rating", "is not a finite number"),
    ("1,12,103,inf,d", "rating", "is not a finite number"),
    ("1,12,103,-Infinity,d", "rating", "is not a finite number"),
    ("1,12,103,1e999,d", "rating", "is not a finite number"),
    ("1,12,103,1_0,d", "rating", "is not a number"),
]


def config_of(path, bad_rows="error", **keywords):
    options = {"time": "time", "rating": "rating", **keywords}
    filters = FilterConfig(min_user_count=1)
    return TableConfig(name="t", family="table", path=str(path), bad_rows=bad_rows, filter=filters, **options)


def written(tmp_path, *rows, header=HEADER):
    path = tmp_path / "log.csv"
    path.write_bytes((header + "".join(row + "\n" for row in rows)).encode("utf-8", "surrogateescape"))
    return path


def failing(config, tmp_path):
    with pytest.raises(DataError) as caught:
        load(config, tmp_path / "root", quiet)
    return caught.value


@pytest.mark.parametrize(("row", "column", "what"), BAD, ids=[row for row, _, _ in BAD])
def test_a_malformed_row_is_named_with_line_column_and_value(tmp_path, row, column, what):
    path = written(tmp_path, *GOOD[:2], "", row, GOOD[2])
    error = failing(config_of(path), tmp_path)
    assert what in error.what
    assert str(path) in error.where
    assert "line 5" in error.where
    assert "dataset.bad_rows=drop" in error.fix
    if column:
        value = row.split(",")[HEADER.strip().split(",").index(column)]
        assert f"column '{column}', value '{value}'" in error.where


@pytest.mark.parametrize(("row", "column", "what"), BAD, ids=[row for row, _, _ in BAD])
def test_a_malformed_row_can_be_dropped_and_is_counted(tmp_path, row, column, what):
    path = written(tmp_path, *GOOD[:2], "", row, GOOD[2], row)
    said = []
    data = load(config_of(path, "drop"), tmp_path / "root", said.append)
    assert as_training(data) == {1: [10, 11], 2: [10]}
    assert data.stats["dropped"]["bad_rows"] == 2
    assert data.stats["rows_read"] == 5
    assert any("5 rows read, 2 dropped (2 malformed), 3 kept" in line for line in said)


def test_lines_are_counted_right_after_values_with_line_ends(tmp_path):
    path = written(tmp_path, '1,10,100,4.0,"a\nb"', "", '1,11,101,oops,"c"')
    assert "line 5, column 'rating', value 'oops'" in failing(config_of(path), tmp_path).where


def test_the_line_is_right_beyond_the_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr("effrec_cli.data.delimited._BLOCK_BYTES", 64)
    rows = [f"1,{n},{n},1,x" for n in range(1, 200)]
    rows[150] = "1,1,1,oops,x"
    path = written(tmp_path, *rows)
    assert "line 152, column 'rating'" in failing(config_of(path), tmp_path).where
    data = load(config_of(path, "drop"), tmp_path / "root", quiet)
    assert data.sequences.items.tolist() == list(range(198))
    assert data.stats["rows_read"] == 199


def test_a_label_is_0_or_1(tmp_path):
    path = written(tmp_path, "1,2,1", "1,3,2", header="user,item,click\n")
    error = failing(config_of(path, label="click", time=None, rating=None), tmp_path)
    assert "neither 0 nor 1" in error.what
    assert "line 3, column 'click', value '2'" in error.where
    assert error.fix.startswith("write labels as 0 and 1")


def test_labels_may_be_words(tmp_path):
    path = written(tmp_path, "1,2,true", "1,3,False", "1,4,1", header="user,item,click\n")
    data = load(config_of(path, label="click", time=None, rating=None), tmp_path / "root", quiet)
    assert as_training(data) == {1: [2, 4]}


@pytest.mark.parametrize(
    ("value", "what"),
    [("", "is missing"), ("y" * 257, "more than 256"), ("a\0b", "NUL"), ("\udcff", "UTF-8")],
)
def test_text_ids_that_cannot_be_ids(tmp_path, value, what):
    path = written(tmp_path, "ann,tea", f"{value},milk", header="user,item\n")
    error = failing(config_of(path, time=None, rating=None), tmp_path)
    assert what in error.what
    assert "line 3, column 'user'" in error.where
    assert len(error.where) < 400


def test_a_timestamp_that_is_none(tmp_path):
    path = written(tmp_path, "1,2,2020-01-01 10:00:00,1,x", "1,3,2020-13-01 10:00:00,1,x")
    error = failing(config_of(path), tmp_path)
    assert "is not a timestamp" in error.what
    assert "value '2020-13-01 10:00:00'" in error.where


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    path = written(tmp_path, "1,2", header="userId,item\n")
    error = failing(config_of(path, user="userid", time=None, rating=None), tmp_path)
    assert "no column called 'userid'" in error.what
    assert error.nearest == "userId"
    assert "dataset.user=COLUMN" in error.fix


def test_a_column_that_is_there_twice_is_ambiguous(tmp_path):
    path = written(tmp_path, "1,2,3", header="user,item,item\n")
    error = failing(config_of(path, time=None, rating=None), tmp_path)
    assert "more than one column" in error.what
    assert error.nearest is None, "the nearest name is the one that was given"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is empty"),
        ("\n", "first line is blank"),
        ("user,item\n", "has no rows"),
        ("user,item\n\n\n", "has no rows"),
    ],
)
def test_empty_files(tmp_path, content, what):
    path = tmp_path / "log.csv"
    path.write_text(content)
    assert what in failing(config_of(path, time=None, rating=None), tmp_path).what


@pytest.mark.parametrize("count", [10, 30000])
def test_a_quote_that_never_closes_costs_its_own_line_alone(tmp_path, count):
    rows = [f"1,{n},{n},1,x" for n in range(count)]
    rows[1] = '1,1,1,1,"x'
    path = written(tmp_path, *rows)
    error = failing(config_of(path), tmp_path)
    assert "never closed" in error.what
    assert "line 3" in error.where
    data = load(config_of(path, "drop"), tmp_path / "root", quiet)
    assert data.sequences.times.tolist() == [0, *range(2, count)]


def test_a_stray_value_among_numbers_is_told_with_the_way_to_read_names(tmp_path):
    path = written(tmp_path, "1,10", "2,11", "ann,12", header="user,item\n")
    error = failing(config_of(path, time=None, rating=None), tmp_path)
    assert "column 'user', value 'ann'" in error.where
    assert "dataset.ids=text" in error.fix
    data = load(config_of(path, time=None, rating=None, ids="text"), tmp_path / "root", quiet)
    assert data.users.ids.tolist() == ["1", "2", "ann"]


@pytest.mark.parametrize("value", ["", "\udcff"])
def test_names_are_offered_only_for_what_can_be_one(tmp_path, value):
    path = written(tmp_path, "1,10", "2,11", f"{value},12", header="user,item\n")
    error = failing(config_of(path, time=None, rating=None), tmp_path)
    assert error.fix == "mend the row, or leave such rows out by dataset.bad_rows=drop"


def test_only_malformed_rows_are_told_as_such(tmp_path):
    path = written(tmp_path, "1,10,1,x,c", "2,11,1,y,c")
    error = failing(config_of(path, "drop"), tmp_path)
    assert "2 rows read, 2 dropped (2 malformed), 0 kept" in error.what
    assert "dataset.bad_rows=error" in error.fix


def parquet(tmp_path, **columns):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_a_bad_value_in_parquet_is_named_by_its_row(tmp_path):
    path = parquet(tmp_path, user=[1, 2, 3], item=[1, 2, 3], rating=[1.0, float("nan"), 2.0])
    error = failing(config_of(path, time=None), tmp_path)
    assert "row 2, column 'rating', value 'nan'" in error.where
    data = load(config_of(path, "drop", time=None), tmp_path / "root", quiet)
    assert as_training(data) == {1: [1], 3: [3]}
    assert data.stats["dropped"]["bad_rows"] == 1


def test_a_null_in_parquet_is_missing(tmp_path):
    path = parquet(tmp_path, user=pa.array([1, None, 3], pa.int64()), item=["a", "b", None])
    error = failing(config_of(path, time=None, rating=None), tmp_path)
    assert "column 'user' is missing" in error.what
    data = load(config_of(path, "drop", time=None, rating=None), tmp_path / "root", quiet)
    assert as_training(data) == {1: ["a"]}


def test_a_file_that_may_not_be_read_is_told_by_its_name(tmp_path, monkeypatch):
    path = written(tmp_path, "1,2", header="user,item\n")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("effrec_cli.data.digests.hash_file", refuse)
    error = failing(config_of(path, time=None, rating=None), tmp_path)
    assert error.where == f"{path}: Permission denied"


def test_a_cut_parquet_file(tmp_path):
    path = parquet(tmp_path, user=[1], item=[2])
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a whole parquet file" in failing(config_of(path, time=None, rating=None), tmp_path).what


@pytest.mark.parametrize("name", ["log.parquet", "log.pq"])
def test_another_file_under_a_parquet_name(tmp_path, name):
    path = tmp_path / name
    path.write_text("user,item\n1,2\n")
    assert "not a whole parquet file" in failing(config_of(path, time=None, rating=None), tmp_path).what


@pytest.mark.parametrize("values", [[[1], [2, 3]], [{"id": 1}, {"id": 2}]])
def test_nested_columns_are_no_ids(tmp_path, values):
    path = parquet(tmp_path, user=[1, 2], item=values)
    error = failing(config_of(path, time=None, rating=None), tmp_path)
    assert error.what.startswith("Column 'item' holds a ")
    assert "dataset.item=COLUMN" in error.fix


def test_parquet_without_rows_or_columns(tmp_path):
    path = parquet(tmp_path, user=pa.array([], pa.int64()), item=pa.array([], pa.int64()))
    assert "has no rows" in failing(config_of(path, time=None, rating=None), tmp_path).what
    error = failing(config_of(path, item="itm", time=None, rating=None), tmp_path)
    assert error.nearest == "item"
