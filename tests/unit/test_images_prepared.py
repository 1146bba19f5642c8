"""Images beside prepared data: which rule does what, what is told, and which prepared folder is whose."""

import csv
import dataclasses
import json
import os

import numpy as np
import pytest
from data_helpers import as_training, quiet
from image_helpers import RED, broken, colours, encoded, folder_of, parquet_of, picture, table, tar_of

from effrec_cli import early
from effrec_cli.compose import compose
from effrec_cli.data import cache, fetch
from effrec_cli.data.contents import contents_of
from effrec_cli.data.images import fill, items
from effrec_cli.data.load import load, load_prepared, open_source, prepared_folder
from effrec_cli.errors import ConfigError, DataError, EnvironmentFault
from effrec_cli.schema.dataset_base import FilterConfig
from effrec_cli.schema.dataset_movielens import MovieLensConfig

GREEN, BLACK = (0, 255, 0), (0, 0, 0)
SOUND = {"1.png": encoded(picture()), "sub/2.jpg": encoded(picture(colour=GREEN))}
BAD = {**SOUND, "3.png": broken()["cut png"][0], "4.png": broken()["bomb"][0]}


def prepared(tmp_path, config, say=quiet):
    return load(config, tmp_path / "root", say)


def listed(folder):
    with (folder / "bad_images.tsv").open(newline="") as handle:
        return {row["item"]: (row["kind"], row["what"]) for row in csv.DictReader(handle, delimiter="\t")}


@pytest.mark.parametrize("place", ["folder", "tar", "parquet"])
def test_images_lie_beside_the_items_wherever_they_were_kept(tmp_path, place):
    if place == "parquet":
        path = parquet_of(tmp_path / "i.parquet", [2, 1, 77], [SOUND["sub/2.jpg"], SOUND["1.png"], b"?"])
    else:
        path = folder_of(tmp_path / "i", SOUND) if place == "folder" else tar_of(tmp_path / "i.tar", SOUND)
    data = prepared(tmp_path, table(tmp_path, [1, 2], path))
    assert colours(data) == {1: RED, 2: GREEN}
    images = data.side["item_images"]
    assert (images.shape, images.dtype) == ((2, 8, 8, 3), np.uint8)
    assert isinstance(images.base, np.memmap)
    assert contents_of(data).images is images
    assert cache.verify(data.folder) == []
    assert not (data.folder / "bad_images.tsv").exists()


def test_items_and_images_are_matched_by_id_in_whatever_order_they_come(tmp_path):
    names = [f"i{n}" for n in range(40)]
    shades = {name: (n * 5, 255 - n, 7) for n, name in enumerate(names)}
    files = {f"{name}.png": encoded(picture(colour=shade)) for name, shade in reversed(shades.items())}
    data = prepared(tmp_path, table(tmp_path, names[::-1], tar_of(tmp_path / "i.tar", files)))
    assert colours(data) == shades


def test_the_array_is_what_numpy_would_have_saved(tmp_path):
    data = prepared(tmp_path, table(tmp_path, [1, 2], folder_of(tmp_path / "i", SOUND)))
    np.save(tmp_path / "again.npy", np.array(data.side["item_images"]))
    written = data.folder / "side.item_images.npy"
    assert written.read_bytes() == (tmp_path / "again.npy").read_bytes()


def test_error_says_how_many_which_and_where_all_are(tmp_path):
    config = table(tmp_path, range(1, 7), folder_of(tmp_path / "i", BAD))
    with pytest.raises(DataError, match="4 of 6 items have no usable image") as caught:
        prepared(tmp_path, config)
    assert (
        "2 without one, 1 with one that cannot be decoded, 1 with one that is too large" in caught.value.what
    )
    assert "'3': 3.png cannot be decoded" in caught.value.where
    assert "'4': 4.png has more than 50,000,000 pixels" in caught.value.where
    assert "zero makes them black" in caught.value.fix
    with (tmp_path / "root" / "bad_images" / "t.tsv").open() as handle:
        assert [line.split("\t")[0] for line in handle] == ["item", "3", "4", "5", "6"]
    assert list((tmp_path / "root" / "prepared").glob("t-*")) == []


