"""Quality of every mode of method gram after the same wall-clock time: whole runs, and records made of them.

    python benchmarks/gram_quality.py record FOLDER MINUTES [--seeds 1 2 3] [--modes TEXT ...] [--jobs 1]
        -- dataset=cofacts dataset.path=FEEDBACK dataset.items_path=REPLIES model=dkt
    python benchmarks/gram_quality.py table FOLDER

`record` trains each mode with each seed for MINUTES and no longer, on one thread, one run after the other or
at most two at a time. It may be broken off (Ctrl-C) and called again with the same words: finished runs are
left alone, begun ones go on. `table` writes `results/quality-gram-DATASET-DEVICE.json` of what is finished.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from effrec_cli.bench import records  # noqa: E402
from effrec_cli.bench.gram import E2E, PEERS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
# Whether to recompute a run chooses for itself: it changes time and memory, not what is learnt.
MODES = {
    name.removesuffix(", fused"): {key: value for key, value in peer.settings.items() if key != "recompute"}
    for name, peer in PEERS.items()
    if "recomputed" not in name
}
ENDLESS = 1_000_000
UNITS = {"to e2e's best": "s", "epochs": "", "steps": ""}
_INTERVAL = ("_low", "_high")
# Of metrics at a cut-off; a ranking has forty of them.
_CUT_OFFS = ("ndcg@5", "ndcg@10", "hr@10")


def overrides_of(mode: str, seed: int, minutes: float, folder: Path) -> list[str]:
    """Returns the words after `effrec train` for a run that ends by the clock alone."""
    settings = [f"method.{key}={value}" for key, value in MODES[mode].items()]
    precision = ["run.precision=fp32"] if "regress" in mode else []
    run = [
        f"run.dir={folder / _slug(mode) / f'seed-{seed}'}",
        f"run.max_minutes={minutes:g}",
        f"run.max_epochs={ENDLESS}",
        "run.patience=null",
        "run.resume=auto",
    ]
    return ["method=gram", *settings, *precision, *run, f"seed={seed}"]


def _slug(mode: str) -> str:
    return re.sub(r"[^\w]+", "-", mode)


def chosen(texts: list[str]) -> list[str]:
    """Returns the modes that are called as one of `texts`, or hold one that is no mode's whole name."""
    return [mode for mode in MODES if not texts or any(_meant(text, mode) for text in texts)]


def _meant(text: str, mode: str) -> bool:
    return text == mode or (text not in MODES and text in mode)


def record(options: argparse.Namespace) -> int:
    """Runs what is not finished yet; returns how many runs failed."""
    wanted = chosen(options.modes)
    # Seed by seed, so that what is there after a while is of all modes.
    jobs = [(seed, mode) for seed, mode in product(options.seeds, wanted)]
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        codes = pool.map(lambda job: _run(*job, options), jobs)
        return sum(code != 0 for code in codes)


def _run(seed: int, mode: str, options: argparse.Namespace) -> int:
    words = [*options.overrides, *overrides_of(mode, seed, options.minutes, options.folder.resolve())]
    folder = options.folder / _slug(mode) / f"seed-{seed}"
    if (folder / "result.json").is_file():
        return 0
    print(f"{mode}, seed {seed}: effrec train {' '.join(words)}", flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "effrec_cli", "train", *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-4:])
        print(f"{mode}, seed {seed}: ended with code {done.returncode}\n{said}", flush=True)
    return done.returncode


def run_of(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says: its scores, and the curve of (seconds, validation score)."""
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    method, config = result["config"]["method"], result["config"]
    valid = [line for line in lines if line["kind"] == "valid"]
    monitor = config["evaluation"]["monitor"]
    return {
        "dataset": result["dataset"]["name"],
        "model": result["model"],
        "mode": next(mode for mode, settings in MODES.items() if settings.items() <= method.items()),
        "minutes": config["run"]["max_minutes"],
        "encoder": method["encoder"]["name"] or "built-in",
        "seed": result["seed"],
        "commit": result["commit"],
        "test": {name: value for name, value in result["metrics"]["test"].items() if _told(name)},
        "curve": [[round(line["elapsed_s"], 1), round(line[monitor], 5)] for line in valid],
        "epochs": lines[-1]["epoch"],
        "steps": lines[-1]["step"],
    }


def _told(name: str) -> bool:
    """Returns whether a table has room for a metric."""
    at_cut_off = "@" in name and name.removesuffix("_cold") not in _CUT_OFFS
    return not name.endswith(_INTERVAL) and not at_cut_off


def seconds_to(run: dict[str, Any], score: float) -> float | None:
    """Returns when a run's validation score first was at least `score`; None where it never was."""
    return next((seconds for seconds, found in run["curve"] if found >= score), None)


def records_of(runs: list[dict[str, Any]]) -> list[records.Record]:
    """Returns one record a mode, over seeds; a cell is a dataset, a model, an encoder and a time."""
    cells: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (list(MODES).index(run["mode"]), run["seed"])):
        cell = (run["dataset"], run["model"], Path(run["encoder"]).name, run["minutes"])
        cells[cell][run["mode"]].append(run)
    return [made for cell, modes in cells.items() for made in _cell(cell, modes)]


def _cell(cell: tuple[Any, ...], modes: dict[str, list[dict[str, Any]]]) -> list[records.Record]:
    dataset, model, encoder, minutes = cell
    best = {run["seed"]: max(score for _, score in run["curve"]) for run in modes.get(E2E, [])}
    made = []
    for mode, runs in modes.items():
        samples = [run["test"] | _pace(run, best) for run in runs]
        name = f"{model}, {encoder}, {minutes:g} minutes"
        suite = f"quality-gram-{dataset}"
        parameters = {"seeds": len(runs)}
        made.append(records.make_record(suite, name, mode, parameters, samples, UNITS) | {"runs": runs})
    return made


def _pace(run: dict[str, Any], best: dict[int, float]) -> dict[str, float]:
    """Returns how far a run came, and when it was as good as the best that `e2e` came to with its seed."""
    found = {"epochs": float(run["epochs"]), "steps": float(run["steps"])}
    seconds = seconds_to(run, best[run["seed"]]) if run["seed"] in best else None
    return found if seconds is None else found | {"to e2e's best": seconds}


def table(folder: Path) -> int:
    """Writes the records of all finished runs below a folder; returns 0."""
    for made in records_of([run_of(path.parent) for path in sorted(folder.rglob("result.json"))]):
        path = records.keep_runs(RESULTS, made)
        print(f"{made['cell']}, {made['peer']}: kept in {path}")
    return 0


def main(words: list[str]) -> int:
    """Does what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_record, of_table = verbs.add_parser("record"), verbs.add_parser("table")
    for one in (of_record, of_table):
        one.add_argument("folder", type=Path)
    of_record.add_argument("minutes", type=float)
    of_record.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    of_record.add_argument(
        "--modes", nargs="+", default=[], metavar="TEXT", help="modes whose names hold one"
    )
    of_record.add_argument("--jobs", type=int, default=1, choices=(1, 2))
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    options.overrides = words[at + 1 :]
    return table(options.folder) if options.verb == "table" else min(1, record(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
