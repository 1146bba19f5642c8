"""`effrec data ls|fetch|import|describe|verify`, from the command line down."""

import json
import zipfile

import pytest

from effrec_cli.paths import conf_dir

NAMES = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))


@pytest.fixture
def release(tmp_path):
    """A folder laid out like a MovieLens release: 6 users, 6 movies, 20 ratings."""
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    ratings = [
        (u, m, 3.5, 1000 * u + m) for u in range(1, 7) for m in range(1, 7) if (u + m) % 7 and u * m != 30
    ]
    lines = [f"{u},{m},{r},{t}" for u, m, r, t in ratings[:20]]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    movies = [f'{m},"Movie {m}, the",War' for m in range(1, 7)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies, ""]))
    return folder


def test_ls_shows_every_dataset_and_its_state(effrec, release):
    by_name = {entry["name"]: entry for entry in json.loads(effrec("data", "ls", "--json").out)}
    assert sorted(by_name) == NAMES
    assert by_name["ml-20m"]["state"] == "absent"
    assert by_name["ml-20m"]["download_bytes"] == 198_702_078
    assert "GroupLens" in by_name["ml-20m"]["license"]
    assert by_name["synthetic"]["state"] == "at hand"
    assert effrec("data", "import", "ml-latest-small", str(release)).code == 0
    by_name = {entry["name"]: entry for entry in json.loads(effrec("data", "ls", "--json").out)}
    assert by_name["ml-latest-small"]["state"] == "raw"
    assert by_name["ml-latest-small"]["bytes"] > 300
    assert effrec("data", "describe", "ml-latest-small").code == 0
    shown = effrec("data", "ls").out
    assert "prepared" in next(line for line in shown.splitlines() if line.startswith("ml-latest-small"))
    assert "effrec train dataset=NAME" in shown


def test_ls_lists_a_users_own_yaml(effrec, tmp_path):
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "mine.yaml").write_text("name: mine\nfamily: table\npath: x.csv\n")
    (tmp_path / "conf" / "dataset" / "odd.yaml").write_text("name: odd\nfamily: nothing\n")
    done = effrec("data", "ls", "--json", "--config-dir", str(tmp_path / "conf"))
    by_name = {entry["name"]: entry for entry in json.loads(done.out)}
    assert by_name["mine"]["family"] == "table"
    assert by_name["odd"]["state"].startswith("broken: ")
    assert "ml-1m" in by_name


def test_import_from_an_archive_and_describe(effrec, release, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in release.iterdir():
            file.write(path, f"ml-latest-small/{path.name}")
    done = effrec("data", "import", "ml-latest-small", str(tmp_path / "x.zip"))
    assert done.code == 0
    assert "is not the published one" in done.err
    assert "effrec train dataset=ml-latest-small" in done.out
    found = json.loads(effrec("data", "describe", "ml-latest-small", "--json").out)
    assert (found["users"], found["rows"], found["duplicates"]) == (4, 20, 0)
    assert found["time"]["first"] == "1970-01-01 00:16:41"
    assert found["rows_per_user"]["mean"] == 5.0
    assert found["split"]["train_rows"] == 12
    assert found["split"]["test"]["cases"] == 4
    assert found["protocol"] == {"kind": "leave_one_out"}
    assert found["side"]["item_genres"] == {"shape": [6, 1], "dtype": "uint8"}


def test_describe_takes_overrides_and_shows_what_was_dropped(effrec, tmp_path):
    rows = "".join(f"u{u},i{i},{i}\n" for u in range(4) for i in range(4 + u))
    (tmp_path / "log.csv").write_text("who,what,stars\n" + rows + "u9,i0,bad\nu9,i0,1\n")
    columns = ["dataset.path=log.csv", "dataset.user=who", "dataset.item=what", "dataset.rating=stars"]
    done = effrec("data", "describe", "table", *columns)
    assert done.code == 3
    assert "line 24, column 'stars', value 'bad'" in done.err
    done = effrec(
        "data", "describe", "table", *columns, "dataset.bad_rows=drop", "dataset.filter.min_rating=1"
    )
    assert done.code == 0
    assert "Dropped, of 24 rows read" in done.out
    assert "bad rows" in done.out
    assert "24 rows read, 6 dropped (1 malformed, 4 rated below min_rating, " in done.err
    assert "none; rows keep the order of the file" in done.out


def test_fetch_without_network_ends_with_the_import_command(effrec, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    done = effrec("data", "fetch", "ml-1m", "dataset.urls=[http://127.0.0.1:9/ml-1m.zip]")
    assert done.code == 3
    assert "effrec data import ml-1m FILE" in done.err
    assert "5.9 MB" in done.err
    assert "Traceback" not in done.err


def test_fetch_of_what_is_at_hand(effrec):
    done = effrec("data", "fetch", "synthetic")
    assert done.code == 0
    assert "effrec data describe synthetic" in done.out


def test_verify(effrec, release, tmp_path):
    done = effrec("data", "verify", "ml-latest-small")
    assert done.code == 3
    assert "effrec data import ml-latest-small PATH" in done.err
    effrec("data", "import", "ml-latest-small", str(release))
    effrec("data", "describe", "ml-latest-small")
    done = effrec("data", "verify", "ml-latest-small")
    assert done.code == 0
    assert "as they were written" in done.out
    prepared = next((tmp_path / "data" / "prepared").glob("ml-latest-small-*"))
    content = bytearray((prepared / "items.npy").read_bytes())
    content[-1] ^= 1
    (prepared / "items.npy").write_bytes(content)
    done = effrec("data", "verify", "ml-latest-small")
    assert done.code == 3
    assert "items.npy differs from its sha256" in done.err
    done = effrec("data", "verify", "ml-latest-small", "--json")
    assert done.code == 3
    assert json.loads(done.out)["sound"] is False


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["describe", "nowhere"], 2, "no dataset called 'nowhere'"),
        (["import", "ml-1m", "absent"], 2, "no such file or folder"),
        (["import", "synthetic", "."], 2, "dataset=table dataset.path=FILE"),
        (["describe", "table"], 2, "dataset.path is not set"),
        (["describe", "synthetic", "dataset.num_usrs=3"], 2, "num_users"),
        (["forget"], 2, "no verb called 'forget'"),
        ([], 2, "required"),
    ],
)
def test_usage_errors_exit_2(effrec, words, code, text):
    done = effrec("data", *words)
    assert done.code == code
    assert text in done.err


def test_help(effrec):
    done = effrec("data", "--help")
    assert done.code == 0
    for verb in ("ls", "fetch", "import", "describe", "verify"):
        assert verb in done.out


@pytest.mark.parametrize("verb", ["fetch", "describe", "verify"])
def test_a_missing_name_is_all_that_is_missing(effrec, verb):
    done = effrec("data", verb)
    assert done.code == 2
    assert done.err.splitlines()[0].endswith("required: NAME.")
