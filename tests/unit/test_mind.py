"""MIND as published: parsed, numbered, imported from folders and archives, and malformed lines named."""

from datetime import UTC, datetime

import numpy as np
import pytest
from data_helpers import quiet
from mind_helpers import DEV, TRAIN, TRAIN_NEWS, settings, write, zipped

from effrec_cli.data.describe import describe
from effrec_cli.data.load import load, open_source
from effrec_cli.data.mind import MindSource
from effrec_cli.data.news import contents_of_impressions, impressions_of
from effrec_cli.data.news_batches import NewsBatches
from effrec_cli.data.source import TEST, VALID
from effrec_cli.data.source import TRAIN as TRAIN_PART
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.report.description import tables
from effrec_cli.schema.dataset_base import PartsConfig

ids = pytest.importorskip("pyarrow") and np.array(["N1", "N10", "N2", "N3", "N4"])


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "given")


def prepared(folder, tmp_path, **others):
    return load(settings(folder, **others), tmp_path / "root", quiet)


def at(day, hour, minute=0, second=0):
    return int(datetime(2019, 11, day, hour, minute, second, tzinfo=UTC).timestamp())


def test_impressions_are_what_the_files_say(folder, tmp_path):
    data = prepared(folder, tmp_path)
    side = data.side
    assert side["impressions_item_ids"].tolist() == ids.tolist()
    assert side["impressions_user_ids"][side["impressions_user"]].tolist() == [
        "U7",
        "U7",
        "U5",
        "U7",
        "U7",
        "U9",
    ]
    assert side["impressions_time"].tolist() == [
        at(11, 9, 5, 58), at(12, 12, 0, 1), at(13, 0, 0, 1), at(10, 13), at(15, 8), at(15, 7, 59, 59),
    ]  # fmt: skip
    assert side["impressions_part"].tolist() == [TRAIN_PART] * 4 + [TEST] * 2
    found = impressions_of(data, PartsConfig(valid_share=0.25))
    for row, line in enumerate(TRAIN + DEV):
        *_, history, slate = line.split("\t")
        low, high = found.history_start[row], found.history_end[row]
        assert ids[found.history_items[low:high]].tolist() == history.split()
        low, high = found.offsets[row], found.offsets[row + 1]
        shown = zip(ids[found.candidates[low:high]], found.clicks[low:high], strict=True)
        assert [f"{item}-{click}" for item, click in shown] == slate.split()
    assert found.part.tolist() == [TRAIN_PART, TRAIN_PART, VALID, TRAIN_PART, TEST, TEST]
    assert found.num_items == 5
    assert data.stats["reader"] == {"news": 5, "impressions": 6, "candidates": 16}


def test_items_of_the_dev_part_alone_are_cold(folder, tmp_path):
    found = impressions_of(prepared(folder, tmp_path), PartsConfig(valid_share=0.25))
    assert found.train_counts.tolist() == [0, 5, 5, 3, 0]
    assert found.with_cold_click(found.of_part("test")).tolist() == [True, True]
    assert not found.with_cold_click(found.of_part("train")).any()


def test_training_never_touches_the_dev_part(folder, tmp_path):
    batches = NewsBatches(
        impressions_of(prepared(folder, tmp_path), PartsConfig(valid_share=0.25)), 2, 2, 50, 1
    )
    assert batches.num_samples == 3
    clicked = sorted(ids[batches.impressions.candidates[batches.clicked]].tolist())
    assert clicked == ["N10", "N2", "N3"]


def test_interactions_are_histories_then_clicks_each_once(folder, tmp_path):
    data = prepared(folder, tmp_path)
    found = {}
    for user in range(data.num_users):
        low, high = data.sequences.offsets[user], data.sequences.offsets[user + 1]
        rows = zip(data.sequences.items[low:high], data.sequences.times[low:high], strict=True)
        found[str(data.users.ids[user])] = [(str(data.items.ids[item]), int(time)) for item, time in rows]
    before = at(10, 13) - 1
    assert found == {
        "U5": [("N10", at(13, 0, 0, 1)), ("N2", at(13, 0, 0, 1))],
        "U7": [("N2", before), ("N10", before), ("N3", at(12, 12, 0, 1)), ("N1", at(15, 8))],
        "U9": [("N2", at(15, 7, 59, 58)), ("N4", at(15, 7, 59, 58)), ("N1", at(15, 7, 59, 59))],
    }
    titles = {str(item): str(title) for item, title in zip(data.items.ids, data.items.titles, strict=True)}
    assert titles["N10"] == 'The "final" is on'
    assert data.protocol == {"kind": "leave_one_out"}


