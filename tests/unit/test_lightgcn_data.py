"""The files that LightGCN and DSL are judged on: lists and pairs, told apart, and what is odd in them."""

import zipfile

import numpy as np
import pytest
from data_helpers import as_cases, as_training, quiet

from effrec_cli import compose
from effrec_cli.data import lightgcn_rows
from effrec_cli.data.load import load, open_source
from effrec_cli.data.raw import RawFiles
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import FilterConfig, SplitConfig
from effrec_cli.schema.dataset_lightgcn import LightGCNConfig, PublishedConfig

NUM_USERS = 8
USERS = {user: [(3 * user + item) % 12 for item in range(2 + user % 4)] for user in range(NUM_USERS)}
TESTS = {user: [(3 * user + 11) % 12, (3 * user + 10) % 12] for user in range(7)}


def lists(users):
    return "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in users.items())


def pairs(users, offset=NUM_USERS):
    return "".join(f"{user} {item + offset}\n" for user, items in users.items() for item in items)


def folder_of(path, **files):
    """Writes files, whose names have `_` for a dot."""
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def settings(path, kind="files_random", **keywords):
    return LightGCNConfig(
        name=keywords.pop("name", "tiny"),
        family="lightgcn",
        path=None if path is None else str(path),
        filter=FilterConfig(min_user_count=1),
        split=SplitConfig(kind=kind, valid_share=keywords.pop("valid_share", 0.1)),
        **keywords,
    )


def loaded(path, root, **keywords):
    return load(settings(path, **keywords), root, quiet)


def parts(data):
    """Rows of each user, those that validate with those that train, and the test targets."""
    valid = {user: targets for user, (_, targets) in as_cases(data, data.valid).items()}
    train = {user: items + valid.get(user, []) for user, items in as_training(data).items()}
    return train, {user: targets for user, (_, targets) in as_cases(data, data.test).items()}


def as_sets(users):
    return {user: sorted(items) for user, items in users.items()}


@pytest.mark.parametrize(
    ("files", "keywords"),
    [
        ({"train_txt": lists(USERS), "test_txt": lists(TESTS)}, {}),
        ({"tiny_train": pairs(USERS), "tiny_test": pairs(TESTS)}, {}),
        ({"tiny_train": pairs(USERS, 0), "tiny_test": pairs(TESTS, 0)}, {}),
        ({"train_txt": pairs(USERS), "test_txt": pairs(TESTS)}, {}),
        ({"x_train": lists(USERS), "x_test": lists(TESTS)}, {}),
        ({"x_train": pairs(USERS, 5), "x_test": pairs(TESTS, 5)}, {"item_offset": 5}),
        ({"train_txt": lists(USERS), "test_txt": lists(TESTS)}, {"layout": "lists"}),
        ({"train_txt": pairs(USERS), "test_txt": pairs(TESTS)}, {"layout": "pairs"}),
    ],
)
def test_both_layouts_say_the_same(tmp_path, files, keywords):
    data = loaded(folder_of(tmp_path / "d", **files), tmp_path / "root", **keywords)
    train, test = parts(data)
    assert as_sets(train) == as_sets(USERS)
    assert as_sets(test) == as_sets(TESTS)
    assert data.items.ids.tolist() == list(range(12))
    assert (data.sequences.times, data.sequences.ratings, data.items.titles) == (None, None, None)
    assert data.protocol == {"kind": "files_random", "valid_share": 0.1, "seed": 42}


def test_the_order_of_lines_changes_nothing(tmp_path):
    train, test = lists(USERS).splitlines(True), lists(TESTS).splitlines(True)
    one = folder_of(tmp_path / "a", train_txt="".join(train), test_txt="".join(test))
    other = folder_of(tmp_path / "b", train_txt="".join(train[::-1]), test_txt="".join(test[::-1]))
    first, second = (loaded(folder, tmp_path / "root", valid_share=0.4) for folder in (one, other))
    assert as_cases(first, first.valid) == as_cases(second, second.valid)
    assert len(first.valid) > 2


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (b"0 1 2\r\n1 3\r\n", {0: [1, 2], 1: [3]}),
        (b"\xef\xbb\xbf0 1 2\n1 3", {0: [1, 2], 1: [3]}),
        (b"\n0  1\t2 \n  \n1 3\n", {0: [1, 2], 1: [3]}),
        (b"0 1\n1 3\n0 2\n", {0: [1, 2], 1: [3]}),
        (b"0 1 2\n5\n1 3\n6 \n", {0: [1, 2], 1: [3]}),
        (b"0 1 2 1\n1 3\n", {0: [1, 2, 1], 1: [3]}),
    ],
    ids=["crlf", "bom", "blanks", "lines add up", "users without items", "repeats stay"],
)
def test_ways_to_write(tmp_path, train, expected):
    folder = folder_of(tmp_path / "d", train_txt=train, test_txt=b"0 4\n1 4\n")
    data = loaded(folder, tmp_path / "root", kind="files", layout="lists")
    assert as_sets(parts(data)[0]) == as_sets(expected)
    assert as_cases(data, data.test)[0][1] == [4]
    assert data.stats["reader"]["lines_without_items"] == train.count(b"5\n") + train.count(b"6 \n")


