"""The user's own csv and parquet."""

import gzip
import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import as_cases, as_training, quiet
from hypothesis import given
from hypothesis import strategies as st

from effrec_cli.data.delimited import Dialect, _Lines, _records
from effrec_cli.data.load import load
from effrec_cli.data.sniff import id_kind, time_kind
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import FilterConfig, SplitConfig
from effrec_cli.schema.dataset_table import TableConfig


def table(path, *, split="leave_one_out", **keywords):
    filters = FilterConfig(min_user_count=1)
    return TableConfig(
        name="t", family="table", path=str(path), filter=filters, split=SplitConfig(kind=split), **keywords
    )


def loaded(tmp_path, *, say=quiet, **keywords):
    return load(table(**keywords), tmp_path / "root", say)


def written(tmp_path, text, name="log.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_go_by_their_names_in_any_order(tmp_path):
    path = written(tmp_path, "when,who,extra,what,stars\n5,1,x,10,2.5\n3,1,y,20,4\n9,2,z,10,1e0\n")
    data = loaded(tmp_path, path=path, user="who", item="what", time="when", rating="stars")
    assert as_training(data) == {1: [20, 10], 2: [10]}
    assert data.sequences.ratings.tolist() == [4.0, 2.5, 1.0]
    assert data.sequences.times.tolist() == [3, 5, 9]
    assert data.stats["rows_read"] == 3


@pytest.mark.parametrize(
    ("mark", "option"), [("\t", "dataset.separator=tab"), (";", "dataset.separator=';'")]
)
def test_another_separator_is_suspected(tmp_path, mark, option):
    path = written(tmp_path, f"user{mark}item\n1{mark}2\n")
    with pytest.raises(DataError, match="no column") as caught:
        loaded(tmp_path, path=path)
    assert option in str(caught.value.fix)


@pytest.mark.parametrize("separator", ["\t", "tab", "\\t", ";", "|"])
def test_separators(tmp_path, separator):
    mark = "\t" if "t" in separator or separator == "\t" else separator
    path = written(tmp_path, f"user{mark}item\n1{mark}2\n")
    assert as_training(loaded(tmp_path, path=path, separator=separator)) == {1: [2]}


def test_a_separator_of_two_characters_is_refused(tmp_path):
    path = written(tmp_path, "user,item\n1,2\n")
    with pytest.raises(ConfigError, match="one character"):
        loaded(tmp_path, path=path, separator="::")


def test_text_ids_with_quotes_separators_line_ends_and_unicode(tmp_path):
    text = 'user,item,title\n"Zoë, the ""first""",naïve,"a\nb"\n"Zoë, the ""first""",日本,\n 7,😀,x\n'
    path = written(tmp_path, "\ufeff" + text.replace("\n", "\r\n"))
    data = loaded(tmp_path, path=path, title="title")
    assert as_training(data) == {'Zoë, the "first"': ["naïve", "日本"], " 7": ["😀"]}
    assert data.items.ids.tolist() == ["naïve", "日本", "😀"]
    assert data.items.titles.tolist() == ["a\r\nb", "", "x"]
    assert data.users.ids.tolist() == [" 7", 'Zoë, the "first"']


@given(
    st.lists(st.lists(st.text(st.sampled_from('a",\né '), max_size=5), min_size=2, max_size=2), max_size=8)
)
def test_a_quoted_file_is_read_back_record_by_record(rows):
    text = "".join(",".join('"' + field.replace('"', '""') + '"' for field in row) + "\n" for row in rows)
    records = list(_records(_Lines(text.encode(), 2), Dialect()))
    assert [fields for _, fields in records] == rows
    starts = [2 + text_before.count("\n") for text_before in _prefixes(rows)]
    assert [line for line, _ in records] == starts


def _prefixes(rows):
    done = ""
    for row in rows:
        yield done
        done += ",".join(row) + "\n"


def test_blocks_end_between_records_wherever_quotes_are(tmp_path, monkeypatch):
    monkeypatch.setattr("effrec_cli.data.delimited._BLOCK_BYTES", 11)
    rows = [(f"u{n}", f'i"{n}\n' * (n % 3)) for n in range(1, 30)]
    text = "user,item\n" + "".join(f'{user},"x{item}"\n'.replace('i"', 'i""') for user, item in rows)
    data = loaded(tmp_path, path=written(tmp_path, text))
    assert as_training(data) == {user: [f"x{item}"] for user, item in rows}


def test_a_gzipped_csv_is_read_as_it_is(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"user,item\n1,2\n3,4\n"))
    assert as_training(loaded(tmp_path, path=path)) == {1: [2], 3: [4]}


