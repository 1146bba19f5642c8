"""A parquet file sampled as it is read: the same rows as in memory, in little memory, stopped or not."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import prepared
from sampling_helpers import config, log, raw_rows

from effrec_cli.data.sampling import stream as streaming
from effrec_cli.data.sampling.sample import sample
from effrec_cli.data.sampling.stream import Names, stream
from effrec_cli.errors import ConfigError, DataError

NAMES = Names("who", "what", "at")
ROWS = log(users=80)


def write(path, rows=ROWS, group=500, times=None):
    who, what, at, _ = zip(*rows, strict=True)
    columns = {
        "who": who,
        "what": what,
        "at": times or at,
        "note": [f"{u}-{i}" for u, i in zip(who, what, strict=True)],
    }
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def sampled(source, target, wanted, **more):
    return stream(source, target, more.pop("names", NAMES), wanted, lambda line: None, **more)


def rows_of(path):
    table = pq.read_table(path)
    return list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def alone(rows):
    """Returns the data in which all rows train: every user's rows are held by no split."""
    last = 10**9
    return prepared([*rows, *((user, 999, last + at, 1.0) for user in {r[0] for r in rows} for at in (1, 2))])


@pytest.mark.parametrize("mode", ["uniform", "user"])
def test_the_same_rows_are_kept_as_of_the_prepared_data(tmp_path, mode):
    """Test 7: in memory and as a stream; every column of a kept row is there."""
    source = write(tmp_path / "in.parquet")
    done = sampled(source, tmp_path / "out.parquet", config(0.2, mode))
    kept = rows_of(tmp_path / "out.parquet")
    expected = set(raw_rows(sample(alone(ROWS), config(0.2, mode))))
    assert {(user, str(item), time) for user, item, time, _ in kept} == expected
    assert len(kept) == len(expected) == done.rows_kept
    assert all(note == f"{user}-{item}" for user, item, _, note in kept)
    assert done.rows == len(ROWS)


def test_neither_row_groups_nor_parts_nor_files_change_it(tmp_path):
    """Test 7: row-group size, and the rows in another order and in two files."""
    expected = None
    for number, group in enumerate((37, 500, 10_000)):
        source = write(tmp_path / f"in{number}.parquet", group=group)
        sampled(source, tmp_path / f"out{number}.parquet", config(0.3), part_rows=100 * number + 1)
        found = rows_of(tmp_path / f"out{number}.parquet")
        expected = expected or found
        assert found == expected
    (tmp_path / "many").mkdir()
    backwards = ROWS[::-1]
    write(tmp_path / "many" / "a.parquet", backwards[:900])
    write(tmp_path / "many" / "b.parquet", backwards[900:])
    sampled(tmp_path / "many", tmp_path / "out.parquet", config(0.3))
    assert rows_of(tmp_path / "out.parquet") == expected[::-1]


def test_rates_are_nested_and_the_file_says_what_it_is(tmp_path):
    source = write(tmp_path / "in.parquet")
    for rate in (0.05, 0.1, 0.5):
        sampled(source, tmp_path / f"{rate}.parquet", config(rate, seed=7))
    found = [set(rows_of(tmp_path / f"{rate}.parquet")) for rate in (0.05, 0.1, 0.5)]
    assert found[0] < found[1] < found[2]
    told = json.loads(pq.read_schema(tmp_path / "0.1.parquet").metadata[b"effrec.sample"])
    assert (told["mode"], told["rate"], told["seed"], told["rows"]) == ("uniform", 0.1, 7, len(ROWS))
    assert told["columns"] == {"user": "who", "item": "what", "time": "at"}


def test_times_in_milliseconds_and_as_timestamps_are_the_seconds_they_stand_for(tmp_path):
    seconds = [row[2] + 1_500_000_000 for row in ROWS]
    kinds = {
        "s": seconds,
        "ms": [1000 * at + 3 for at in seconds],
        "stamp": pa.array([1000 * at for at in seconds], pa.timestamp("ms")),
    }
    found = []
    for name, times in kinds.items():
        source = write(tmp_path / f"{name}.parquet", times=times)
        sampled(source, tmp_path / f"{name}-out.parquet", config(0.2))
        found.append([row[3] for row in rows_of(tmp_path / f"{name}-out.parquet")])
    assert found[0] == found[1] == found[2]