def test_zero_makes_them_black_and_names_them_in_the_folder(tmp_path):
    said = []
    config = table(tmp_path, range(1, 6), folder_of(tmp_path / "i", BAD), bad_images="zero")
    data = prepared(tmp_path, config, said.append)
    assert colours(data) == {1: RED, 2: GREEN, 3: BLACK, 4: BLACK, 5: BLACK}
    assert {item: kind for item, (kind, _) in listed(data.folder).items()} == {
        "3": "damaged",
        "4": "too_large",
        "5": "missing",
    }
    assert data.stats["reader"] == {
        "images": 2,
        "images_damaged": 1,
        "images_missing": 1,
        "images_too_large": 1,
    }
    assert any("3 items without a usable image are black" in line for line in said)


def test_drop_leaves_items_and_rows_out_before_filters_count(tmp_path):
    config = table(
        tmp_path,
        range(1, 6),
        folder_of(tmp_path / "i", BAD),
        bad_images="drop",
        filter=FilterConfig(min_user_count=2),
    )
    (tmp_path / "log.csv").write_text("user,item\n1,1\n1,3\n2,1\n2,2\n2,5\n3,4\n")
    data = prepared(tmp_path, config)
    assert colours(data) == {1: RED, 2: GREEN}
    assert data.users.ids.tolist() == [2], "user 1 has one row left, user 3 none"
    assert as_training(data) == {2: [1, 2]}
    assert data.stats["dropped"]["bad_images"] == 3
    assert data.stats["dropped"]["users_below_min_user_count"] == 1
    assert set(listed(data.folder)) == {"3", "4", "5"}
    assert [path.name for path in (tmp_path / "root" / "prepared").iterdir() if "tmp" in path.name] == []


def test_drop_that_leaves_no_row_says_so(tmp_path):
    config = table(tmp_path, [1, 3], folder_of(tmp_path / "i", BAD), bad_images="drop")
    (tmp_path / "log.csv").write_text("user,item\n1,1\n1,3\n2,3\n")
    config.filter.min_user_count = 2
    with pytest.raises(DataError, match="of items without a usable image") as caught:
        prepared(tmp_path, config)
    assert "bad_images=zero" in caught.value.fix


@pytest.mark.parametrize("rule", ["error", "zero", "drop"])
def test_names_that_fit_no_item_are_an_error_under_every_rule(tmp_path, rule):
    path = folder_of(tmp_path / "i", {"img_1.png": SOUND["1.png"]})
    with pytest.raises(DataError, match="None of the items has an image") as caught:
        prepared(tmp_path, table(tmp_path, [1, 2], path, bad_images=rule))
    assert "'img_1'" in caught.value.where
    assert "'1', '2'" in caught.value.where


def test_prepared_data_without_images_keep_their_key(tmp_path):
    config = table(tmp_path, [1, 2], None, image_size=224)
    source = open_source(config, tmp_path / "root")
    assert set(source.fingerprint()) == {"files", "reading"}
    named = {path.name for path in (prepared(tmp_path, config)).folder.iterdir()}
    assert not {name for name in named if "image" in name}


def test_the_key_of_data_without_images_is_the_one_of_before_there_were_any(tmp_path):
    (tmp_path / "l.csv").write_text("u,i,t\n1,2,3\n")
    config = compose(["dataset=table", f"dataset.path={tmp_path}/l.csv"]).dataset
    source = open_source(config, tmp_path / "root")
    assert prepared_folder(config, tmp_path / "root", source).name == "table-6746d4f92794"


def test_each_setting_of_images_and_each_content_has_its_folder(tmp_path):
    config = table(tmp_path, [1, 2], folder_of(tmp_path / "i", SOUND))
    changes = [{}, {"image_size": 9}, {"bad_images": "zero"}, {"images": None, "image_size": 224}]

    def folder(change):
        changed = dataclasses.replace(config, **change)
        return prepared_folder(changed, tmp_path / "root", open_source(changed, tmp_path / "root")).name

    found = [folder(change) for change in changes]
    (tmp_path / "i" / "1.png").write_bytes(SOUND["sub/2.jpg"])
    found.append(folder({}))
    assert len(set(found)) == len(found)


