"""Quality of method dsl by mode and density beside baselines of as many bytes: whole runs, and records.

    python benchmarks/dsl_quality.py train FOLDER [--seeds 1 2 3] [--dim 64] [--densities 50 25 10]
        [--only TEXT ...] -- dataset=ml-latest-small run.max_epochs=40
    python benchmarks/dsl_quality.py table FOLDER SUITE HOW
    python benchmarks/dsl_quality.py plot FOLDER SUITE TITLE

`train` runs each variant into FOLDER/NAME-SEED, for as long as the words after `--` say, which are every
run's. It may be broken off (Ctrl-C) and called again with the same words: finished runs are left alone, begun
ones go on. `table` writes `results/SUITE-DEVICE.json` of what is finished, a cell for each density; HOW says
in words how long was trained. `plot` draws quality against the bytes that are served to
`docs/plots/SUITE.svg`, and wants matplotlib.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "benchmarks"))

import many_runs  # noqa: E402
import plotting  # noqa: E402
import quality  # noqa: E402

from effrec_cli.bench import records  # noqa: E402

PLOTS = ROOT / "docs" / "plots"
DIM, WIDER = 64, 4
DENSITIES = (50, 25, 10, 5)
"""Percent of the numbers of a table that are live."""
_WIDE = f"dsl_{WIDER}d"
SPARSE = {
    "dsl": "dsl",
    _WIDE: "dsl",
    "dsl_global": "dsl",
    "rigl": "rigl",
    "set": "set",
    "topk_anneal": "topk_anneal",
    "static": "static",
    "dense_small": "dense_small",
    "magnitude": "magnitude",
}
"""What is run at each density, and by which mode. One is wider and sparser, with as many live numbers; one
lets rows have any number of them."""
WHOLE = ("dense", "dense_int8")
"""Modes without a density."""
TOLD = ("ndcg@10", "recall@20")
"""Metrics of the table."""
_MIB = 1 << 20


def variants(dim: int = DIM, densities: tuple[int, ...] = DENSITIES) -> dict[str, list[str]]:
    """Returns the words that make each variant, by its name, which ends in `@` and its density in percent."""
    found = {f"{mode}@100": [f"method.mode={mode}", f"method.dim={dim}"] for mode in WHOLE}
    for percent in sorted(densities, reverse=True):
        for name, mode in SPARSE.items():
            wider = WIDER if name == _WIDE else 1
            words = [f"method.mode={mode}", f"method.dim={wider * dim}"]
            words.append(f"method.density={percent / 100 / wider:g}")
            if name == "dsl_global":
                words.append("method.structure=global")
            found[f"{name}@{percent}"] = words
    return found


def overrides_of(words: list[str], seed: int, folder: Path) -> list[str]:
    """Returns the words after `effrec train`, but for the dataset's, for one variant."""
    return ["method=dsl", *words, f"run.dir={folder}", "run.resume=auto", f"seed={seed}"]


def train(options: argparse.Namespace) -> int:
    """Runs what is not finished yet, seed by seed; returns how many runs failed."""
    wanted = {
        name: words
        for name, words in variants(options.dim, tuple(options.densities)).items()
        if not options.only or any(_is_meant(name, text) for text in options.only)
    }
    failed = 0
    for seed, (name, words) in product(options.seeds, wanted.items()):
        folder = options.folder.resolve() / f"{name}-{seed}"
        asked = [*overrides_of(words, seed, folder), *options.overrides]
        failed += many_runs.run(f"{name}-{seed}", asked, folder) != 0
    return failed


def _is_meant(name: str, text: str) -> bool:
    """Returns whether a text names a variant, or all densities of it."""
    return text in (name, name.rpartition("@")[0])


def records_of(suite: str, how: str, folder: Path) -> list[records.Record]:
    """Returns one record a variant over its seeds, a cell for each density.

    Raises:
        SystemExit: no run is finished.
    """
    there, made = many_runs.finished(folder, list(variants())), []
    for percent in (100, *DENSITIES):
        told = {name: name.rpartition("@")[0] for name in there if name.endswith(f"@{percent}")}
        cell = f"{percent} %, {how}"
        made += quality.recorded(suite, cell, folder, told, run_of) if told else []
    return made


def run_of(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says: scores on the test part, and bytes of training and of serving."""
    result = json.loads((folder / "result.json").read_text())
    test, cost = result["metrics"]["test"], result["cost"]
    state = sum(cost.get(f"{what}_bytes") or 0 for what in ("weights", "gradient", "optimizer"))
    state += result["sparsity"].get("growth_bytes", 0)
    scores = {name: test[name] for name in TOLD if name in test}
    sizes = {"served": result["sparsity"]["served_bytes"] / _MIB, "training state": state / _MIB}
    return {"seed": result["seed"], "commit": result["commit"], "scores": {**scores, **sizes}}


def table(options: argparse.Namespace) -> int:
    """Writes the records of all finished runs; returns 0."""
    quality.keep(records_of(options.suite, options.how, options.folder))
    return 0


def plot(options: argparse.Namespace) -> int:
    """Draws test NDCG@10 against the bytes that are served, mean and extremes over seeds; returns 0."""
    figure, (axes,) = plotting.new_figure(1, 6.4, 4.2)
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for name, seeds in many_runs.finished(options.folder, list(variants())).items():
        scores = [run_of(path)["scores"] for path in seeds]
        point = scores[0]["served"], [each["ndcg@10"] for each in scores]
        lines.setdefault(name.rpartition("@")[0], []).append(point)
    for at, (name, points) in enumerate(lines.items()):
        sizes, found = zip(*sorted(points), strict=True)
        means = [statistics.fmean(each) for each in found]
        spread = [[mean - min(each) for mean, each in zip(means, found, strict=True)]]
        spread.append([max(each) - mean for mean, each in zip(means, found, strict=True)])
        axes.errorbar(sizes, means, yerr=spread, fmt="o-", color=f"C{at}", capsize=2, label=name)
    axes.set_xscale("log")
    axes.set(xlabel="MiB served", ylabel="test NDCG@10", title=options.title)
    plotting.save(figure, PLOTS / f"{options.suite}.svg")
    return 0


def main(words: list[str]) -> int:
    """Does what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_train, of_table, of_plot = map(verbs.add_parser, ("train", "table", "plot"))
    for one in (of_train, of_table, of_plot):
        one.add_argument("folder", type=Path)
    for one in (of_table, of_plot):
        one.add_argument("suite")
    of_train.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    of_train.add_argument("--dim", type=int, default=DIM, help="width of the tables")
    of_train.add_argument("--densities", type=int, nargs="+", default=list(DENSITIES), choices=DENSITIES)
    of_train.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="NAME@PERCENT or NAME")
    of_table.add_argument("how")
    of_plot.add_argument("title")
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    options.overrides = words[at + 1 :]
    told = {"table": table, "plot": plot}
    return told[options.verb](options) if options.verb in told else min(1, train(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
