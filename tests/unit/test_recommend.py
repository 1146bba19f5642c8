import json

import numpy as np
import pytest
import torch
from ranking_helpers import TableScorer, full_order

from effrec_cli.data.lookup import rows_of_ids
from effrec_cli.data.types import Catalogue
from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.evaluation import recommend
from effrec_cli.evaluation.recommend import top_k
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.report.listing import Recommendation, as_table, check_suffix, write

LISTS = [[0, 3], [], [1, 1, 2]]


def histories(lists):
    items = torch.tensor([item for each in lists for item in each], dtype=torch.int64)
    return Histories(items, torch.tensor([0, *np.cumsum([len(each) for each in lists])]))


def table(num_users=3, num_items=8, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (num_users, num_items)).astype(np.float32)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_top_k_is_the_start_of_the_total_order(exclude_seen, rows, monkeypatch):
    monkeypatch.setattr(recommend, "block_rows", lambda num_items, device: rows)
    scores = table()
    items, values = top_k(TableScorer(scores), torch.arange(3), histories(LISTS), 5, exclude_seen)
    for user, seen in enumerate(LISTS):
        allowed = scores[user].copy()
        if exclude_seen:
            allowed[seen] = -np.inf
        expected = full_order(allowed.tolist())[:5]
        assert items[user].tolist() == expected
        assert values[user].tolist() == scores[user, expected].tolist()


def test_top_k_beyond_the_catalogue_lists_what_there_is():
    items, values = top_k(TableScorer(table()), torch.tensor([2]), histories([[1, 1, 2]]), 50)
    assert items.shape == (1, 8)
    assert (items[0] >= 0).sum() == 6
    assert items[0, 6:].tolist() == [-1, -1]
    assert values[0, 6:].tolist() == [-float("inf")] * 2


numbers = Catalogue(np.array([3, 10, 11, 400]))
words = Catalogue(np.array(["Élan", "toy story", "toys"]))


def test_ids_are_found_as_numbers_and_as_strings():
    assert rows_of_ids(numbers, ["400", " 3"], "item", "--history").tolist() == [3, 0]
    assert rows_of_ids(words, ["toys"], "item", "--history").tolist() == [2]
    assert rows_of_ids(Catalogue(np.sort(words.ids)), ["Élan"], "item", "").tolist() == [2]
    assert rows_of_ids(numbers, [], "item", "--history").tolist() == []


@pytest.mark.parametrize(
    ("catalogue", "text", "nearest"),
    [
        # The nearest number is another user, not what was meant.
        (numbers, "12", None),
        (numbers, "-5", None),
        (numbers, "9" * 30, None),
        (words, "toy stori", "toy story"),
        (words, "zzzz", None),
    ],
)
def test_an_unknown_id_names_the_nearest(catalogue, text, nearest):
    with pytest.raises(ConfigError, match="no user with the id") as caught:
        rows_of_ids(catalogue, [text], "user", "--user")
    assert caught.value.nearest == nearest
    assert caught.value.where == "--user"


@pytest.mark.parametrize("text", ["abc", "", "1.5", "--5"])
def test_what_is_no_number_is_told_so(text):
    with pytest.raises(ConfigError, match="whole numbers, such as 3"):
        rows_of_ids(numbers, [text], "item", "--history")


ROWS = [Recommendation(7, 1, "a", "Title, the", 0.5), Recommendation(7, 2, "b", None, 0.25)]


def test_json_lines_hold_every_row(tmp_path):
    path = tmp_path / "out.jsonl"
    assert write(path, iter([ROWS, [], ROWS[:1]])) == 3
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[1] == {"user": 7, "rank": 2, "item": "b", "title": None, "score": 0.25}
    assert len(records) == 3


def test_parquet_keeps_types_whatever_the_first_chunk_lacks(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "out.parquet"
    assert write(path, iter([ROWS[1:], ROWS[:1]])) == 2
    frame = pandas.read_parquet(path)
    assert frame["user"].tolist() == [7, 7]
    assert frame["title"].tolist()[1] == "Title, the"
    assert frame["score"].tolist() == [0.25, 0.5]


def test_parquet_of_nothing_is_a_file_without_rows(tmp_path):
    pandas = pytest.importorskip("pandas")
    assert write(tmp_path / "none.parquet", iter([[]])) == 0
    assert list(pandas.read_parquet(tmp_path / "none.parquet").columns) == [
        "user",
        "rank",
        "item",
        "title",
        "score",
    ]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def breaking():
        yield ROWS
        raise OSError(28, "No space left on device")

    with pytest.raises(EnvironmentFault, match="No space left"):
        write(path, breaking())
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]


def test_file_names_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"\.jsonl or \.parquet"):
        check_suffix(tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="no folder"):
        check_suffix(tmp_path / "nowhere" / "out.jsonl")
    check_suffix(tmp_path / "out.parquet")


def test_titles_have_a_column_only_where_there_are_some():
    assert [column.header for column in as_table("t", ROWS).columns] == ["", "item", "title", "score"]
    assert as_table("t", ROWS).rows[1] == ["2", "b", "", "0.2500"]
    assert [column.header for column in as_table("t", ROWS[1:]).columns] == ["", "item", "score"]
