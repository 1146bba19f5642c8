"""MovieLens in its three published layouts, each written small."""

import json
import zipfile

import pytest
from data_helpers import as_training, quiet

from effrec_cli.data.load import load, open_source
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import FilterConfig
from effrec_cli.schema.dataset_movielens import MovieLensConfig

CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,50\n1,2,0.5,40\n3,2,5.0,60\n",
    "movies.csv": 'movieId,title,genres\n2,"Amélie, or so (2001)",Comedy|Romance\n'
    "10,X,(no genres listed)\n11,Y,War\n",
    "README.txt": "terms",
    "genome-scores.csv": "not wanted",
}
DAT = {
    "ratings.dat": "1::10::4::50\n1::2::5::40\n3::2::5::60\n",
    "movies.dat": "2::Am\xe9lie :: or so (2001)::Comedy|Romance\n10::X::Drama\n",
    "users.dat": "1::F::25::10::48067\n3::M::1::20::55117-1234\n9::M::56::0::0\n",
}
TAB = {
    "u.data": "1\t10\t4\t50\n1\t2\t5\t40\n3\t2\t5\t60\n",
    "u.item": "2|Am\xe9lie (2001)|01-Jan-2001||http://x|0|0|0|0|0|1|0|0|0|0|0|0|0|0|1|0|0|0|0\n"
    "10|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n",
    "u.user": "1|24|F|technician|85711\n2|53|M|other|94043\n3|7|M|artist|T8H1N\n",
}
LAYOUTS = {"csv": (CSV, "utf-8"), "dat": (DAT, "latin-1"), "tab": (TAB, "latin-1")}


def config_of(layout, **keywords):
    filters = FilterConfig(min_user_count=1)
    return MovieLensConfig(name=f"ml-{layout}", family="movielens", layout=layout, filter=filters, **keywords)


def released(tmp_path, layout, **changes):
    """Writes a release as a folder inside a folder, as archives unpack to."""
    files, encoding = LAYOUTS[layout]
    folder = tmp_path / "download" / f"ml-{layout}"
    folder.mkdir(parents=True)
    for name, text in {**files, **changes}.items():
        if text is not None:
            (folder / name).write_bytes(text.encode(encoding))
    return folder.parent


def imported(tmp_path, layout, *, said=None, **changes):
    config = config_of(layout)
    source = open_source(config, tmp_path / "root")
    source.import_from(released(tmp_path, layout, **changes), quiet if said is None else said.append)
    return load(config, tmp_path / "root", quiet)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_interactions(tmp_path, layout):
    data = imported(tmp_path, layout)
    assert as_training(data) == {1: [2, 10], 3: [2]}
    assert data.sequences.times.tolist() == [40, 50, 60]
    assert data.sequences.ratings.tolist()[1:] == [4.0, 5.0]
    assert data.items.titles[0].startswith("Amélie")


def test_genres_are_flags_beside_the_items(tmp_path):
    data = imported(tmp_path, "csv")
    assert data.side["genre_names"].tolist() == ["Comedy", "Romance", "War"]
    assert data.side["item_genres"].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert data.items.titles.tolist() == ["Amélie, or so (2001)", "X"]
    assert "user_age" not in data.side


def test_ml_1m_has_user_features(tmp_path):
    data = imported(tmp_path, "dat")
    assert data.items.titles.tolist() == ["Amélie :: or so (2001)", "X"]
    side = data.side
    assert side["user_gender"].tolist() == [0, 1]
    assert side["user_age"].tolist() == [25, 1]
    assert side["occupation_names"][side["user_occupation"]].tolist() == ["K-12 student", "writer"]
    assert side["user_zip"].tolist() == ["48067", "55117-1234"]


def test_ml_10m_has_no_users_file_and_writes_utf_8(tmp_path):
    movies = DAT["movies.dat"].encode().decode("latin-1")
    data = imported(tmp_path, "dat", **{"users.dat": None, "movies.dat": movies})
    assert data.items.titles[0] == "Amélie :: or so (2001)"
    assert "user_age" not in data.side


def test_ml_100k_has_flags_and_user_features(tmp_path):
    data = imported(tmp_path, "tab")
    names, flags = data.side["genre_names"], data.side["item_genres"]
    assert [names[row.astype(bool)].tolist() for row in flags] == [["Comedy", "Romance"], ["unknown"]]
    assert data.side["user_age"].tolist() == [24, 7]
    assert data.side["occupation_names"][data.side["user_occupation"]].tolist() == ["technician", "artist"]


