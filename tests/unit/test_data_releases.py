"""One MovieLens release is not taken for another."""

import re
import tarfile
import zipfile

import pytest
from data_helpers import quiet
from test_data_movielens import LAYOUTS

from effrec_cli.compose import compose
from effrec_cli.data import movielens_releases
from effrec_cli.data.load import open_source
from effrec_cli.data.movielens import LAYOUTS as READERS
from effrec_cli.data.movielens_releases import RELEASES, Release, count_ratings
from effrec_cli.errors import DataError
from effrec_cli.paths import conf_dir

YAMLS = {path.stem: path for path in (conf_dir() / "dataset").glob("ml-*.yaml")}


def test_every_release_with_a_yaml_is_known_and_no_other():
    assert set(RELEASES) == set(YAMLS)


@pytest.mark.parametrize("name", RELEASES)
def test_counts_and_files_are_those_of_the_yaml(name):
    counted = re.match(r"# MovieLens: ([\d,]+) ratings", YAMLS[name].read_text())
    assert int(counted[1].replace(",", "")) == RELEASES[name].ratings
    reader = READERS[compose([f"dataset={name}"]).dataset.layout]
    assert {reader.ratings, reader.items} <= RELEASES[name].files


def put(folder, layout, **changes):
    files, encoding = LAYOUTS[layout]
    folder.mkdir(parents=True)
    for name, text in {**files, **changes}.items():
        if text is not None:
            (folder / name).write_bytes(text.encode(encoding))
    return folder


def packed(folder, kind):
    if kind == "folder":
        return folder
    path = folder.parent / f"any.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for each in folder.iterdir():
                file.write(each, f"inside/{each.name}")
    else:
        with tarfile.open(path, "w:gz") as file:
            file.add(folder, "inside")
    return path


def refused(name, path, tmp_path):
    source = open_source(compose([f"dataset={name}"]).dataset, tmp_path / "root")
    with pytest.raises(DataError) as caught:
        source.import_from(path, quiet)
    assert not source.raw.folder.exists()
    return caught.value


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
@pytest.mark.parametrize(
    ("layout", "changes", "looks"),
    [("dat", {}, "ml-1m"), ("dat", {"users.dat": None}, "ml-10m"), ("tab", {}, "ml-100k")],
)
def test_files_of_another_layout_name_the_release_they_look_like(tmp_path, layout, changes, looks, kind):
    path = packed(put(tmp_path / "x", layout, **changes), kind)
    error = refused("ml-20m", path, tmp_path)
    assert error.what == f"This is not ml-20m: ratings.csv and movies.csv not found; it looks like {looks}."
    assert error.fix == f"effrec data import {looks} {path}"


def test_a_layout_of_several_releases_names_them_all(tmp_path):
    error = refused("ml-1m", put(tmp_path / "x", "csv"), tmp_path)
    assert "it looks like ml-latest-small or ml-20m or ml-25m or ml-32m" in error.what
    assert "ratings.dat, movies.dat" in error.fix


def test_files_of_nothing_known_look_like_nothing(tmp_path):
    (tmp_path / "x").mkdir()
    assert "looks like" not in refused("ml-1m", tmp_path / "x", tmp_path).what


def test_the_number_of_ratings_of_another_release_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(RELEASES, "ml-latest-small", Release(RELEASES["ml-20m"].files, 3))
    error = refused("ml-20m", put(tmp_path / "x", "csv"), tmp_path)
    assert error.what == "These are the 3 ratings of ml-latest-small, not the 20,000,263 of ml-20m."
    assert error.fix == "effrec data import ml-latest-small PATH"


def test_a_number_of_ratings_that_no_release_has_is_noted(tmp_path):
    said = []
    source = open_source(compose(["dataset=ml-20m"]).dataset, tmp_path / "root")
    source.import_from(put(tmp_path / "x", "csv"), said.append)
    assert source.raw.present
    assert "note: 3 ratings, but ml-20m is published with 20,000,263" in said[-1]


def test_the_right_number_is_worth_no_word(tmp_path, monkeypatch):
    monkeypatch.setitem(RELEASES, "ml-20m", Release(RELEASES["ml-20m"].files, 3))
    said = []
    open_source(compose(["dataset=ml-20m"]).dataset, tmp_path / "root").import_from(
        put(tmp_path / "x", "csv"), said.append
    )
    assert not [line for line in said if "note" in line]


@pytest.mark.parametrize(("text", "count"), [("h\n1\n2\n", 2), ("h\n1\n2", 2), ("h\r\n1\r\n", 1), ("h\n", 0)])
def test_ratings_are_counted_by_their_lines(tmp_path, monkeypatch, text, count):
    monkeypatch.setattr(movielens_releases, "_CHUNK_BYTES", 2)
    (tmp_path / "r").write_bytes(text.encode())
    assert count_ratings(tmp_path / "r", header=True) == count
    assert count_ratings(tmp_path / "r", header=False) == count + 1