TITLES = ["A soup", 'The "final" is on', "Été en ville", "Rain", "A salad"]
ABSTRACTS = ["Hot.", "Two teams meet.", "", "Much of it, they say.", "Cold."]


def test_text_is_the_title_or_also_the_abstract(folder, tmp_path):
    assert contents_of_impressions(prepared(folder, tmp_path)).texts.tolist() == TITLES
    data = prepared(folder, tmp_path, text="title_abstract")
    both = [" ".join(filter(None, pair)) for pair in zip(TITLES, ABSTRACTS, strict=True)]
    assert contents_of_impressions(data).texts.tolist() == both
    assert data.items.titles.tolist() == [both[ids.tolist().index(item)] for item in data.items.ids.tolist()]


def test_a_body_is_read_where_there_is_one(folder, tmp_path):
    with pytest.raises(DataError, match="no ninth column with bodies; the first line has 8"):
        prepared(folder, tmp_path, text="title_abstract_body")
    news = [f"{row}\tbody {at}" for at, row in enumerate(TRAIN_NEWS)]
    whole = write(tmp_path / "bodies", train_news=news, dev_news=news, dev=TRAIN)
    texts = contents_of_impressions(prepared(whole, tmp_path, text="title_abstract_body")).texts.tolist()
    assert texts[2] == "Rain Much of it, they say. body 2"


@pytest.mark.parametrize("ends", [("train", "dev"), ("train", "valid"), ("TRAIN", "Validation")])
@pytest.mark.parametrize("packed", [False, True])
def test_import_takes_folders_and_archives(tmp_path, ends, packed):
    folder = write(tmp_path / "given", ends=ends)
    whole = load(settings(folder), tmp_path / "root", quiet)
    source = open_source(settings(), tmp_path / "root")
    source.import_from(zipped(folder, tmp_path / "zips") if packed else folder, quiet)
    again = load(settings(), tmp_path / "root", quiet)
    assert again.content_hash == whole.content_hash
    assert sorted(path.name for path in source.raw.folder.iterdir()) == [
        "dev_behaviors.tsv", "dev_news.tsv", "source.json", "train_behaviors.tsv", "train_news.tsv",
    ]  # fmt: skip
    assert source.raw.verify() == []


def test_an_unlabelled_test_part_is_left_alone_with_a_word(folder, tmp_path):
    home = folder / "MINDlarge_test"
    home.mkdir()
    (home / "news.tsv").write_text("")
    (home / "behaviors.tsv").write_text("1\tU1\t11/11/2019 9:05:58 AM\tN1\tN2 N3\n")
    said = []
    open_source(settings(), tmp_path / "root").import_from(folder, said.append)
    assert any("MINDlarge_test is left alone: its candidates have no labels" in line for line in said)


def test_what_is_not_there_is_named_with_what_to_get(folder, tmp_path):
    with pytest.raises(DataError) as absent:
        load(settings(archives=["MINDsmall_train.zip", "MINDsmall_dev.zip"]), tmp_path / "root", quiet)
    assert "get MINDsmall_train.zip and MINDsmall_dev.zip from https://msnews.github.io" in absent.value.fix
    assert "effrec data import mind-tiny FOLDER" in absent.value.fix
    (folder / "MINDsmall_dev").rename(folder / "elsewhere")
    with pytest.raises(DataError, match="no dev part of MIND here"):
        prepared(folder, tmp_path)
    with pytest.raises(DataError, match="no dev part of MIND here"):
        open_source(settings(), tmp_path / "root").import_from(folder, quiet)
    with pytest.raises(ConfigError, match="no such folder"):
        prepared(tmp_path / "nowhere", tmp_path)


def test_archives_are_not_read_where_they_are(folder, tmp_path):
    with pytest.raises(DataError, match="not read where it is") as error:
        prepared(zipped(folder, tmp_path / "zips"), tmp_path)
    assert "effrec data import" in error.value.fix


def test_another_release_is_refused_by_its_count(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "effrec_cli.data.mind_files.TRAIN_IMPRESSIONS", {"mind-small": 9, "mind-large": len(TRAIN)}
    )
    with pytest.raises(DataError, match="4 training impressions of mind-large"):
        open_source(settings(name="mind-small"), tmp_path / "root").import_from(folder, quiet)
    said = []
    open_source(settings(name="mind-large"), tmp_path / "root").import_from(folder, said.append)
    assert not any("not comparable" in line for line in said)


