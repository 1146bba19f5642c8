"""Images in folders, tars and parquet: found by item, held one at a time, and what is refused."""

import io
import os
import tarfile

import pyarrow as pa
import pytest
from image_helpers import encoded, folder_of, parquet_of, picture, tar_of

from effrec_cli.data.images.decode import BadImageError
from effrec_cli.data.images.fill import fill_rows
from effrec_cli.data.images.found import name_of
from effrec_cli.data.images.rowfile import array_file
from effrec_cli.data.images.stores import open_store
from effrec_cli.errors import ConfigError, DataError

PNG = encoded(picture(2, 2))
FILES = {"a.png": b"1", "in/side/b.JPG": b"2", "c.d.webp": b"3", "notes.txt": b"x", "._a.png": b"mac"}


def read(store):
    """Returns all images by name, through a row for each name."""
    names = sorted(set(store.names()))
    return {names[found.row]: found.read() for found in store.images(lambda name: names.index(name))}


@pytest.mark.parametrize("place", ["folder", "tar", "tar.gz", "tar.xz"])
def test_files_are_named_by_item(tmp_path, place):
    if place == "folder":
        path = folder_of(tmp_path / "images", FILES)
    else:
        path = tar_of(tmp_path / f"images.{place}", FILES, f"w:{place.partition('.')[2]}")
    found = read(open_store(path, ()))
    assert found == {"a": b"1", "b": b"2", "c.d": b"3", "._a": b"mac"}


def test_names_of_images():
    assert name_of("x/17.jpeg") == "17"
    assert name_of("x/17") is name_of("17.gif") is name_of(".jpg") is None


def test_a_parquet_of_bytes(tmp_path):
    path = parquet_of(tmp_path / "i.parquet", [3, 1, None], [b"x", b"y", b"z"], key="movieId")
    rows = {"3": 0, "1": 1, "None": 2}
    found = [(f.row, f.read()) for f in open_store(path, ("movieId",)).images(lambda name: rows[name])]
    assert found == [(0, b"x"), (1, b"y")]


def test_a_parquet_as_hugging_face_datasets_write_it(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": b"x", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    path = parquet_of(tmp_path / "i.parquet", ["a", "b"], rows, kind=kind, column="picture")
    found = list(open_store(path, ("item",)).images({"a": 0, "b": 1}.get))
    assert found[0].read() == b"x"
    with pytest.raises(BadImageError, match="is empty"):
        found[1].read()


def test_whole_numbers_that_pandas_wrote_as_floats_are_the_same_ids(tmp_path):
    path = parquet_of(tmp_path / "i.parquet", [3.0, None], [b"x", b"y"])
    assert [found.read() for found in open_store(path, ("item",)).images({"3": 0}.get)] == [b"x"]


def test_a_folder_of_parquet_is_read_file_by_file(tmp_path):
    for number in range(3):
        parquet_of(tmp_path / f"{number}.parquet", [f"i{number}"], [b"%d" % number])
    assert read(open_store(tmp_path, ("item",))) == {"i0": b"0", "i1": b"1", "i2": b"2"}


def test_which_column_is_which(tmp_path):
    path = parquet_of(tmp_path / "i.parquet", ["a"], [b"x"], key="itemid")
    with pytest.raises(DataError, match="no column of item ids") as caught:
        list(open_store(path, ("item_id",)).images(lambda name: 0))
    assert (caught.value.nearest, caught.value.fix) == ("itemid", "dataset.image_item=COLUMN")
    text = parquet_of(tmp_path / "t.parquet", ["a"], ["x"], kind=pa.string())
    with pytest.raises(DataError, match="No column is bytes"):
        list(open_store(text, ("item",)).images(lambda name: 0))


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_cut_tar_is_refused(tmp_path, suffix):
    big = {f"{n}.png": os.urandom(4000) for n in range(20)}
    path = tar_of(tmp_path / f"i.{suffix}", big, f"w:{suffix.partition('.')[2]}")
    path.write_bytes(path.read_bytes()[:30_100])
    with pytest.raises(DataError, match="cut short"):
        read(open_store(path, ()))


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "C:\\a.png", "..\\a.png"])
def test_a_tar_with_a_path_that_leads_outside_is_refused(tmp_path, name):
    path = tar_of(tmp_path / "i.tar", {"b.png": b"1", name: b"2"})
    with pytest.raises(DataError, match="not read") as caught:
        list(open_store(path, ()).names())
    assert "leads outside" in caught.value.where


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_with_a_link_or_a_device_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "i.tar", "w") as file:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info, io.BytesIO(b""))
    with pytest.raises(DataError, match="not read"):
        list(open_store(tmp_path / "i.tar", ()).names())


