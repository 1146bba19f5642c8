"""Amazon reviews and metadata as published in 2018 and 2023."""

import gzip
import json

import pytest
from data_helpers import as_training, quiet
from image_helpers import RED, colours, encoded, folder_of, picture

from effrec_cli import compose
from effrec_cli.data import json_lines
from effrec_cli.data.load import load
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_amazon import AmazonConfig
from effrec_cli.schema.dataset_base import FilterConfig

ROWS = [("u1", "B2", 5.0, 30), ("u1", "B1", 4.0, 10), ("u1", "B3", 1.0, 20), ("u2", "B1", 3.0, 5)]
KEYS = {
    "2018": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "2023": ("user_id", "parent_asin", "rating", "timestamp"),
}
OTHER = {"reviewText": 'a\nb \u2028 "q"', "helpful": [0, 1], "style": {"Size:": "L"}, "verified": True}


def review(layout, user, item, rating, second, **changes):
    time = second if layout == "2018" else second * 1000 + 7
    return {**OTHER, **dict(zip(KEYS[layout], (user, item, rating, time), strict=True)), **changes}


def lines(objects):
    return "".join(json.dumps(each) + "\n" for each in objects)


def meta(layout, titles):
    key = KEYS[layout][1]
    return lines({"price": "$1", "also_buy": ["x"], "title": title, key: item} for item, title in titles)


def settings(tmp_path, reviews, items=None, *, name="reviews.jsonl", **keywords):
    data = reviews if isinstance(reviews, bytes) else reviews.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    if items is not None:
        (tmp_path / "meta.jsonl").write_text(items)
    filters = keywords.pop("filter", FilterConfig(min_user_count=1))
    return AmazonConfig(
        name="a",
        family="amazon",
        path=str(tmp_path / name),
        items_path=None if items is None else str(tmp_path / "meta.jsonl"),
        filter=filters,
        **keywords,
    )


def loaded(tmp_path, *files, **keywords):
    return load(settings(tmp_path, *files, **keywords), tmp_path / "root", quiet)


@pytest.mark.parametrize("name", ["reviews.json", "reviews.jsonl.gz"])
@pytest.mark.parametrize("layout", KEYS)
def test_both_releases_give_the_same_interactions(tmp_path, layout, name):
    reviews = lines(review(layout, *row) for row in ROWS)
    data = loaded(tmp_path, reviews, meta(layout, [("B1", "One"), ("B3", None), ("B9", "x")]), name=name)
    assert as_training(data) == {"u1": ["B1"], "u2": ["B1"]}
    assert data.sequences.times.tolist() == [10, 20, 30, 5]
    assert data.sequences.ratings.tolist() == [4, 1, 5, 3]
    assert data.items.titles.tolist() == ["One", "", ""]


def test_the_order_is_by_milliseconds(tmp_path):
    rows = [
        {"user_id": "u", "parent_asin": item, "rating": 1, "timestamp": 5000 + ms}
        for item, ms in (("B1", 9), ("B2", 3), ("B3", 5))
    ]
    data = loaded(tmp_path, lines(rows), filter=FilterConfig(min_user_count=1))
    assert data.items.ids[data.sequences.items].tolist() == ["B2", "B3", "B1"]
    assert data.items.titles is None


ODD = [
    ("not json\n", "no JSON object", ""),
    ('{"asin": "B1"\n', "no JSON object", ""),
    ("[1]\n", "no JSON object", ""),
    (json.dumps(review("2018", "", "B1", 1, 1)) + "\n", "is missing", "column 'reviewerID'"),
    (json.dumps(review("2018", None, "B1", 1, 1)) + "\n", "is missing", "column 'reviewerID'"),
    (json.dumps(review("2018", "u", "B1", "good", 1)) + "\n", "is not a number", "column 'overall'"),
    (json.dumps(review("2018", "u", "B1", 1, 1.5)) + "\n", "not a whole number", "column 'unixReviewTime'"),
    ('{"asin": "B1", "overall": 1, "unixReviewTime": 3}\n', "is missing", "column 'reviewerID'"),
]


