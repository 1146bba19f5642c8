"""Records of what finished runs reached, one for each variant over its seeds.

    python benchmarks/quality.py SUITE CELL FOLDER [NAME=PEER ...]

Runs lie in FOLDER as `NAME-SEED`. Those whose names are given are recorded, in that order and called PEER;
without names all are. `results/SUITE-DEVICE.json` is written, and `effrec bench --tables` makes tables of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from effrec_cli.bench import records  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
UNITS = {"epoch": "s", "epochs": "", "in all": "s", "served": "MiB", "training state": "MiB"}
TOLD = ("ndcg@10", "hr@10", "ndcg@10_cold", "hr@10_cold", "auc", "log_loss")
"""Metrics that a table has room for, where a run has them."""
_FEWEST_COLD = 100
"""Cases; fewer tell nothing."""


def run_of(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says: scores on the test part, its epochs and the seconds of one."""
    result = json.loads((folder / "result.json").read_text())
    test, cost = result["metrics"]["test"], result["cost"]
    cold = test.get("cases_cold", 0) >= _FEWEST_COLD
    scores = {name: test[name] for name in TOLD if name in test and (cold or not name.endswith("_cold"))}
    monitor = result["config"]["evaluation"]["monitor"]
    seconds = cost["seconds_per_epoch"]  # a method without a loop has none
    return {
        "seed": result["seed"],
        "commit": result["commit"],
        "scores": {f"valid {monitor}": result["metrics"]["valid"][monitor], **scores}
        | {"epochs": float(cost["epochs"])}
        | ({} if seconds is None else {"epoch": seconds}),
    }


def recorded(
    suite: str,
    cell: str,
    folder: Path,
    names: dict[str, str],
    read: Callable[[Path], dict[str, Any]] = run_of,
) -> list[records.Record]:
    """Returns one record a variant.

    Args:
        suite: name of the file of records.
        cell: what the runs have in common, in words.
        folder: of runs `NAME-SEED`.
        names: how the table calls each variant; {} is every one by its own name.
        read: returns what a run says, as `run_of` does.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-*/result.json")):
        found.setdefault(path.parent.name.rpartition("-")[0], []).append(read(path.parent))
    missing = [name for name in names if name not in found]
    if missing:
        raise SystemExit(
            f"No finished run of {', '.join(missing)} in {folder}; there are {', '.join(found)}."
        )
    return [
        _record(suite, cell, peer, found[name]) for name, peer in (names or {n: n for n in found}).items()
    ]


def _record(suite: str, cell: str, peer: str, runs: list[dict[str, Any]]) -> records.Record:
    samples = [run["scores"] for run in runs]
    made = records.make_record(suite, cell, peer, {"seeds": len(runs)}, samples, UNITS)
    return made | {"runs": runs}


def keep(made: list[records.Record]) -> None:
    """Writes records of runs, and says of each which it is and where it lies."""
    for one in made:
        path = records.keep_runs(RESULTS, one)
        print(f"{one['cell']}, {one['peer']}, seeds: {len(one['runs'])}, kept in {path}")


def main(words: list[str]) -> int:
    """Writes the records; returns 0."""
    suite, cell, folder, *pairs = words
    for made in recorded(suite, cell, Path(folder), dict(pair.split("=", 1) for pair in pairs)):
        path = records.keep_runs(RESULTS, made)
        print(f"{made['peer']}, seeds: {len(made['runs'])}, kept in {path}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
