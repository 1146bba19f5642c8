"""Downloads from a server on this machine: resumed, checked, from the next source where one fails."""

import hashlib
import http.server
import io
import json
import threading
import zipfile
from types import SimpleNamespace

import pytest
from data_helpers import as_training, quiet

from effrec_cli.data import fetch as fetching
from effrec_cli.data.fetch import Remote, fetch
from effrec_cli.data.load import load, open_source
from effrec_cli.errors import ConfigError, DataError, EnvironmentFault
from effrec_cli.schema.dataset_base import FilterConfig
from effrec_cli.schema.dataset_movielens import MovieLensConfig

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` and notes each request's path and Range."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.ranges, self.break_after = {}, [], True, None

    def url(self, name):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        wanted = self.headers.get("Range")
        server.requests.append((name, wanted))
        if name not in server.files:
            self.send_error(404)
            return
        body, start = server.files[name], 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop, server.break_after = server.break_after, None
        self.wfile.write(body[start:] if stop is None else body[start : start + stop])
        if stop is not None:
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        running.files["data.zip"] = CONTENT
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def remote(*urls, size=SIZE, digest=SHA, **keywords):
    return Remote("demo", urls, size, digest, **keywords)


def test_a_file_is_fetched_checked_and_moved_into_place(server, tmp_path):
    said = []
    fetch(remote(server.url("data.zip"), license="cite them"), tmp_path / "new" / "got", said.append)
    assert (tmp_path / "new" / "got").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["got"]
    assert "cite them" in said[0]
    assert "0.0 MB" in said[0]


def test_a_part_is_gone_on_with(server, tmp_path):
    (tmp_path / "got.part").write_bytes(CONTENT[:1000])
    fetch(remote(server.url("data.zip")), tmp_path / "got", quiet)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert server.requests == [("data.zip", "bytes=1000-")]


def test_a_server_that_knows_no_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "got.part").write_bytes(b"something else")
    fetch(remote(server.url("data.zip")), tmp_path / "got", quiet)
    assert (tmp_path / "got").read_bytes() == CONTENT


def test_a_wrong_part_is_thrown_away_and_fetched_anew(server, tmp_path):
    (tmp_path / "got.part").write_bytes(b"x" * 1000)
    fetch(remote(server.url("data.zip")), tmp_path / "got", quiet)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


def test_a_part_that_is_whole_already_needs_no_byte_more(server, tmp_path):
    (tmp_path / "got.part").write_bytes(CONTENT)
    fetch(remote(server.url("data.zip")), tmp_path / "got", quiet)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert server.requests == [("data.zip", f"bytes={len(CONTENT)}-")]


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server.break_after = 3000
    fetch(remote(server.url("data.zip")), tmp_path / "got", quiet)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=3000-"]


def test_without_a_digest_a_broken_connection_starts_over(server, tmp_path):
    server.break_after = 3000
    fetch(remote(server.url("data.zip"), digest=None), tmp_path / "got", quiet)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, None]


def test_the_second_source_is_asked_where_the_first_fails(server, tmp_path):
    server.files["other"] = CONTENT[:-1] + b"!"
    urls = [server.url("absent"), "ftp://127.0.0.1/data.zip", server.url("other"), server.url("data.zip")]
    fetch(remote(*urls), tmp_path / "got", quiet)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert [name for name, _ in server.requests] == ["absent", "other", "data.zip"]


@pytest.mark.parametrize(
    ("body", "size", "digest", "why"),
    [
        (None, len(CONTENT), SHA, "404"),
        (CONTENT[:-1], len(CONTENT), SHA, "offers 10,239 bytes instead of 10,240"),
        (CONTENT[:-1] + b"!", len(CONTENT), SHA, "digest is sha256:"),
        (CONTENT[:-1] + b"!", None, "md5:" + "0" * 32, "digest is md5:"),
    ],
)
def test_what_no_source_delivers_is_a_data_error_with_the_import_command(
    server, tmp_path, body, size, digest, why
):
    server.files = {} if body is None else {"data.zip": body}
    with pytest.raises(DataError) as caught:
        fetch(remote(server.url("data.zip"), size=size, digest=digest), tmp_path / "got", quiet)
    assert why in caught.value.where
    assert server.url("data.zip") in caught.value.where
    assert "effrec data import demo FILE" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_a_data_error(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch(remote("http://127.0.0.1:9/data.zip"), tmp_path / "got", quiet)


def test_a_digest_of_an_unknown_kind_is_a_config_error(server, tmp_path):
    with pytest.raises(ConfigError, match="md5:HEX"):
        fetch(remote(server.url("data.zip"), digest="crc:1"), tmp_path / "got", quiet)


def test_too_little_disk_is_told_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(EnvironmentFault, match="disk has"):
        fetch(remote(server.url("data.zip")), tmp_path / "got", quiet)
    assert server.requests == []


def test_a_long_download_says_how_far_it_is_and_how_long_it_will_take(server, tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(fetching.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(fetching, "_CHUNK_BYTES", 2000)
    monkeypatch.setattr(fetching, "megabytes", str)
    said = []
    fetch(remote(server.url("data.zip")), tmp_path / "got", said.append)
    assert [line for line in said if "left" in line][:2] == [
        "  4000 at 0.0 MB/s, 12 s left",
        "  8000 at 0.0 MB/s, 4 s left",
    ]


def archive():
    buffer = io.BytesIO()
    files = {
        "ml/ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,50\n1,2,0.5,40\n",
        "ml/movies.csv": "movieId,title,genres\n2,Two,War\n10,Ten,War\n",
    }
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in files.items():
            file.writestr(zipfile.ZipInfo(name), text)  # of a fixed date: the same bytes each time
    return buffer.getvalue()


def movielens(server, **keywords):
    filters = FilterConfig(min_user_count=1)
    urls = [server.url("ml.zip")]
    return MovieLensConfig(
        name="ml", family="movielens", urls=urls, filter=filters, license="theirs", **keywords
    )


def test_loading_fetches_unpacks_prepares_and_records_the_digest(server, tmp_path):
    server.files["ml.zip"] = archive()
    said = []
    data = load(movielens(server), tmp_path, said.append)
    assert as_training(data) == {1: [2, 10]}
    digest = "sha256:" + hashlib.sha256(archive()).hexdigest()
    assert any(f"recorded on first use: {digest}" in line for line in said)
    assert json.loads((tmp_path / "recorded.json").read_text()) == {"ml": digest}
    assert not (tmp_path / "raw" / "ml.archive").exists()
    load(movielens(server), tmp_path, quiet)
    assert len(server.requests) == 1


def test_a_later_download_must_be_what_was_recorded(server, tmp_path):
    server.files["ml.zip"] = archive()
    source = open_source(movielens(server), tmp_path)
    source.ensure(quiet)
    (source.raw.folder / "ratings.csv").unlink()
    server.files["ml.zip"] = archive() + b"\0"
    with pytest.raises(DataError) as caught:
        source.ensure(quiet)
    assert "digest is sha256:" in caught.value.where


def test_an_archive_cut_short_that_no_digest_guards(server, tmp_path):
    server.files["ml.zip"] = archive()[:-30]
    with pytest.raises(DataError, match="damaged or cut short"):
        load(movielens(server), tmp_path, quiet)
    assert not (tmp_path / "raw" / "ml").exists()
    server.files["ml.zip"] = archive()
    assert load(movielens(server), tmp_path, quiet).num_users == 1