MALFORMED = {
    "1\tU7\t11/11/2019 9:05:58 AM\tN2\tN3 N10": ("impressions", "has a candidate without a label"),
    "1\tU7\t11/11/2019 9:05:58 AM\tN2\tN3-0 N10-2": ("impressions", "has a candidate without a label"),
    "1\tU7\t11/11/2019 9:05:58 AM\tN2\t": ("impressions", "is missing"),
    "1\tU7\t2019-11-11 09:05:58\tN2\tN3-0": ("time", "is not a moment such as 11/11/2019"),
    "1\tU7\t13/11/2019 9:05:58 AM\tN2\tN3-0": ("time", "is not a moment such as 11/11/2019"),
    "1\t\t11/11/2019 9:05:58 AM\tN2\tN3-0": ("user", "is missing"),
}


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_line_is_named_with_its_column(tmp_path, line):
    column, why = MALFORMED[line]
    folder = write(tmp_path / "given", train=[*TRAIN[:2], line, *TRAIN[2:]])
    with pytest.raises(DataError, match=f"column '{column}' {why}") as error:
        prepared(folder, tmp_path)
    assert f"MINDsmall_train/behaviors.tsv, line 3, column '{column}'" in error.value.where
    data = prepared(folder, tmp_path, bad_rows="drop")
    assert data.stats["dropped"]["bad_rows"] == 1
    assert len(data.side["impressions_time"]) == 6


@pytest.mark.parametrize(("history", "slate"), [("N2 N99", "N3-0"), ("N2", "N3-0 N99-1")])
def test_unknown_news_are_named(tmp_path, history, slate):
    line = f"77\tU7\t11/11/2019 9:05:58 AM\t{history}\t{slate}"
    folder = write(tmp_path / "given", train=[*TRAIN, line])
    with pytest.raises(DataError, match=r"names news that no news\.tsv lists") as error:
        prepared(folder, tmp_path)
    assert "behaviors.tsv, impression 77, column" in error.value.where
    assert "N99" in error.value.where
    assert len(prepared(folder, tmp_path, bad_rows="drop").side["impressions_time"]) == 6


def test_a_line_with_too_few_columns_is_named(tmp_path):
    folder = write(tmp_path / "given", train=[TRAIN[0], "2\tU7\tN2", *TRAIN[1:]])
    with pytest.raises(DataError, match="3 columns instead of 5") as error:
        prepared(folder, tmp_path)
    assert error.value.where.endswith("behaviors.tsv, line 2")


def test_blocks_of_lines_give_what_the_whole_gives(tmp_path, monkeypatch):
    lines = [line.replace("U7", f"U{at % 7}") for at in range(300) for line in TRAIN]
    folder = write(tmp_path / "given", train=lines)
    whole = MindSource(settings(folder), tmp_path / "root").side(None)
    read = open_blocks(monkeypatch)
    parts = MindSource(settings(folder), tmp_path / "root").side(None)
    assert len(read) > 20
    for name, array in whole.items():
        assert np.array_equal(parts[name], array), name


def open_blocks(monkeypatch):
    """Makes the reader cut files in small blocks, and counts them."""
    from effrec_cli.data import delimited

    plain, read = delimited.line_blocks, []

    def small(handle, first, quoted, size=1000):
        for lines in plain(handle, first, quoted, 1000):
            read.append(lines.first)
            yield lines

    monkeypatch.setattr(delimited, "line_blocks", small)
    return read


def test_what_was_read_is_not_told_as_dropped(folder, tmp_path):
    found = {table.title: table.rows for table in tables(describe(prepared(folder, tmp_path)))}
    assert not any(title.startswith("Dropped") for title in found)
    counts = [["news", "5"], ["impressions", "6"], ["candidates", "16"]]
    assert found["Read beside the rows"] == counts


def test_of_two_clicks_on_an_item_the_earlier_counts_wherever_it_stands(tmp_path):
    train = ["1\tU1\t11/12/2019 9:00:00 AM\t\tN3-1 N2-0", "2\tU1\t11/11/2019 9:00:00 AM\t\tN3-1 N2-0"]
    data = prepared(write(tmp_path / "given", train=train), tmp_path)
    user = data.users.ids.tolist().index("U1")
    low, high = data.sequences.offsets[user], data.sequences.offsets[user + 1]
    assert data.sequences.times[low:high].tolist() == [at(11, 9)]