def test_other_splits_take_both_files_as_one(tmp_path):
    folder = folder_of(tmp_path / "d", train_txt=lists(USERS), test_txt=lists(TESTS))
    data = loaded(folder, tmp_path / "root", kind="leave_one_out")
    assert data.protocol == {"kind": "leave_one_out"}
    assert data.num_interactions == sum(map(len, [*USERS.values(), *TESTS.values()]))
    assert as_cases(data, data.test)[1] == ([*USERS[1], TESTS[1][0]], [TESTS[1][1]])


ODD = [
    ("0 1\n0 x 2\n", "lists", "line 2", "The item 'x' is not a whole number", 1, 3),
    ("0 1\nu 1 2\n", "lists", "line 2", "The user 'u' is not a whole number", 1, 2),
    ("0 1\n0 -3\n", "lists", "line 2", "The item '-3' is below 0", 1, 2),
    ("0 1\n0 99999999999999999999\n", "lists", "line 2", "does not fit into 64 bits", 1, 2),
    ("0 1\n0 1 2\n0 2\n", "pairs", "line 2", "A line has 3 numbers, and a pair has two", 1, 3),
    ("0 1\n\n0\n0 2\n", "pairs", "line 3", "A line has 1 number, and a pair has two", 1, 3),
    ("0 1\n0 x\n0 2\n", "pairs", "line 2", "The item 'x' is not a whole number", 1, 3),
]


@pytest.mark.parametrize(("text", "layout", "where", "what", "dropped", "read"), ODD)
def test_an_odd_line_is_named_or_dropped(tmp_path, text, layout, where, what, dropped, read):
    folder = folder_of(tmp_path / "d", train_txt=text, test_txt="0 5\n")
    keywords = {"layout": layout, "kind": "files", "item_offset": 0}
    with pytest.raises(DataError, match=what) as caught:
        loaded(folder, tmp_path / "root", **keywords)
    assert caught.value.where == f"{folder / 'train.txt'}, {where}"
    assert "bad_rows=drop" in caught.value.fix
    data = loaded(folder, tmp_path / "root", bad_rows="drop", **keywords)
    assert data.stats["dropped"]["bad_rows"] == dropped
    assert data.stats["rows_read"] == read + 1


def test_a_stray_line_among_pairs_is_told_and_not_read_as_a_list(tmp_path):
    train = pairs({user: range(3) for user in range(10)}, 10).replace("4 11\n", "4 11 12\n")
    folder = folder_of(tmp_path / "d", train_txt=train, test_txt="0 12\n")
    with pytest.raises(DataError, match="A line has 3 numbers") as caught:
        loaded(folder, tmp_path / "root")
    assert "dataset.layout=lists" in caught.value.fix


def test_lists_of_one_item_each_are_not_taken_for_pairs(tmp_path):
    files = {"train": "0 8\n1 9\n2 9\n", "test": "0 9\n1 8\n2 8\n"}
    lines = folder_of(tmp_path / "a", **{f"{name}_txt": text for name, text in files.items()})
    assert loaded(lines, tmp_path / "root", kind="files").items.ids.tolist() == [8, 9]
    named = folder_of(tmp_path / "b", **{f"b_{name}": text for name, text in files.items()})
    assert loaded(named, tmp_path / "root", kind="files").items.ids.tolist() == [5, 6]


def test_items_numbered_neither_behind_users_nor_alone(tmp_path):
    folder = folder_of(tmp_path / "d", a_train=pairs(USERS, 5), a_test=pairs(TESTS, 5))
    with pytest.raises(DataError, match="Items begin at 5: neither at 0 or 1") as caught:
        loaded(folder, tmp_path / "root")
    assert "nor at 8 or above" in str(caught.value)
    assert "dataset.item_offset=NUMBER" in caught.value.fix
    with pytest.raises(DataError, match="Item 5 is below 6"):
        loaded(folder, tmp_path / "root", item_offset=6)
    assert loaded(folder, tmp_path / "root", item_offset=0).items.ids.tolist() == list(range(5, 17))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no train.txt with a test.txt, and no NAME.train with a NAME.test"),
        ({"train_txt": "0 1\n"}, "no test.txt"),
        ({"test_txt": "0 1\n"}, "no train.txt"),
        ({"a_train": "0 1\n", "b_test": "0 1\n"}, "no a.test"),
        (dict.fromkeys(("a_train", "a_test", "train_txt", "test_txt"), "0 1\n"), "train.txt, a.train"),
        ({"train_txt": "", "test_txt": "0 1\n"}, "no rows"),
        ({"train_txt": "0 1\n", "test_txt": "\n"}, "no rows"),
    ],
)
def test_a_folder_without_its_two_files(tmp_path, files, says):
    with pytest.raises(DataError) as caught:
        loaded(folder_of(tmp_path / "d", **files), tmp_path / "root")
    assert says in str(caught.value)
    assert str(tmp_path / "d") in caught.value.where


