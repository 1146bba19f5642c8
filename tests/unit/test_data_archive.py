"""Archives are unpacked within bounds."""

import io
import stat
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from effrec_cli.data import archive as archives
from effrec_cli.data.archive import unpack
from effrec_cli.errors import DataError, EnvironmentFault


def wanted(name):
    return name.endswith(".csv")


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def tarred(path, files):
    with tarfile.open(path, "w:gz") as file:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("make", [zipped, tarred])
def test_wanted_files_come_out_flat_and_others_stay(tmp_path, target, make):
    files = {"top/a.csv": b"1", "top/deep/b.csv": b"22", "top/deep/a.csv": b"no", "top/c.txt": b"no"}
    assert unpack(make(tmp_path / "x", files), target, wanted) == ["a.csv", "b.csv"]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"a.csv": b"1", "b.csv": b"22"}


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../a.csv", "/etc/a.csv", "ok/../../a.csv", "C:\\a.csv", "..\\a.csv", "\\\\host\\share\\a.csv"]
)
def test_a_path_that_leads_outside_refuses_the_archive(tmp_path, target, make, name):
    with pytest.raises(DataError, match="not unpacked") as caught:
        unpack(make(tmp_path / "x", {"good.csv": b"1", name: b"2"}), target, wanted)
    assert "leads outside" in caught.value.where
    assert list(target.iterdir()) == []


def test_links_and_devices_refuse_the_archive(tmp_path, target):
    linked = zipfile.ZipInfo("a.csv")
    linked.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(linked, "/etc/passwd")
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
    for kind in kinds:
        with tarfile.open(tmp_path / f"{kind!r}.tar", "w") as file:
            entry = tarfile.TarInfo("a.csv")
            entry.type, entry.linkname = kind, "/etc/passwd"
            file.addfile(entry)
    for path in [tmp_path / "x.zip", *(tmp_path / f"{kind!r}.tar" for kind in kinds)]:
        with pytest.raises(DataError) as caught:
            unpack(path, target, wanted)
        assert "link or a device" in caught.value.where


def test_too_many_entries(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    path = zipped(tmp_path / "x.zip", {f"{n}.csv": b"" for n in range(4)})
    with pytest.raises(DataError) as caught:
        unpack(path, target, wanted)
    assert "4 entries" in caught.value.where


def test_too_many_bytes(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    path = zipped(tmp_path / "x.zip", {"a.csv": b"0" * 600, "b.txt": b"0" * 600})
    with pytest.raises(DataError) as caught:
        unpack(path, target, wanted)
    assert "GiB" in caught.value.where


def test_an_entry_larger_than_it_says(tmp_path, target):
    path = zipped(tmp_path / "x.zip", {"a.csv": b"0" * 5000})
    content = path.read_bytes()
    lying = content.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    assert lying != content
    path.write_bytes(lying)
    with pytest.raises(DataError):
        unpack(path, target, wanted)
    assert sum(file.stat().st_size for file in target.iterdir()) <= 5000


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_an_archive_cut_short_is_told_apart(tmp_path, target, make, keep):
    noise = bytes((n * n * 31 + n) % 251 for n in range(20000))
    path = make(tmp_path / "x", {"a.csv": noise, "b.csv": noise[::-1]})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match="damaged or cut short") as caught:
        unpack(path, target, wanted)
    kind = "zip" if make is zipped else "tar.gz"
    assert caught.value.what == f"This {kind} archive is damaged or cut short."
    assert caught.value.where == f"{path} ({path.stat().st_size:,} bytes)", "nothing of a library's own words"
    assert "get the file again" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<html>Please log in</html>", "This is no zip or tar archive; it looks like a web page."),
        (b"\n <!doctype html>", "This is no zip or tar archive; it looks like a web page."),
        (b"user,item\n1,2\n", "This is no zip or tar archive."),
        (b"", "This is no zip or tar archive."),
        (b"BZh91AY&SY junk", "This tar.bz2 archive is damaged or cut short."),
        (b"\xfd7zXZ\0 junk", "This tar.xz archive is damaged or cut short."),
    ],
)
def test_what_is_no_archive(tmp_path, target, content, what):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        unpack(path, target, wanted)
    assert caught.value.what == what
    assert caught.value.where == f"{path} ({len(content)} bytes)"


def test_a_plain_tar_cut_short_is_told_apart(tmp_path, target):
    whole = tmp_path / "whole.tar"
    with tarfile.open(whole, "w") as file:
        info = tarfile.TarInfo("a.csv")
        info.size = 5000
        file.addfile(info, io.BytesIO(b"0" * 5000))
    path = tmp_path / "x.tar"
    path.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(DataError, match="This tar archive is damaged or cut short"):
        unpack(path, target, wanted)


def test_a_password_is_named(tmp_path, target):
    path = zipped(tmp_path / "x.zip", {"a.csv": b"0" * 600})
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="locked by a password") as caught:
        unpack(path, target, wanted)
    assert "import the folder" in caught.value.fix


def test_a_disk_that_cannot_be_read_is_no_damaged_archive(tmp_path, target, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = zipped(tmp_path / "x.zip", {"a.csv": b"0" * 600})
    monkeypatch.setattr("effrec_cli.data.archive.zipfile.ZipFile", refuse)
    with pytest.raises(PermissionError):
        unpack(path, target, wanted)


def test_a_full_disk_is_no_damaged_archive(tmp_path, target, monkeypatch):
    path = zipped(tmp_path / "x.zip", {"a.csv": b"0" * 600})
    monkeypatch.setattr("effrec_cli.data.fetch.shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(EnvironmentFault, match="disk has"):
        unpack(path, target, wanted)
