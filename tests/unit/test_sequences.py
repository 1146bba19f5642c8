"""Files of one user's items a line, and of titles: read in order, and what is odd in them."""

import gzip

import pytest
from data_helpers import as_cases, as_training, quiet
from image_helpers import RED, colours, encoded, folder_of, picture

from effrec_cli.data import sequences
from effrec_cli.data.load import load
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import FilterConfig
from effrec_cli.schema.dataset_sequences import SequencesConfig

USERS = "u2\tB1 B3 B1 B2\nu1\tB2 B2 B3\n"
ITEMS = "B1\tOne\nB2\tTwo &amp; a half\nB3\t\n"


def settings(tmp_path, users=USERS, items=ITEMS, **keywords):
    for name, text in (("users.tsv", users), ("items.tsv", items)):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return SequencesConfig(
        name="s",
        family="sequences",
        path=str(tmp_path / "users.tsv"),
        items_path=None if items is None else str(tmp_path / "items.tsv"),
        filter=FilterConfig(min_user_count=1),
        **keywords,
    )


def loaded(tmp_path, *files, **keywords):
    return load(settings(tmp_path, *files, **keywords), tmp_path / "root", quiet)


def everything(data):
    """Raw items of each user, in order."""
    bounds = zip(data.sequences.offsets[:-1], data.sequences.offsets[1:], strict=True)
    ids = data.items.ids[data.sequences.items].tolist()
    return {str(user): ids[a:b] for user, (a, b) in zip(data.users.ids, bounds, strict=True)}


def test_the_order_of_a_line_is_the_order_of_events_and_repeats_stay(tmp_path):
    data = loaded(tmp_path)
    assert everything(data) == {"u1": ["B2", "B2", "B3"], "u2": ["B1", "B3", "B1", "B2"]}
    assert data.items.titles.tolist() == ["One", "Two &amp; a half", ""]
    assert (data.sequences.times, data.sequences.ratings) == (None, None)
    assert as_training(data) == {"u1": ["B2"], "u2": ["B1", "B3"]}
    assert as_cases(data, data.test)["u2"] == (["B1", "B3", "B1"], ["B2"])
    assert data.stats["rows_read"] == 7


@pytest.mark.parametrize(
    "users",
    [
        USERS.replace("\n", "\r\n"),
        "\ufeff" + USERS,
        USERS.replace("\n", "\n\n \n"),
        USERS.rstrip("\n"),
        USERS.replace(" ", "  ").replace("\n", " \n"),
    ],
    ids=["crlf", "bom", "empty lines", "no last line end", "more spaces"],
)
def test_ways_to_write_the_same(tmp_path, users):
    expected = {"u1": ["B2", "B2", "B3"], "u2": ["B1", "B3", "B1", "B2"]}
    crlf = "\ufeff" + ITEMS.replace("\n", "\r\n")
    data = loaded(tmp_path, users, crlf)
    assert everything(data) == expected
    assert data.items.titles.tolist() == ["One", "Two &amp; a half", ""]


def test_packed_files(tmp_path):
    config = settings(tmp_path)
    (tmp_path / "users.tsv.gz").write_bytes(gzip.compress(USERS.encode()))
    config.path += ".gz"
    assert len(everything(load(config, tmp_path / "root", quiet))) == 2
    (tmp_path / "users.tsv.gz").write_bytes(gzip.compress(USERS.encode())[:-9])
    with pytest.raises(DataError, match="gzip file is damaged"):
        load(config, tmp_path / "root", quiet)


ODD_USERS = [
    ("u3 B1 B2\n", "line 3", "no tab", 1),
    ("u3\tB1\tB2\n", "line 3", "two tabs", 1),
    ("u3\t\n", "line 3, user 'u3'", "has no items", 1),
    ("\tB1 B2\n", "line 3, user ''", "is missing", 1),
    ("u3\tB1 B9 B2 B9\n", "line 3, item 'B9'", "not in the file of items", 2),
    (b"u3\tB1 \xff\n", "line 3", "not valid UTF-8", 1),
    ("u3\tB1 B\0\n", "line 3, item 'B\0'", "holds a NUL", 1),
]