def test_images_that_change_while_they_are_read_are_refused(tmp_path, monkeypatch):
    config = table(tmp_path, [1, 2], folder_of(tmp_path / "i", SOUND))

    def change(*args):
        (tmp_path / "i" / "1.png").write_bytes(SOUND["sub/2.jpg"])
        return fill.fill_rows(*args)

    monkeypatch.setattr(items, "fill_rows", change)
    with pytest.raises(DataError, match="changed while they were read"):
        prepared(tmp_path, config)


@pytest.mark.parametrize(("rule", "times"), [("zero", 1), ("drop", 2)])
def test_too_little_disk_is_told_before_an_image_is_decoded(tmp_path, monkeypatch, rule, times):
    config = table(tmp_path, [1, 2], folder_of(tmp_path / "i", SOUND), image_size=1024, bad_images=rule)
    needed = times * 2 * 1024 * 1024 * 3
    usage = type("usage", (), {"free": needed - 1})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(fill, "decode", lambda *args: 1 / 0)
    with pytest.raises(EnvironmentFault, match="the disk has"):
        prepared(tmp_path, config)


def test_a_disk_that_fills_up_is_told(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        prepared(tmp_path, table(tmp_path, [1, 2], folder_of(tmp_path / "i", SOUND)))
    assert list((tmp_path / "root" / "prepared").glob("t-*")) == []


def test_settings_of_images_without_images_are_refused_early(tmp_path):
    overrides = ["dataset=ml-latest-small", f"data_root={tmp_path}"]
    for setting in ("image_size=64", "bad_images=drop", "image_item=id"):
        with pytest.raises(ConfigError, match="no images are named"):
            early.refuse_early(compose([*overrides, f"dataset.{setting}"]))
    with pytest.raises(ConfigError, match="no such file or folder"):
        early.refuse_early(compose([*overrides, f"dataset.images={tmp_path}/none"]))


def test_what_an_older_effrec_prepared_opens(tmp_path):
    data = prepared(tmp_path, table(tmp_path, [1, 2], folder_of(tmp_path / "i", SOUND)))
    manifest = json.loads((data.folder / "manifest.json").read_text())
    assert manifest["recipe"]["raw"]["images"]["size"] == 8
    assert load_prepared(data.folder).side["item_images"].shape == (2, 8, 8, 3)


def test_posters_of_movies(tmp_path):
    release = tmp_path / "ml"
    release.mkdir()
    ratings = "".join(f"1,{movie},3,{movie}\n" for movie in (2, 10, 30))
    (release / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    (release / "movies.csv").write_text("movieId,title,genres\n2,Two,War\n10,Ten,War\n30,Thirty,War\n")
    posters = parquet_of(
        tmp_path / "p.parquet", [30, 10], [SOUND["1.png"], SOUND["sub/2.jpg"]], key="movieId"
    )
    config = MovieLensConfig(
        name="ml", family="movielens", images=str(posters), image_size=4, bad_images="drop"
    )
    config.filter.min_user_count = 1
    open_source(config, tmp_path / "root").import_from(release, quiet)
    data = prepared(tmp_path, config)
    assert colours(data) == {10: GREEN, 30: RED}, "the first movie has no poster"
    assert data.items.titles.tolist() == ["Ten", "Thirty"]
    assert data.side["item_genres"].shape == (2, 1)
    assert data.stats["reader"] == {"images": 2, "images_missing": 1}


def test_progress_is_said_now_and_then(monkeypatch):
    said, now = [], iter(range(100))
    progress = fill._Progress(said.append, 50, clock=lambda: next(now))
    for _ in range(12):
        progress.add()
    assert said == [
        "  5 images of 50 items decoded, 1 images/s",
        "  10 images of 50 items decoded, 1 images/s",
    ]