def test_numbers_with_leading_zeros_are_names(tmp_path):
    data = loaded(tmp_path, path=written(tmp_path, "user,item\n007,1\n7,2\n"))
    assert as_training(data) == {"007": [1], "7": [2]}


def test_ids_can_be_told_to_be_text(tmp_path):
    data = loaded(tmp_path, path=written(tmp_path, "user,item\n10,1\n9,2\n"), ids="text")
    assert data.users.ids.tolist() == ["10", "9"]


def test_negative_and_large_ids_are_ids(tmp_path):
    data = loaded(
        tmp_path, path=written(tmp_path, f"user,item\n-5,{2**63 - 1}\n3,{-(2**63)}\n"), ids="integer"
    )
    assert data.users.ids.tolist() == [-5, 3]
    assert data.items.ids.tolist() == [-(2**63), 2**63 - 1]


@pytest.mark.parametrize(
    ("texts", "seconds"),
    [
        (["1600000000", "1500000000"], [1500000000, 1600000000]),
        (["1600000000123", "1500000000999"], [1500000000, 1600000000]),
        (["1600000000123456", "1600000000123455"], [1600000000, 1600000000]),
        (["1600000000.75", "1600000000.25"], [1600000000, 1600000000]),
        (["2020-09-13 12:26:40.5", "2020-09-13 12:26:40.25"], [1600000000, 1600000000]),
        (["2020-09-13T14:26:40+02:00", "2020-09-13T12:26:39Z"], [1599999999, 1600000000]),
        (["2020-09-13", "2020-09-12"], [1599868800, 1599955200]),
        (["-1.5", "-2.5"], [-3, -2]),
    ],
)
def test_times_in_many_forms_become_seconds_in_true_order(tmp_path, texts, seconds):
    text = "user,item,time\n" + "".join(f"1,{item},{time}\n" for item, time in enumerate(texts, 1))
    data = loaded(tmp_path, path=written(tmp_path, text), time="time")
    assert data.sequences.times.tolist() == seconds
    assert as_training(data) == {1: [2, 1]}


def test_the_unit_of_whole_times_can_be_told():
    assert time_kind(["5", "6"], "ms")[1] == 1000
    assert time_kind(["5", "6"], "auto")[1] == 1
    assert time_kind(["1600000000000000000"], "auto")[1] == 10**9
    with pytest.raises(ValueError, match="missing"):
        id_kind(["", "x"], "integer").careful("")


def test_parquet_reads_like_csv(tmp_path):
    moment = datetime(2020, 9, 13, 12, 26, 40, 500, tzinfo=UTC)
    frame = pa.table(
        {
            "user": pa.array([1, 1, 2], pa.int32()),
            "item": pa.array(["b", "a", "b"]).dictionary_encode(),
            "time": pa.array([moment, moment, None], pa.timestamp("ns", "UTC")).fill_null(moment),
            "rating": pa.array([1, 2, 3], pa.uint8()),
        }
    )
    pq.write_table(frame, tmp_path / "x.parquet")
    data = loaded(tmp_path, path=tmp_path / "x.parquet", time="time", rating="rating")
    assert as_training(data) == {1: ["b", "a"], 2: ["b"]}
    assert data.sequences.times.tolist() == [1600000000] * 3
    assert data.sequences.ratings.tolist() == [1.0, 2.0, 3.0]


def test_a_folder_of_parquet_is_one_table_in_order_of_names(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, item in (("b", 2.0), ("a", 1.0)):
        pq.write_table(pa.table({"user": [1.0], "item": [item]}), folder / f"{name}.parquet")
    assert as_training(loaded(tmp_path, path=folder)) == {1: [1, 2]}
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"no \.parquet file"):
        loaded(tmp_path, path=folder)


def test_ready_made_splits_by_files(tmp_path):
    train = written(tmp_path, "user,item\n1,10\n1,11\n2,20\n")
    valid = written(tmp_path, "user,item\n1,12\n", "valid.csv")
    pq.write_table(pa.table({"user": [2], "item": [21]}), tmp_path / "test.parquet")
    data = loaded(
        tmp_path, path=train, valid_path=str(valid), test_path=str(tmp_path / "test.parquet"), split="files"
    )
    assert as_training(data) == {1: [10, 11], 2: [20]}
    assert as_cases(data, data.valid) == {1: ([10, 11], [12])}
    assert as_cases(data, data.test) == {2: ([20], [21])}