def test_of_several_the_one_of_the_datasets_name_is_meant(tmp_path):
    both = {"a_train": pairs(USERS), "a_test": pairs(TESTS), "b_train": "0 1\n0 2\n", "b_test": "0 3\n"}
    data = loaded(folder_of(tmp_path / "d", **both), tmp_path / "root", name="a")
    assert data.num_users == len(USERS)


def test_paths_that_are_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        loaded(tmp_path / "nowhere", tmp_path / "root")
    folder_of(tmp_path, train_txt=lists(USERS))
    with pytest.raises(ConfigError, match="This is a file") as caught:
        loaded(tmp_path / "train.txt", tmp_path / "root")
    assert "effrec data import tiny" in caught.value.fix


@pytest.mark.parametrize("name", ["gowalla", "yelp2018", "amazon-book"])
def test_without_files_the_import_command_is_told(tmp_path, name):
    config = compose.compose([f"dataset={name}", f"data_root={tmp_path}"]).dataset
    with pytest.raises(DataError) as caught:
        load(config, tmp_path, quiet)
    assert f"`effrec data import {name} FILE`" in caught.value.fix
    assert "dataset.path=FOLDER" in caught.value.fix


def zipped(path, *folders):
    with zipfile.ZipFile(path, "w") as file:
        for folder in folders:
            for each in folder.iterdir():
                file.write(each, f"repository/Data/{folder.name}/{each.name}")
    return path


@pytest.mark.parametrize("given", ["folder", "repository", "file", "archive"])
def test_import(tmp_path, given):
    folder = folder_of(tmp_path / "r/Data/tiny", train_txt=lists(USERS), test_txt=lists(TESTS))
    sources = {"folder": folder, "repository": tmp_path / "r", "file": folder / "train.txt"}
    path = sources[given] if given in sources else zipped(tmp_path / "x.zip", folder)
    source = open_source(settings(None), tmp_path / "root")
    source.import_from(path, quiet)
    assert isinstance(source.raw, RawFiles)
    assert sorted(each.name for each in source.raw.folder.iterdir()) == [
        "source.json",
        "test.txt",
        "train.txt",
    ]
    data = loaded(None, tmp_path / "root")
    assert as_sets(parts(data)[1]) == as_sets(TESTS)


def test_an_import_that_is_not_clear_or_not_sound_leaves_nothing(tmp_path):
    one = folder_of(tmp_path / "one", train_txt=lists(USERS), test_txt=lists(TESTS))
    two = folder_of(tmp_path / "two", train_txt=lists(USERS), test_txt=lists(TESTS))
    odd = folder_of(tmp_path / "odd", train_txt="0 x\n", test_txt="0 1\n")
    source = open_source(settings(None), tmp_path / "root")
    for path, says in (
        (zipped(tmp_path / "x.zip", one, two), "more than one train.txt"),
        (odd, "is not a whole number"),
        (folder_of(tmp_path / "empty"), "no train.txt"),
    ):
        with pytest.raises(DataError, match=says):
            source.import_from(path, quiet)
        assert not source.raw.folder.exists()


def test_what_differs_from_the_published_is_said(tmp_path):
    folder = folder_of(tmp_path / "d", train_txt=lists(USERS), test_txt=lists(TESTS))
    train, test = (sum(map(len, users.values())) for users in (USERS, TESTS))

    def said(**published):
        lines = []
        config = settings(folder, published=PublishedConfig(**published))
        load(config, tmp_path / f"root-{len(published)}-{sum(published.values())}", lines.append)
        return [line for line in lines if "warning" in line]

    assert said() == []
    assert said(users=8, items=12, train=train, test=test) == []
    (line,) = said(users=8, items=13, train=train + 1, test=test)
    assert "not the published files of tiny" in line
    assert f"12 items in place of 13, {train} training rows in place of {train + 1}" in line
    assert "users" not in line
    assert "test rows" not in line


def test_long_files_come_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(lightgcn_rows, "_CHUNK_ROWS", 3)
    folder = folder_of(tmp_path / "d", tiny_train=pairs(USERS), tiny_test=pairs(TESTS))
    chunks = list(open_source(settings(folder), tmp_path / "root").chunks())
    assert len(chunks) > 5
    assert max(map(len, chunks)) <= 3
    shares = [chunk.share for chunk in chunks]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert np.concatenate([chunk.items for chunk in chunks]).max() == 11
