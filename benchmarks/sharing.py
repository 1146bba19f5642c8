"""Quality against who shares negatives: records and plots made from the folders of finished runs.

`python benchmarks/sharing.py record FOLDER PACE` reads every run below FOLDER, all of one dataset, and writes
`results/sharing-DATASET-DEVICE.json`. Below PACE are runs of the same settings, a few steps each, made on an
idle machine: they say what a step takes. `python benchmarks/sharing.py plot` draws from those files
`docs/plots/sharing-DATASET.svg`, and wants matplotlib.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "benchmarks"))

import plotting  # noqa: E402

from effrec_cli.bench import records  # noqa: E402

RESULTS, PLOTS = ROOT / "benchmarks" / "results", ROOT / "docs" / "plots"
METRIC = "ndcg@10"
ORDER = ["row", "tiles of 16", "tiles of 64", "tiles of 128", "sequence", "batch"]
UNITS = {"step": "ms"}
# Validations that a curve over time wants at least.
CURVE = 5


def run_of(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says: its scores, and the curve of (step, validation score)."""
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    method = result["config"]["method"]
    shared = f"tiles of {method['tile_rows']}" if method["sharing"] == "tile" else method["sharing"]
    return {
        "dataset": result["dataset"]["name"],
        "negatives": method["num_negatives"],
        "shared": shared,
        "seed": result["seed"],
        "commit": result["commit"],
        "test": result["metrics"]["test"][METRIC],
        "curve": [[line["step"], round(line[METRIC], 5)] for line in lines if line["kind"] == "valid"],
        "step_s": quickest_step_s(lines),
    }


def quickest_step_s(lines: list[dict[str, Any]]) -> float:
    """Returns the seconds of a step in the quickest stretch between two lines, the least disturbed one.

    A line of training that follows one of validation has nothing but steps between.
    """
    rates = [
        (after["elapsed_s"] - before["elapsed_s"]) / (after["step"] - before["step"])
        for before, after in pairwise(lines)
        if after["kind"] == "train" and after["step"] > before["step"]
    ]
    return min(rates)


def best_until(run: dict[str, Any], step_s: float, seconds: float) -> float:
    """Returns the best validation score of the steps that fit in `seconds`, 0 where none was validated."""
    return max((score for step, score in run["curve"] if step * step_s <= seconds), default=0.0)


def records_of(runs: list[dict[str, Any]], pace: list[dict[str, Any]]) -> list[records.Record]:
    """Returns one record for each number of negatives and each way to share them, over seeds."""
    step_s = {(run["negatives"], run["shared"]): run["step_s"] for run in pace}
    cells: dict[int, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run["negatives"], ORDER.index(run["shared"]), run["seed"])):
        cells[run["negatives"]][run["shared"]].append(run)
    return [
        record
        for negatives, peers in cells.items()
        for record in _cell(negatives, peers, {shared: step_s[negatives, shared] for shared in peers})
    ]


def _cell(
    negatives: int, peers: dict[str, list[dict[str, Any]]], step_s: dict[str, float]
) -> list[records.Record]:
    curve = next(iter(peers.values()))[0]["curve"]
    steps, curves = curve[-1][0], len(curve) >= CURVE
    shortest = steps * min(step_s.values())
    made = []
    for shared, runs in peers.items():
        samples = [
            {"test": run["test"], "valid": max(score for _, score in run["curve"])}
            | ({"valid, equal time": best_until(run, step_s[shared], shortest)} if curves else {})
            | {"step": 1e3 * step_s[shared]}
            for run in runs
        ]
        suite = f"sharing-{runs[0]['dataset']}"
        record = records.make_record(suite, f"N = {negatives}", shared, {"steps": steps}, samples, UNITS)
        made.append(record | {"runs": runs})
    return made


def runs_below(folder: Path) -> list[dict[str, Any]]:
    """Returns what all finished runs below a folder say."""
    return [run_of(path.parent) for path in sorted(folder.rglob("result.json"))]


def keep(folder: Path, pace: Path) -> None:
    """Writes the records of all runs below a folder, with the pace of those below another."""
    import torch

    for record in records_of(runs_below(folder), runs_below(pace)):
        commit = record["runs"][0]["commit"]
        records.keep(RESULTS, records.stamped(record, torch.device("cpu")) | {"commit": commit})


def plot() -> None:
    """Draws one figure for each dataset: quality by who shares, by rows read, and by time."""
    for path in sorted(RESULTS.glob("sharing-*.json")):
        kept = records.read(path)
        _draw(kept, PLOTS / f"{kept[0]['suite']}.svg")


def _draw(kept: list[records.Record], path: Path) -> None:
    curves = [record for record in kept if record["cell"] == "N = 511" and len(_curve(record)) >= CURVE]
    figure, panels = plotting.new_figure(3 if curves else 2, 4.2, 3.4)
    for cell in dict.fromkeys(record["cell"] for record in kept):
        of_cell = [record for record in kept if record["cell"] == cell]
        _draw_modes(panels[0], cell, of_cell)
        _draw_reads(panels[1], cell, of_cell)
    if curves:
        _draw_curves(panels[2], curves)
    for axes in panels:
        axes.set_ylim(0, None)
    plotting.save(figure, path)


def _curve(record: records.Record) -> list[list[float]]:
    return record["runs"][0]["curve"]


def _draw_modes(axes: Any, cell: str, kept: list[records.Record]) -> None:
    """Draws the median over seeds as a line, and every seed as a point."""
    places = {shared: place for place, shared in enumerate(ORDER)}
    at = [places[record["peer"]] for record in kept]
    (line,) = axes.plot(at, [record["figures"]["test"]["median"] for record in kept], label=cell)
    for record in kept:
        scores = [run["test"] for run in record["runs"]]
        axes.plot([places[record["peer"]]] * len(scores), scores, ".", color=line.get_color(), alpha=0.6)
    axes.set_xticks(range(len(ORDER)), [name.replace("tiles of ", "T = ") for name in ORDER])
    axes.set(xlabel="negatives shared by", ylabel="test NDCG@10")


def _draw_reads(axes: Any, cell: str, kept: list[records.Record]) -> None:
    """Draws the median over seeds against the rows of the table that forward reads for each target, N / T."""
    sizes = {"row": 1} | {name: int(name.split()[-1]) for name in ORDER if name.startswith("tiles")}
    drawn = [record for record in kept if record["peer"] in sizes]
    reads = [record["runs"][0]["negatives"] / sizes[record["peer"]] for record in drawn]
    axes.plot(reads, [record["figures"]["test"]["median"] for record in drawn], "o-", label=cell)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="rows of the table read for each target, N / T", ylabel="test NDCG@10")


def _draw_curves(axes: Any, kept: list[records.Record]) -> None:
    """Draws the mean over seeds of the best validation score so far against seconds."""
    for record in kept:
        runs, step_s = record["runs"], record["figures"]["step"]["median"] / 1e3
        steps = [step for step, _ in _curve(record)]
        means = [sum(best_until(run, 1, step) for run in runs) / len(runs) for step in steps]
        axes.plot([step * step_s for step in steps], means, label=record["peer"])
    axes.set(xlabel="seconds of training, N = 511", ylabel="best validation NDCG@10 so far")


if __name__ == "__main__":
    if sys.argv[1] == "record":
        keep(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        plot()
