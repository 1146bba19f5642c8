"""Quality of method cadc by strategy and rate beside its baselines: whole runs, and records made of them.

    python benchmarks/cadc_quality.py train FOLDER [--steps N] [--seeds 1 2 3] [--rates 1 5 ...]
        [--only TEXT ...] [--network WORD ...] -- dataset=ml-latest-small
    python benchmarks/cadc_quality.py table FOLDER SUITE HOW
    python benchmarks/cadc_quality.py plot FOLDER SUITE TITLE
    python benchmarks/cadc_quality.py deciles FOLDER

`train` runs each variant into FOLDER/NAME-SEED: with `--steps` all networks train so many steps, without they
train until validation has not gained for long. It may be broken off (Ctrl-C) and called again with the same
words: finished runs are left alone, begun ones go on. Words after `--` are every run's, those of `--network`
networks' alone. `table` writes `results/SUITE-DEVICE.json` of what is
finished, a cell for each rate; HOW says in words how long was trained, such as "5,000 steps". `plot` draws
time against quality of what is finished to `docs/plots/SUITE.svg`, and wants matplotlib. `deciles` prints how
good each variant is by the training rows of the user and of the item.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "benchmarks"))

import cadc_deciles  # noqa: E402
import cadc_pareto  # noqa: E402
import many_runs  # noqa: E402
import quality  # noqa: E402

from effrec_cli.bench import records  # noqa: E402

PLOTS = ROOT / "docs" / "plots"
RATES = (1, 5, 10, 25, 50, 100)
"""Percent of the training rows that the network trains on."""
_REST, _FOLDED = "method.factorise=rest", "method.users=fold_in"
STRATEGIES = {
    "rand": ["method.embedding=rand"],
    "init_frz": ["method.embedding=init_frz"],
    "init_upd": ["method.embedding=init_upd"],
    "residual": ["method.embedding=residual"],
    "init_frz_rest": ["method.embedding=init_frz", _REST],
    "residual_rest": ["method.embedding=residual", _REST],
    "init_frz_rest_folded": ["method.embedding=init_frz", _REST, _FOLDED],
    "residual_rest_folded": ["method.embedding=residual", _REST, _FOLDED],
}
"""What is made of the factors; `_rest` those of the rows that the network does not train on, `_folded` with
users made of their histories."""
FULL = ("rand", "init_frz")
"""Strategies that are told on all rows whatever rates are."""
TOLD = ("ndcg@10", "ndcg@20", "recall@20", "hr@10")
"""Metrics of the table."""
ENDLESS = 1_000_000
PATIENCE = 20
"""Validations without gain; networks from random vectors stay at popularity for long."""
VALIDATIONS = 40
"""Of a run of so many steps, about, at a hundred steps an epoch."""
_STEPS_AN_EPOCH = 100


def variants(rates: tuple[int, ...] = RATES) -> dict[str, list[str]]:
    """Returns the words that make each variant, by its name, which ends in `@` and a rate in percent.

    Those that do not depend on the rate are of 100.
    """
    found = {
        "pop@100": ["method=pop"],
        "mf@100": ["method=ials"],
        "mf_folded@100": ["method=ials", _FOLDED],
    }
    for rate in sorted({*rates, 100}, reverse=True):
        share = f"{rate / 100:g}"
        strategies = STRATEGIES if rate in rates else FULL
        if rate < 100:
            sampled = f"dataset.sample.rate={share}"
            found[f"mf@{rate}"] = ["method=ials", sampled]
            whole = ["method.sample.rate=1", "method.embedding=init_frz"]
            found[f"init_frz_of_sample@{rate}"] = ["method=cadc", sampled, *whole]
        for strategy in strategies:
            if rate < 100 or _REST not in STRATEGIES[strategy]:
                words = ["method=cadc", f"method.sample.rate={share}", *STRATEGIES[strategy]]
                found[f"{strategy}@{rate}"] = words
    return found


def overrides_of(words: list[str], seed: int, steps: int | None, folder: Path) -> list[str]:
    """Returns the words after `effrec train`, but for the dataset's, for one variant.

    Args:
        words: of the variant.
        seed: of the run.
        steps: of a network; None trains to convergence.
        folder: of the run.
    """
    run = [f"run.dir={folder}", f"run.max_epochs={ENDLESS}", "run.resume=auto"]
    if steps is None:
        run.append(f"run.patience={PATIENCE}")
    else:
        every = max(1, steps // (VALIDATIONS * _STEPS_AN_EPOCH))
        run += [f"run.max_steps={steps}", "run.patience=null", f"run.validate_every={every}"]
    return [*words, *run, f"seed={seed}"]


def train(options: argparse.Namespace) -> int:
    """Runs what is not finished yet, seed by seed; returns how many runs failed."""
    wanted = {
        name: words
        for name, words in variants(tuple(options.rates)).items()
        if not options.only or any(_is_meant(name, text) for text in options.only)
    }
    jobs = product(options.seeds, wanted.items())
    return sum(_run(f"{name}-{seed}", words, seed, options) != 0 for seed, (name, words) in jobs)


def _is_meant(name: str, text: str) -> bool:
    """Returns whether a text names a variant, or with a rate exactly this one."""
    return name == text if "@" in text else text in name


def _run(name: str, words: list[str], seed: int, options: argparse.Namespace) -> int:
    folder = options.folder.resolve() / name
    # The user's words come last, so that they may change a variant's.
    asked = [*overrides_of(words, seed, options.steps, folder), *options.overrides]
    return many_runs.run(name, asked + (options.network if "method=cadc" in words else []), folder)


def finished(folder: Path) -> dict[str, list[Path]]:
    """Returns the folders of finished runs by variant, in the order of `variants`, seed by seed."""
    return many_runs.finished(folder, list(variants()))


def records_of(suite: str, how: str, folder: Path) -> list[records.Record]:
    """Returns one record a variant over its seeds, a cell for each rate, in the order of `variants`.

    Raises:
        SystemExit: no run is finished.
    """
    there, made = finished(folder), []
    for rate in RATES:
        names = {name: name.rpartition("@")[0] for name in variants() if name.endswith(f"@{rate}")}
        told = {name: peer for name, peer in names.items() if name in there}
        made += quality.recorded(suite, f"{rate} %, {how}", folder, told, run_of) if told else []
    return made


def run_of(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says, and its seconds in all, factorising counted whichever run did it."""
    result = json.loads((folder / "result.json").read_text())
    test, cost = result["metrics"]["test"], result["cost"]
    parts = (cost.get(f"seconds_{what}") or 0.0 for what in ("cache", "sample", "total"))
    scores = {name: test[name] for name in TOLD if name in test}
    return {"seed": result["seed"], "commit": result["commit"], "scores": {**scores, "in all": sum(parts)}}


