"""A large csv from raw to prepared and reopened: seconds and peak memory, each in a process of its own.

`python benchmarks/bench_data.py [num_users num_items]`; `cells()` is what `effrec bench` calls. The csv is
the simulator's, in MovieLens' layout and ordered by user, and once more with its rows shuffled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from effrec_cli.data.load import load  # noqa: E402
from effrec_cli.data.synthetic import write_csv  # noqa: E402
from effrec_cli.schema.dataset_synthetic import SyntheticConfig  # noqa: E402
from effrec_cli.schema.dataset_table import TableConfig  # noqa: E402

MEAN_LENGTH = 144.0


def cells(num_users: int = 138_493, num_items: int = 26_744) -> list[dict[str, Any]]:
    """Returns one record for each measured step; by default on a csv of the shape of ML-20M."""
    config = SyntheticConfig(
        name="bench", family="synthetic", num_users=num_users, num_items=num_items,
        num_clusters=max(num_items // 200, 2), interactions_per_user=MEAN_LENGTH, side=[],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_csv(folder / "sorted.csv", config)
        shuffle(folder / "sorted.csv", folder / "shuffled.csv")
        return [
            {"suite": "data", "cell": f"{step}, {order}", "shape": {"rows": rows}, "device": "cpu"}
            | measured(folder / f"{order}.csv", folder / order)
            for order in ("sorted", "shuffled")
            for step in ("prepare", "reopen")
        ]


def shuffle(source: Path, target: Path) -> None:
    """Writes the rows of a csv in random order."""
    from pyarrow import csv

    table = csv.read_csv(source)
    order = np.random.default_rng(0).permutation(len(table))
    csv.write_csv(table.take(order), target)


def measured(path: Path, data_root: Path) -> dict[str, float]:
    """Returns what loading `path` costs a new process: the first time it prepares, the next it reopens."""
    command = [sys.executable, __file__, "--load", str(path), str(data_root)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def load_here(path: str, data_root: str) -> dict[str, float]:
    """Returns seconds and peak resident bytes of loading a csv in this process."""
    config = TableConfig(
        name="bench", family="table", path=path,
        user="userId", item="movieId", rating="rating", time="timestamp",
    )  # fmt: skip
    begin = time.perf_counter()
    load(config, Path(data_root), lambda line: None)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_bytes": peak_bytes()}


def peak_bytes() -> float:
    """Returns this process's peak resident memory, by Linux's VmHWM.

    `ru_maxrss` will not do: a child starts with its parent's.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(status["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        print(json.dumps(load_here(*sys.argv[2:])))
    else:
        for cell in cells(*(int(word) for word in sys.argv[1:])):
            figures = f"{cell['seconds']:8.2f} s {cell['peak_bytes'] / 2**30:6.2f} GiB"
            print(f"{cell['cell']:>20} {figures}   {cell['shape']}")
