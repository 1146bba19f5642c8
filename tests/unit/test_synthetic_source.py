"""The simulator as a source: its contract, its fingerprint, its csv, and that numpy is all it needs."""

import io
import subprocess
import sys

import numpy as np
import pytest
from synthetic_helpers import all_rows, source_of

from effrec_cli.data.synthetic import write_csv, writer
from effrec_cli.schema.dataset_base import PartsConfig, SplitConfig
from effrec_cli.schema.dataset_synthetic import SyntheticConfig

SMALL = {"num_users": 300, "num_items": 200, "num_clusters": 10, "interactions_per_user": 6.0}


def test_chunks_have_the_types_of_the_contract_and_are_counted():
    source = source_of(**SMALL)
    (chunk,) = source.chunks()
    assert [chunk.users.dtype, chunk.items.dtype, chunk.times.dtype] == [np.int64] * 3
    assert chunk.ratings.dtype == np.float32
    assert chunk.part is None
    assert source.stats()["rows_read"] == len(chunk)


CHANGES = {
    "num_users": 301,
    "num_items": 201,
    "num_clusters": 11,
    "interactions_per_user": 7.0,
    "seed": 8,
    "popularity_exponent": 0.9,
    "follow": 0.5,
    "explore": 0.1,
    "drift": 0.2,
    "session_length": 4.0,
    "tie_share": 0.4,
    "fresh_share": 0.2,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_of_the_world_changes_the_rows_and_the_fingerprint(name):
    before, after = source_of(**SMALL), source_of(**{**SMALL, name: CHANGES[name]})
    assert before.fingerprint() != after.fingerprint()
    left, right = all_rows(before), all_rows(after)
    assert any(not np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def test_the_fingerprint_leaves_out_what_does_not_change_the_content():
    plain = source_of(**SMALL).fingerprint()
    other = source_of(**SMALL, name="mine", split=SplitConfig(kind="global_time"), parts=PartsConfig(seed=1))
    assert other.fingerprint() == plain
    sides = list(reversed(SyntheticConfig().side))
    assert source_of(**SMALL, side=sides).fingerprint() == plain
    assert source_of(**SMALL, side=["text"]).fingerprint() != plain


def test_csv_has_all_rows_in_the_layout_of_movielens(tmp_path):
    config = SyntheticConfig(**SMALL)
    path = tmp_path / "ratings.csv"
    assert write_csv(path, config) == len(all_rows(source_of(**SMALL))[0])
    lines = path.read_text().splitlines()
    assert lines[0] == "userId,movieId,rating,timestamp"
    read = np.array([[float(cell) for cell in line.split(",")] for line in lines[1:]]).T
    for column, expected in zip(read, [all_rows(source_of(**SMALL))[at] for at in (0, 1, 3, 2)], strict=True):
        assert np.array_equal(column, expected)


def test_csv_is_the_same_with_and_without_pyarrow():
    pytest.importorskip("pyarrow")
    (chunk,) = source_of(**SMALL).chunks()
    fast, plain = io.BytesIO(), io.BytesIO()
    writer.append_arrow(fast, chunk)
    writer.append_plain(plain, chunk)
    assert fast.getvalue() == plain.getvalue()
    assert fast.getvalue().count(b"\n") == len(chunk)


def test_numpy_is_all_that_the_simulator_imports():
    code = (
        "import sys; from pathlib import Path\n"
        "from effrec_cli.data.synthetic import SyntheticSource\n"
        "from effrec_cli.schema.dataset_synthetic import SyntheticConfig\n"
        "next(SyntheticSource(SyntheticConfig(num_users=20, num_items=50), Path()).chunks())\n"
        "print(sorted({'torch', 'scipy', 'pandas', 'pyarrow', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