def table(options: argparse.Namespace) -> int:
    """Writes the records of all finished runs; returns 0."""
    quality.keep(records_of(options.suite, options.how, options.folder))
    return 0


def plot(options: argparse.Namespace) -> int:
    """Draws the seconds in all and the test NDCG@10 of all finished runs; returns 0."""
    points = {
        name: [(scores["in all"], scores["ndcg@10"]) for scores in (run_of(path)["scores"] for path in seeds)]
        for name, seeds in finished(options.folder).items()
    }
    strategies = list(dict.fromkeys(name.rpartition("@")[0] for name in variants()))
    path = PLOTS / f"{options.suite}.svg"
    cadc_pareto.draw(points, strategies, options.title, path)
    print(path)
    return 0


def deciles(options: argparse.Namespace) -> int:
    """Prints the tables of all finished runs that tell of deciles; returns 0.

    Raises:
        SystemExit: none does, or they are of several datasets.
    """
    found: dict[str, list[cadc_deciles.Deciles]] = {}
    for name, seeds in finished(options.folder).items():
        told = [json.loads((path / "result.json").read_text()).get("by_frequency") for path in seeds]
        if all(told):
            found[name] = told
        else:
            print(f"{name}: left out, a run of it was made before deciles were told", file=sys.stderr)
    if not found:
        raise SystemExit(f"No run in {options.folder} tells of deciles.")
    print(cadc_deciles.tables(found))
    return 0


def main(words: list[str]) -> int:
    """Does what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_train, of_table, of_plot, of_deciles = map(verbs.add_parser, ("train", "table", "plot", "deciles"))
    for one in (of_train, of_table, of_plot, of_deciles):
        one.add_argument("folder", type=Path)
    for one in (of_table, of_plot):
        one.add_argument("suite")
    of_train.add_argument("--steps", type=int, help="of each network; without, to convergence")
    of_train.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    of_train.add_argument("--rates", type=int, nargs="+", default=list(RATES), choices=RATES)
    of_train.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="NAME@RATE, or a part of names"
    )
    of_train.add_argument("--network", nargs="+", default=[], metavar="WORD", help="settings of networks")
    of_table.add_argument("how")
    of_plot.add_argument("title")
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    options.overrides = words[at + 1 :]
    told = {"table": table, "plot": plot, "deciles": deciles}
    return told[options.verb](options) if options.verb in told else min(1, train(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