def test_a_movie_and_a_user_that_are_not_listed(tmp_path):
    data = imported(tmp_path, "dat", **{"ratings.dat": "7::99::3::5\n7::10::3::6\n"})
    assert data.items.titles.tolist() == ["X", ""]
    assert data.side["user_age"].tolist() == [-1]
    assert data.side["user_zip"].tolist() == [""]


def test_an_import_copies_what_is_needed_and_records_digests(tmp_path):
    imported(tmp_path, "csv")
    raw = tmp_path / "root" / "raw" / "ml-csv"
    assert {path.name for path in raw.iterdir()} == {"ratings.csv", "movies.csv", "README.txt", "source.json"}
    source = json.loads((raw / "source.json").read_text())
    assert source["files"]["ratings.csv"]["bytes"] == len(CSV["ratings.csv"])
    assert len(source["files"]["movies.csv"]["sha256"]) == 64
    assert source["from"] == str(tmp_path / "download")


def test_an_import_from_an_archive(tmp_path):
    folder = released(tmp_path, "csv")
    archive = tmp_path / "any.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (folder / "ml-csv").iterdir():
            file.write(path, f"ml-csv/{path.name}")
    said = []
    config = config_of("csv", digest="md5:0e33842e24a9c977be4e0107933c0723")
    open_source(config, tmp_path / "root").import_from(archive, said.append)
    assert as_training(load(config, tmp_path / "root", quiet)) == {1: [2, 10], 3: [2]}
    assert any("is not the published one" in line for line in said)


def test_importing_again_replaces_and_is_prepared_anew(tmp_path):
    first = imported(tmp_path, "csv")
    source = open_source(config_of("csv"), tmp_path / "root")
    (tmp_path / "download" / "ml-csv" / "ratings.csv").write_text(CSV["ratings.csv"] + "4,2,1,1\n")
    source.import_from(tmp_path / "download", quiet)
    second = load(config_of("csv"), tmp_path / "root", quiet)
    assert second.num_users == first.num_users + 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"ratings.csv": None}, "ratings.csv not found"),
        ({"ratings.csv": "user,movie,rating,time\n1,2,3,4\n"}, "no column called 'userId'"),
        ({"ratings.csv": ""}, "is empty"),
        ({"movies.csv": "movieId,title,genres\nx,Title,War\n"}, "not as this release lays it out"),
    ],
)
def test_what_is_not_laid_out_as_published_is_not_imported(tmp_path, changes, what):
    with pytest.raises(DataError, match=what):
        imported(tmp_path, "csv", **changes)
    assert not (tmp_path / "root" / "raw" / "ml-csv").exists()


def test_importing_nothing_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        open_source(config_of("csv"), tmp_path).import_from(tmp_path / "nowhere", quiet)


@pytest.mark.parametrize(
    ("layout", "line", "what"),
    [
        ("csv", "0,2,3,4", "is below 1"),
        ("csv", "-1,2,3,4", "is below 1"),
        ("csv", "1,2,3,-4", "is below 0"),
        ("dat", "1::2::3", "has 3 columns instead of 4"),
        ("dat", "1:2:3:4", "has 1 columns instead of 4"),
        ("dat", "1:x:2::3::4", "has 3 columns instead of 4"),
        ("tab", "1\t2\tgood\t4", "is not a number"),
    ],
)
def test_a_malformed_rating_is_named_by_its_line(tmp_path, layout, line, what):
    name = {"csv": "ratings.csv", "dat": "ratings.dat", "tab": "u.data"}[layout]
    text = LAYOUTS[layout][0][name] + line + "\n"
    with pytest.raises(DataError, match=what) as caught:
        imported(tmp_path, layout, **{name: text})
    assert f"line {5 if layout == 'csv' else 4}" in caught.value.where


def test_a_malformed_line_of_users_is_named(tmp_path):
    with pytest.raises(DataError, match="not as this release") as caught:
        imported(tmp_path, "dat", **{"users.dat": DAT["users.dat"] + "5::X::1::2::3\n"})
    assert "users.dat, line 4" in caught.value.where


def test_verify_finds_a_changed_raw_file(tmp_path):
    imported(tmp_path, "csv")
    raw = open_source(config_of("csv"), tmp_path / "root").raw
    assert raw.verify() == []
    (raw.folder / "movies.csv").write_text("movieId,title,genres\n")
    assert [line.split("/")[-1] for line in raw.verify()] == [
        "movies.csv is missing or differs from its sha256"
    ]