def test_ten_times_the_rows_hold_no_more_at_a_time(tmp_path, monkeypatch):
    """Test 10: the largest batch held is the same, whatever the file and its row groups have."""
    monkeypatch.setattr(streaming, "_BATCH_ROWS", 256)
    monkeypatch.setattr(streaming, "_GROUP_ROWS", 300)
    held, written = [], []
    original = streaming._gathered

    def watched(batches, schema):
        for table in original(batches, schema):
            written.append(len(table))
            yield table

    monkeypatch.setattr(streaming, "_gathered", watched)
    for number, times in enumerate((1, 10)):
        source = write(tmp_path / f"{number}.parquet", ROWS * times, group=100_000)
        done = sampled(source, tmp_path / f"{number}-out.parquet", config(0.5))
        held.append((done.largest, max(written)))
    assert held[0][0] == held[1][0] == 256
    assert held[1][1] < 300 + 256


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_job_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, stop_after):
    """Test 10: killed and resumed."""
    source = write(tmp_path / "in.parquet", group=200)
    whole = sampled(source, tmp_path / "whole.parquet", config(0.2), part_rows=400)
    assert whole.parts_read >= 5
    original, calls = streaming._write, []

    def dies(batches, schema, target):
        if len(calls) == stop_after:
            target.with_name(f".writing-{target.name}").write_bytes(b"half a part")
            raise KeyboardInterrupt
        calls.append(target)
        original(batches, schema, target)

    monkeypatch.setattr(streaming, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        sampled(source, tmp_path / "out.parquet", config(0.2), part_rows=400)
    assert not (tmp_path / "out.parquet").exists()
    monkeypatch.setattr(streaming, "_write", original)
    done = sampled(source, tmp_path / "out.parquet", config(0.2), part_rows=400)
    assert done.parts_read == whole.parts_read - stop_after
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet", "whole.parquet"]


def test_parts_of_another_job_are_thrown_away(tmp_path, monkeypatch):
    source = write(tmp_path / "in.parquet", group=200)
    original = streaming._join
    monkeypatch.setattr(streaming, "_join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sampled(source, tmp_path / "out.parquet", config(0.2), part_rows=400)
    monkeypatch.setattr(streaming, "_join", original)
    sampled(source, tmp_path / "out.parquet", config(0.2, seed=2), part_rows=400)
    sampled(source, tmp_path / "clean.parquet", config(0.2, seed=2), part_rows=400)
    assert rows_of(tmp_path / "out.parquet") == rows_of(tmp_path / "clean.parquet")


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_without_times_pairs_are_kept_or_dropped_together(tmp_path):
    rows = [(f"u{user}", item, 0, 1.0) for user in range(100) for item in range(10) for _ in range(2)]
    source = write(tmp_path / "in.parquet", rows)
    sampled(source, tmp_path / "out.parquet", config(0.3), names=Names("who", "what"))
    kept = rows_of(tmp_path / "out.parquet")
    assert len(kept) == 2 * len(set(kept))
    assert 200 < len(set(kept)) < 400


def test_an_empty_sample_is_a_file_without_rows(tmp_path):
    source = write(tmp_path / "in.parquet")
    assert sampled(source, tmp_path / "out.parquet", config(1e-9)).rows_kept == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["who", "what", "at", "note"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"wanted": config(0.1, "exact")}, ConfigError, "mode=exact needs to know of other rows"),
        ({"names": Names("whom", "what")}, DataError, "no column called 'whom'"),
        ({"names": Names("who", "what", "wen")}, DataError, "no column called 'wen'"),
        ({"target": "in.parquet"}, ConfigError, "a file already"),
        ({"source": "absent.parquet"}, ConfigError, "no such file"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, change, error, words):
    write(tmp_path / "in.parquet")
    before = (tmp_path / "in.parquet").read_bytes()
    source, target = (
        tmp_path / change.get(name, usual)
        for name, usual in (("source", "in.parquet"), ("target", "out.parquet"))
    )
    with pytest.raises(error, match=words):
        sampled(source, target, change.get("wanted", config(0.1)), names=change.get("names", NAMES))
    assert not (tmp_path / "out.parquet").exists()
    assert (tmp_path / "in.parquet").read_bytes() == before


def test_a_malformed_row_is_named_by_its_place_in_the_file(tmp_path):
    rows = [*ROWS[:700], ("", 3, 5, 1.0), *ROWS[700:]]
    source = write(tmp_path / "in.parquet", rows, group=200)
    with pytest.raises(DataError) as caught:
        sampled(source, tmp_path / "out.parquet", config(0.5), part_rows=400)
    assert "row 701" in caught.value.where
    assert "bad_rows" not in caught.value.fix