def test_a_tar_does_not_keep_its_entries(tmp_path):
    path = tar_of(tmp_path / "i.tar", {f"{n}.png": b"x" for n in range(50)})
    store = open_store(path, ())
    with store._opened() as file:
        kept = [len(file.members) for _ in store._entries(file)]
    assert len(kept) == 50
    assert max(kept) <= 2


def test_pipes_and_dangling_links_in_a_folder_are_passed_by(tmp_path):
    folder = folder_of(tmp_path / "images", {"a.png": b"1"})
    os.mkfifo(folder / "b.png")
    (folder / "c.png").symlink_to(folder / "nowhere.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert read(open_store(folder, ())) == {"a": b"1"}


def test_a_folders_digest_is_of_its_contents_and_remembered(tmp_path, monkeypatch):
    folder, root = folder_of(tmp_path / "images", FILES), tmp_path / "root"
    first = open_store(folder, ()).digest(root)
    os.utime(folder / "a.png", (1, 1))
    assert open_store(folder, ()).digest(root) == first
    (folder / "notes.txt").write_bytes(b"changed")
    assert open_store(folder, ()).digest(root) == first
    monkeypatch.setattr("hashlib.file_digest", lambda *args: 1 / 0)
    assert open_store(folder, ()).digest(root) == first, "known, so that nothing is hashed"
    monkeypatch.undo()
    (folder / "a.png").rename(folder / "aa.png")
    assert open_store(folder, ()).digest(root) != first, "the same bytes are another item's"
    (folder / "aa.png").rename(folder / "a.png")
    assert open_store(folder, ()).digest(root) == first
    (folder / "a.png").write_bytes(b"9")
    assert open_store(folder, ()).digest(root) != first


def test_a_path_that_is_no_place_of_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        open_store(tmp_path / "nowhere", ())
    for name, data in {"a.zip": b"PK\3\4", "b.tar.gz": b"\x1f\x8b\x08", "c": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match="this is none"):
            open_store(tmp_path / name, ())


def test_two_images_of_one_item_are_told_and_black(tmp_path):
    folder = folder_of(tmp_path / "images", {"x/a.png": PNG, "y/a.jpg": PNG, "b.png": PNG})
    with array_file(tmp_path / "rows.npy", (2, 2, 2, 3)) as rows:
        bad = fill_rows(open_store(folder, ()), {"a": 0, "b": 1}, 2, rows, print)
        assert rows.read(0) == bytes(12)
        assert rows.read(1) == bytes([255, 0, 0] * 4)
    assert [(row, each.kind) for row, each in bad.items()] == [(0, "twice")]
    assert bad[0].what == "x/a.png and y/a.jpg are both named by it"


def test_accents_written_as_marks_of_their_own_are_the_same_name(tmp_path):
    folder = folder_of(tmp_path / "images", {"Ame\u0301lie.png": PNG})
    with array_file(tmp_path / "rows.npy", (1, 2, 2, 3)) as rows:
        assert fill_rows(open_store(folder, ()), {"Am\u00e9lie": 0}, 2, rows, print) == {}