@pytest.mark.parametrize("ids", ["auto", "text"])
def test_titles_from_a_table_of_items(tmp_path, ids):
    log = written(tmp_path, "user,item\n1,10\n1,11\n")
    items = written(tmp_path, 'item,name\n11,"Blue, deep"\n1,Not rated\n101,No\n11,Again\n', "items.csv")
    data = loaded(tmp_path, path=log, items_path=str(items), title="name", ids=ids)
    assert data.items.titles.tolist() == ["", "Blue, deep"]


@pytest.mark.parametrize(("wrong", "said"), [({"title": "nmae"}, "nmae"), ({"items_item": "id"}, "id")])
def test_a_table_of_items_without_a_column_is_refused_before_the_log_is_read(tmp_path, wrong, said):
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n1,7,not a time\n")
    items = tmp_path / "items.csv"
    items.write_text("item,name\n7,a title\n")
    with pytest.raises(DataError, match=f"no column called '{said}'") as caught:
        loaded(tmp_path, path=log, items_path=str(items), **{"title": "name", "time": "time", **wrong})
    assert str(items) in caught.value.where


def test_rows_labelled_0_are_no_interactions_but_are_kept_aside(tmp_path):
    text = "user,item,time,click\n1,10,5,1\n1,11,6,0\n2,12,7,0\n1,12,8,1.0\n"
    data = loaded(tmp_path, path=written(tmp_path, text), time="time", label="click")
    assert as_training(data) == {1: [10, 12]}
    assert data.stats["dropped"]["labelled_0"] == 2
    side = data.side
    assert side["labelled_user_ids"][side["labelled_users"]].tolist() == [1, 1, 2, 1]
    assert side["labelled_item_ids"][side["labelled_items"]].tolist() == [10, 11, 12, 12]
    assert side["labels"].tolist() == [1, 0, 0, 1]
    assert side["labelled_times"].tolist() == [5, 6, 7, 8]


def test_the_manifest_says_where_the_data_come_from(tmp_path):
    path = written(tmp_path, "user,item\n1,2\n")
    data = loaded(tmp_path, path=path)
    manifest = json.loads((data.folder / "manifest.json").read_text())
    assert manifest["recipe"]["raw"]["reading"]["user"] == "user"
    assert len(manifest["recipe"]["raw"]["files"]["path"][0]) == 64
    assert manifest["arrays"]["items"]["bytes"] == (data.folder / "items.npy").stat().st_size


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"path": None}, "needs a file"),
        ({"path": "nowhere.csv"}, "no such file"),
        ({"split": "files"}, "needs a test file"),
        ({"test_path": "log.csv"}, "split would ignore"),
        ({"valid_path": "log.csv"}, "split would ignore"),
        ({"items_path": "items.csv"}, "which of its columns is the title"),
    ],
)
def test_settings_that_do_not_fit_are_config_errors(tmp_path, keywords, message):
    path = written(tmp_path, "user,item\n1,2\n")
    config = table(path, split=keywords.pop("split", "leave_one_out"))
    for key, value in keywords.items():
        setattr(config, key, value)
    with pytest.raises(ConfigError, match=message):
        load(config, tmp_path / "root", quiet)


def test_without_pyarrow_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(Exception, match="pyarrow") as caught:
        loaded(tmp_path, path=written(tmp_path, "user,item\n1,2\n"))
    assert caught.value.exit_code == 6
    assert "effrec[data]" in caught.value.fix


def test_prepared_arrays_have_the_documented_types(tmp_path):
    path = written(tmp_path, "user,item,time,rating\n" + "".join(f"1,{i},{i},3\n" for i in range(4)))
    data = loaded(tmp_path, path=path, time="time", rating="rating")
    assert data.sequences.offsets.dtype == np.int64
    assert data.sequences.items.dtype == np.int32
    assert data.sequences.times.dtype == np.int64
    assert data.sequences.ratings.dtype == np.float32
    assert data.train_end.dtype == np.int64
    assert data.test.users.dtype == np.int32
    assert data.test.target_start.dtype == np.int64