@pytest.mark.parametrize(("line", "where", "what", "dropped"), ODD_USERS)
def test_an_odd_line_of_users_is_named_or_dropped(tmp_path, line, where, what, dropped):
    users = USERS.encode() + (line if isinstance(line, bytes) else line.encode())
    with pytest.raises(DataError, match=what) as caught:
        loaded(tmp_path, users)
    assert caught.value.where.endswith(where)
    assert "bad_rows=drop" in caught.value.fix
    data = loaded(tmp_path, users, bad_rows="drop")
    assert data.stats["dropped"]["bad_rows"] == dropped
    assert {"u1", "u2"} <= set(everything(data))


def test_of_unknown_items_only_themselves_are_dropped(tmp_path):
    data = loaded(tmp_path, USERS + "u3\tB1 B9 B2\n", bad_rows="drop")
    assert everything(data)["u3"] == ["B1", "B2"]
    assert data.stats["rows_read"] == 10


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("B4\n", "no tab"),
        ("B4\ta\tb\n", "two tabs"),
        ("\tTitle\n", "is missing"),
        ("B1\tAnother\n", "is there before, with another title"),
    ],
)
def test_an_odd_line_of_items_is_named_or_dropped(tmp_path, line, what):
    with pytest.raises(DataError, match=what) as caught:
        loaded(tmp_path, USERS, ITEMS + line)
    assert "items.tsv, line 4" in caught.value.where
    data = loaded(tmp_path, USERS, ITEMS + line, bad_rows="drop")
    assert data.items.titles[0] == "One"
    assert data.stats["dropped"]["bad_rows"] == 1


def test_the_same_item_twice_with_one_title_is_once(tmp_path):
    data = loaded(tmp_path, USERS, ITEMS + ITEMS)
    assert data.num_items == 3


def test_a_users_second_line_goes_on_where_the_first_ended(tmp_path):
    assert everything(loaded(tmp_path, USERS + "u1\tB1\n"))["u1"] == ["B2", "B2", "B3", "B1"]


def test_numbers_are_ids_like_any_other_and_titles_are_cut(tmp_path):
    data = loaded(tmp_path, "7\t10 9\n", "9\tabcdef\n10\tx\n", title_chars=3)
    assert data.items.ids.tolist() == [9, 10]
    assert data.items.titles.tolist() == ["abc", "x"]
    assert loaded(tmp_path, "7\t10 9\n", "9\ta\n10\tx\n", ids="text").items.ids.tolist() == ["10", "9"]
    with pytest.raises(DataError, match="not a whole number"):
        loaded(tmp_path, USERS, ids="integer")


def test_only_spaces_part_items(tmp_path):
    assert everything(loaded(tmp_path, "u\ta\u00a0b c\x0bd\n", None)) == {"u": ["a\u00a0b", "c\x0bd"]}


def test_images_without_titles(tmp_path):
    images = folder_of(tmp_path / "i", {f"B{n}.png": encoded(picture()) for n in (1, 2, 3)})
    data = loaded(tmp_path, USERS, None, images=str(images), image_size=4)
    assert data.items.titles is None
    assert colours(data) == dict.fromkeys(["B1", "B2", "B3"], RED)


def test_long_files_come_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "_CHUNK_ROWS", 3)
    lines = "".join(f"u{n}\tB1 B2\n" for n in range(7))
    config = settings(tmp_path, lines)
    chunks = list(sequences.SequencesSource(config, tmp_path).chunks())
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 2]
    assert 0 < chunks[0].share < chunks[1].share <= 1


@pytest.mark.parametrize("users", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path, users):
    with pytest.raises(DataError, match="no rows"):
        loaded(tmp_path, users)


def test_an_empty_file_of_items_is_named_and_not_the_first_user(tmp_path):
    with pytest.raises(DataError, match="no rows") as caught:
        loaded(tmp_path, "u1\tB1 B2\n", items="")
    assert "items" in caught.value.where


def test_paths_are_checked_first(tmp_path):
    with pytest.raises(ConfigError, match="needs a file"):
        sequences.SequencesSource(SequencesConfig(name="sequences"), tmp_path).check()
    config = settings(tmp_path)
    config.items_path = str(tmp_path / "none.tsv")
    with pytest.raises(ConfigError, match="no such file") as caught:
        load(config, tmp_path / "root", quiet)
    assert "dataset.items_path=" in caught.value.where
