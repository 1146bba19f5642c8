"""Answers from one's own csv and parquet: how right is written, where texts are, what becomes of parts."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import quiet

from effrec_cli.data.answers import answers_of
from effrec_cli.data.load import load
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.table_settings import reading
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import FilterConfig, PartsConfig, SplitConfig
from effrec_cli.schema.dataset_table import TableConfig

ROWS = "user,item,time,right\n2,b,9,1\n1,a,5,1\n1,b,3,0\n2,a,7,0\n1,c,4,1\n"


def written(tmp_path, text, name="log.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def loaded(tmp_path, path, *, split="leave_one_out", **keywords):
    given = {"user": "user", "item": "item", "time": "time", "correct": "right", **keywords}
    filters = given.pop("filter", FilterConfig(min_user_count=1))
    config = TableConfig(
        name="t", family="table", path=path, filter=filters, split=SplitConfig(kind=split), **given
    )
    return load(config, tmp_path / "root", quiet)


def as_rows(data):
    """The answers as (raw user, raw item, right, time)."""
    side = data.side
    users, items = data.users.ids[side["answers_user"]], data.items.ids[side["answers_item"]]
    columns = (users, items, side["answers_correct"], side["answers_time"])
    return list(zip(*(column.tolist() for column in columns), strict=True))


EXPECTED = [(1, "b", 0, 3), (1, "c", 1, 4), (1, "a", 1, 5), (2, "a", 0, 7), (2, "b", 1, 9)]


def test_every_row_is_an_answer_by_user_and_time(tmp_path):
    data = loaded(tmp_path, written(tmp_path, ROWS))
    assert as_rows(data) == EXPECTED
    assert data.side["answers_correct"].dtype == np.uint8
    assert "answers_part" not in data.side


@pytest.mark.parametrize(
    ("wrong", "right", "above"), [("-1", "1", 0), ("0.2", "0.75", 0.5), ("3", "5", 3), ("0", "1", None)]
)
def test_what_counts_as_right_is_above_a_number(tmp_path, wrong, right, above):
    lines = [
        line
        if line.startswith("user")
        else line[: line.rindex(",") + 1] + (right if line[-1] == "1" else wrong)
        for line in ROWS.splitlines()
    ]
    data = loaded(tmp_path, written(tmp_path, "\n".join(lines) + "\n"), label_above=above)
    assert as_rows(data) == EXPECTED


def test_the_careful_reader_draws_the_line_at_the_same_number(tmp_path):
    """A malformed row makes it read the whole block."""
    path = written(tmp_path, "user,item,time,right\n1,a,1,3\n1,b,x,5\n1,c,3,4\n")
    data = loaded(tmp_path, path, label_above=3, bad_rows="drop")
    assert as_rows(data) == [(1, "a", 0, 1), (1, "c", 1, 3)]


def test_labels_may_be_above_a_number_too(tmp_path):
    text = "user,item,click\n1,a,-1\n1,b,1\n1,c,1\n"
    data = loaded(tmp_path, written(tmp_path, text), correct=None, time=None, label="click", label_above=0)
    assert data.side["labels"].tolist() == [0, 1, 1]
    assert data.stats["dropped"]["labelled_0"] == 1


def test_parquet_with_texts_in_a_table_of_their_own(tmp_path):
    columns = {"user": ["x", "x", "y"], "item": ["a", "b", "a"], "time": [1, 2, 3], "right": [1, -1, 1]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    pq.write_table(
        pa.table({"id": ["b", "a", "z"], "body": ["second", "first", "none"]}), tmp_path / "t.parquet"
    )
    data = loaded(
        tmp_path,
        str(tmp_path / "log.parquet"),
        items_path=str(tmp_path / "t.parquet"),
        items_item="id",
        title="body",
        label_above=0,
        title_chars=4,
    )
    assert data.items.titles.tolist() == ["firs", "seco"]
    assert as_rows(data) == [("x", "a", 1, 1), ("x", "b", 0, 2), ("y", "a", 1, 3)]


def test_a_missing_column_of_the_table_of_items_is_told_by_its_own_setting(tmp_path):
    items = written(tmp_path, "id,body\na,one\n", "items.csv")
    with pytest.raises(DataError, match="no column called 'ids'") as caught:
        loaded(tmp_path, written(tmp_path, ROWS), items_path=items, items_item="ids", title="body")
    assert "items.csv" in caught.value.where
    assert caught.value.nearest == "id"
    assert caught.value.fix == "name it by dataset.items_item=COLUMN"


def test_texts_in_the_same_table(tmp_path):
    path = written(tmp_path, "user,item,right,text\n1,a,1,one\n1,b,0,two\n")
    data = loaded(tmp_path, path, time=None, title="text")
    assert data.items.titles.tolist() == ["one", "two"]


def test_answers_go_with_the_rows_that_filters_keep(tmp_path):
    data = loaded(tmp_path, written(tmp_path, ROWS), filter=FilterConfig(min_user_count=3))
    assert as_rows(data) == EXPECTED[:3]
    whole = loaded(tmp_path, written(tmp_path, ROWS), filter=FilterConfig(min_user_count=1, min_item_count=2))
    assert as_rows(whole) == [row for row in EXPECTED if row[1] != "c"]


HEADER = "user,item,time,right\n"


def parted(tmp_path, train, valid, test):
    paths = {
        "valid_path": written(tmp_path, HEADER + valid, "valid.csv") if valid else None,
        "test_path": written(tmp_path, HEADER + test, "test.csv"),
    }
    return loaded(tmp_path, written(tmp_path, HEADER + train), split="files", **paths)


def parts_of(data):
    side = data.side
    users, items = data.users.ids[side["answers_user"]], data.items.ids[side["answers_item"]]
    return dict(
        zip(zip(users.tolist(), items.tolist(), strict=True), side["answers_part"].tolist(), strict=True)
    )


def test_ready_made_parts_are_those_of_the_files(tmp_path):
    """Times do not matter, nor does it that users 3, 4 and 5 have no training answer."""
    train = "1,a,50,1\n1,b,60,0\n2,a,70,1\n"
    valid = "1,c,1,1\n3,a,1,0\n5,c,1,1\n"
    test = "1,d,0,0\n2,b,0,1\n4,a,2,1\n5,d,2,0\n"
    expected = {
        (1, "a"): TRAIN,
        (1, "b"): TRAIN,
        (2, "a"): TRAIN,
        (1, "c"): VALID,
        (5, "c"): VALID,
        (1, "d"): TEST,
        (2, "b"): TEST,
        (4, "a"): TEST,
        (5, "d"): TEST,
        (3, "a"): TEST,  # without a past nothing tells the two held-out parts apart
    }
    data = parted(tmp_path, train, valid, test)
    assert parts_of(data) == expected
    answers = answers_of(data, PartsConfig(cold_item_share=0))
    assert sorted(answers.part.tolist()) == sorted(expected.values())
    assert answers.protocol["parts"] == "ready-made"


def test_without_a_validation_file_the_last_training_answer_is_it(tmp_path):
    data = parted(tmp_path, "1,a,1,1\n1,b,2,0\n1,c,3,1\n2,a,1,1\n", None, "1,d,9,1\n")
    expected = {(1, "a"): TRAIN, (1, "b"): TRAIN, (2, "a"): TRAIN, (1, "c"): VALID, (1, "d"): TEST}
    assert parts_of(data) == expected


@pytest.mark.parametrize(
    ("value", "above", "what"),
    [("2", None, "neither 0 nor 1"), ("", None, "missing"), ("yes", 0, "not a number"), ("nan", 0, "finite")],
)
def test_a_malformed_answer_is_told_with_its_line_and_column(tmp_path, value, above, what):
    path = written(tmp_path, f"user,item,time,right\n1,a,1,1\n1,b,2,{value}\n")
    with pytest.raises(DataError, match=what) as caught:
        loaded(tmp_path, path, label_above=above)
    assert "log.csv, line 3, column 'right'" in str(caught.value)
    if value == "2":
        assert "dataset.label_above=NUMBER" in str(caught.value)


def test_a_missing_column_of_answers_is_told_by_its_setting(tmp_path):
    with pytest.raises(DataError, match="no column called 'rigth'") as caught:
        loaded(tmp_path, written(tmp_path, ROWS), correct="rigth")
    assert caught.value.nearest == "right"
    assert "dataset.correct=COLUMN" in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "what"),
    [
        ({"rating": "right"}, "either an answer or has a rating"),
        ({"label": "right"}, "either an answer or has a label"),
        ({"filter": FilterConfig(min_rating=1.0)}, "no ratings to filter by"),
        ({"correct": None, "label_above": 0}, "no column of labels"),
        ({"items_item": "id"}, "no such table"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, keywords, what):
    with pytest.raises(ConfigError, match=what):
        loaded(tmp_path, written(tmp_path, ROWS), **keywords)


def test_what_was_prepared_before_these_settings_stays_known():
    before = {"user", "item", "time", "rating", "label", "title", "separator", "bad_rows", "ids", "time_unit"}
    assert set(reading(TableConfig())) == before
    for name, value in {"correct": "c", "label_above": 0.0, "items_item": "i", "title_chars": 9}.items():
        changed = dataclasses.replace(TableConfig(), **{name: value})
        assert reading(changed) == {**reading(TableConfig()), name: value}