@pytest.mark.parametrize(("line", "what", "where"), ODD)
def test_an_odd_line_is_named_or_dropped(tmp_path, line, what, where):
    first, *rest = (lines([review("2018", *row)]) for row in ROWS)
    reviews = first + line + "".join(rest)
    with pytest.raises(DataError, match=what) as caught:
        loaded(tmp_path, reviews)
    assert "line 2" in caught.value.where
    assert where in caught.value.where
    data = loaded(tmp_path, reviews, bad_rows="drop")
    assert data.stats["dropped"]["bad_rows"] == 1
    assert len(data.sequences.items) == len(ROWS)


def test_text_that_is_not_utf_8_is_a_malformed_line(tmp_path):
    good = lines(review("2018", *row) for row in ROWS).encode()
    bad = b'{"reviewerID": "u\xff", "asin": "B1", "overall": 1, "unixReviewTime": 1}\n'
    with pytest.raises(DataError, match="no JSON object"):
        loaded(tmp_path, good + bad)


def test_other_line_ends_and_empty_lines(tmp_path):
    reviews = "\ufeff" + lines(review("2018", *row) for row in ROWS).replace("\n", "\r\n\r\n")
    assert len(loaded(tmp_path, reviews).sequences.items) == len(ROWS)


def test_two_objects_in_a_line_are_no_line(tmp_path):
    reviews = "}{".join(lines(review("2018", *row) for row in ROWS).rsplit("}\n{", 1))
    with pytest.raises(DataError, match="no JSON object") as caught:
        loaded(tmp_path, reviews)
    assert "line 3" in caught.value.where


def test_small_blocks_give_the_same(tmp_path, monkeypatch):
    reviews = lines(review("2018", f"u{n % 3}", f"B{n}", n % 5, n) for n in range(50))
    whole = loaded(tmp_path, reviews)
    monkeypatch.setattr("effrec_cli.data.delimited.line_blocks.__defaults__", (100,))
    config = settings(tmp_path, reviews)
    again = load(config, tmp_path / "other", quiet)
    assert again.sequences.items.tolist() == whole.sequences.items.tolist()
    assert again.stats["rows_read"] == 50


def test_sound_lines_take_the_fast_way(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "_careful", lambda *args: 1 / 0)
    reviews = lines(review("2023", *row) for row in ROWS)
    assert loaded(tmp_path, reviews).num_users == 2


def test_the_layout_is_known_by_the_first_review_or_told(tmp_path):
    with pytest.raises(DataError, match="keys of neither release") as caught:
        loaded(tmp_path, '{"user": "u", "item": "i"}\n')
    assert "reviewerID" in caught.value.fix
    with pytest.raises(DataError, match="no JSON object"):
        loaded(tmp_path, "{'asin': 'python'}\n")
    reviews = lines(review("2018", *row) for row in ROWS)
    with pytest.raises(DataError, match="is missing"):
        loaded(tmp_path, reviews, layout="2023")


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="no JSON object"):
        loaded(tmp_path, text)


def test_a_cut_gzip_is_refused(tmp_path):
    config = settings(tmp_path, lines(review("2018", *row) for row in ROWS), name="r.json.gz")
    path = tmp_path / "r.json.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="gzip file is damaged"):
        load(config, tmp_path / "root", quiet)


def test_images_by_asin(tmp_path):
    images = folder_of(tmp_path / "i", {f"B{n}.jpg": encoded(picture()) for n in (1, 2)})
    reviews = lines(review("2018", *row) for row in ROWS)
    data = loaded(tmp_path, reviews, images=str(images), image_size=4, bad_images="drop")
    assert colours(data) == {"B1": RED, "B2": RED}
    assert data.stats["dropped"]["bad_images"] == 1


def test_paths_are_checked_first(tmp_path):
    config = settings(tmp_path, "")
    config.path = None
    with pytest.raises(ConfigError, match="needs a file"):
        load(config, tmp_path / "root", quiet)
    config.path = str(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="no such file"):
        load(config, tmp_path / "root", quiet)


@pytest.mark.parametrize("layout", ["2018", "2023"])
def test_a_layout_is_named_as_it_is_written_though_it_looks_like_a_number(layout):
    assert compose.compose(["dataset=amazon", f"dataset.layout={layout}"]).dataset.layout == layout
