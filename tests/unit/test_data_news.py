"""What is said while data are prepared: size, rows, rate, time left, and counts that add up."""

import gzip

import numpy as np
import pytest
from data_helpers import ListSource, settings

from effrec_cli.data.arrange import arrange
from effrec_cli.data.load import load
from effrec_cli.data.rows import collect
from effrec_cli.data.source import RawChunk
from effrec_cli.data.synthetic import SyntheticSource
from effrec_cli.data.table import TableSource
from effrec_cli.schema.dataset_synthetic import SyntheticConfig
from effrec_cli.schema.dataset_table import TableConfig


class Slow:
    """Chunks of ten rows, each `took_s` on a clock of its own."""

    def __init__(self, shares, took_s):
        self.shares, self.took_s, self.now = shares, took_s, 50.0

    def clock(self):
        return self.now

    def chunks(self):
        for share in self.shares:
            self.now += self.took_s
            yield RawChunk(np.arange(10), np.arange(10), share=share)


def said_of(source):
    said = []
    collect(source, said.append, source.clock)
    return said


def test_a_long_reading_says_every_few_seconds_how_long_the_rest_takes():
    assert said_of(Slow([0.25, 0.5, 0.75, 1.0], took_s=4.0)) == [
        "  20 rows read, 2 rows/s, 50% of all, 8 s left to read",
        "  40 rows read, 2 rows/s, 100% of all, 0 s left to read",
    ]


def test_a_short_reading_says_nothing():
    assert said_of(Slow([0.5, 1.0], took_s=2.0)) == []


def test_a_source_that_does_not_know_its_size_promises_nothing():
    assert said_of(Slow([None], took_s=5.0)) == ["  10 rows read, 2 rows/s"]


def table_of(path, **others):
    return TableConfig(name="log", family="table", path=str(path), **others)


@pytest.mark.parametrize("packed", [False, True])
def test_the_share_of_a_csv_file_grows_to_the_whole(tmp_path, monkeypatch, packed):
    monkeypatch.setattr("effrec_cli.data.delimited.line_blocks.__defaults__", (1 << 12,))
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    numbers = np.random.default_rng(0).integers(0, 10**6, (20_000, 2))
    text = "user,item\n" + "".join(f"{user},{item}\n" for user, item in numbers)
    with gzip.open(path, "wt") if packed else path.open("w") as file:
        file.write(text)
    shares = [chunk.share for chunk in TableSource(table_of(path), tmp_path).chunks()]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[-1] == 1.0


def test_the_share_counts_all_files_of_a_ready_made_split(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("user,item\n1,2\n1,3\n")
    config = table_of(tmp_path / "train.csv", test_path=str(tmp_path / "test.csv"))
    config.split.kind = "files"
    assert [chunk.share for chunk in TableSource(config, tmp_path).chunks()] == [0.5, 1.0]


def test_the_share_of_parquet_and_of_a_simulation(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"user": [1, 1, 2], "item": [1, 2, 2]}), tmp_path / "log.parquet")
    assert [c.share for c in TableSource(table_of(tmp_path / "log.parquet"), tmp_path).chunks()] == [1.0]
    world = SyntheticSource(SyntheticConfig(name="s", family="synthetic", num_users=100), tmp_path)
    assert [chunk.share for chunk in world.chunks()][-1] == 1.0


def test_preparing_says_how_much_there_is_to_read(tmp_path):
    rows = "".join(f"{user},{item},{item}\n" for user in range(30) for item in range(500))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{rows}")
    said = []
    load(table_of(tmp_path / "log.csv", time="time"), tmp_path / "root", said.append)
    assert said[0].startswith("Preparing log (0.2 MB to read) into ")
    assert said[-1] == "  15,000 rows read, none dropped, 15,000 kept"


class Lossy(ListSource):
    """A source whose reader has dropped three malformed rows."""

    def stats(self):
        return {"rows_read": 3 + sum(map(len, self.parts.values())), "dropped_bad_rows": 3}


def test_rows_read_dropped_and_kept_add_up():
    rows = [(user, item, 10 * user + item, item) for user in range(5) for item in range(1, 5)]
    rows += [(0, 1, 99, 5.0)]
    said = []
    arrange(Lossy(rows), settings(min_rating=2, duplicates="first"), said.append)
    assert said[-1] == "  24 rows read, 8 dropped (3 malformed, 5 rated below min_rating), 16 kept"


def test_rows_that_a_split_leaves_out_are_named():
    rows = [(user, user % 3 + item, 100 * item + user, 1.0) for user in range(12) for item in range(4)]
    rows += [(0, 77, 10_000, 1.0)]
    said = []
    arranged = arrange(ListSource(rows), settings(split="global_time", test_share=0.2), said.append)
    lost = arranged.stats["split"]["rows_of_unseen_items_or_users"]
    assert lost > 0
    assert said[-1] == f"  49 rows read, {lost} dropped ({lost} by the split), {49 - lost} kept"
