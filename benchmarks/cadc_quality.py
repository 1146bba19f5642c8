"""Quality of method cadc by strategy and rate beside its baselines: whole runs, and records made of them.

    python benchmarks/cadc_quality.py train FOLDER [--steps N] [--seeds 1 2 3] [--rates 1 5 ...]
        [--only TEXT ...] -- dataset=ml-latest-small dataset.path=FILES
    python benchmarks/cadc_quality.py table FOLDER SUITE HOW

`train` runs each variant into FOLDER/NAME-SEED: with `--steps` all networks train so many steps, without they
train until validation has not gained for long. It may be broken off (Ctrl-C) and called again with the same
words: finished runs are left alone, begun ones go on. `table` writes `results/SUITE-DEVICE.json` of what is
finished, a cell for each rate; HOW says in words how long was trained, such as "5,000 steps".
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from effrec_cli.bench import records  # noqa: E402

RATES = (1, 5, 10, 25, 50, 100)
"""Percent of the training rows that the network trains on."""
STRATEGIES = ("rand", "init_frz", "init_upd", "residual")
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
    found = {"pop@100": ["method=pop"], "mf@100": ["method=ials"]}
    for rate in sorted({*rates, 100}, reverse=True):
        share = f"{rate / 100:g}"
        strategies = STRATEGIES if rate in rates else STRATEGIES[:2]
        if rate < 100:
            sampled = f"dataset.sample.rate={share}"
            found[f"mf@{rate}"] = ["method=ials", sampled]
            whole = ["method.sample.rate=1", "method.embedding=init_frz"]
            found[f"init_frz_of_sample@{rate}"] = ["method=cadc", sampled, *whole]
        for strategy in strategies:
            words = ["method=cadc", f"method.sample.rate={share}", f"method.embedding={strategy}"]
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
        if not options.only or any(text in name for text in options.only)
    }
    jobs = product(options.seeds, wanted.items())
    return sum(_run(f"{name}-{seed}", words, seed, options) != 0 for seed, (name, words) in jobs)


def _run(name: str, words: list[str], seed: int, options: argparse.Namespace) -> int:
    folder = options.folder.resolve() / name
    if (folder / "result.json").is_file():
        return 0
    # The user's words come last, so that they may change a variant's.
    asked = [*overrides_of(words, seed, options.steps, folder), *options.overrides]
    print(f"{name}: effrec train {' '.join(asked)}", flush=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, "-m", "effrec_cli", "train", *asked]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-4:])
        print(f"{name}: ended with code {done.returncode}\n{said}", flush=True)
    return done.returncode


def records_of(suite: str, how: str, folder: Path) -> list[records.Record]:
    """Returns one record a variant over its seeds, a cell for each rate, in the order of `variants`.

    Raises:
        SystemExit: no run is finished.
    """
    there = {path.parent.name.rpartition("-")[0] for path in folder.glob("*-*/result.json")}
    if not there:
        raise SystemExit(f"No finished run in {folder}.")
    quality, made = _quality(), []
    for rate in RATES:
        names = {name: name.rpartition("@")[0] for name in variants() if name.endswith(f"@{rate}")}
        told = {name: peer for name, peer in names.items() if name in there}
        made += quality.recorded(suite, f"{rate} %, {how}", folder, told, run_of) if told else []
    return made


def run_of(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says, and its seconds in all, factorising counted whichever run did it."""
    made = _quality().run_of(folder)
    cost = json.loads((folder / "result.json").read_text())["cost"]
    parts = (cost.get(f"seconds_{what}") or 0.0 for what in ("cache", "sample", "total"))
    made["scores"]["in all"] = sum(parts)
    return made


def _quality() -> Any:
    """Returns the script beside this one, which reads run folders."""
    spec = importlib.util.spec_from_file_location("quality", ROOT / "benchmarks" / "quality.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(options: argparse.Namespace) -> int:
    """Writes the records of all finished runs; returns 0."""
    for made in records_of(options.suite, options.how, options.folder):
        path = records.keep_runs(_quality().RESULTS, made)
        print(f"{made['cell']}, {made['peer']}, {len(made['runs'])} seeds: kept in {path}")
    return 0


def main(words: list[str]) -> int:
    """Does what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_train, of_table = verbs.add_parser("train"), verbs.add_parser("table")
    for one in (of_train, of_table):
        one.add_argument("folder", type=Path)
    of_train.add_argument("--steps", type=int, help="of each network; without, to convergence")
    of_train.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    of_train.add_argument("--rates", type=int, nargs="+", default=list(RATES), choices=RATES)
    of_train.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="variants named like one")
    of_table.add_argument("suite")
    of_table.add_argument("how")
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    options.overrides = words[at + 1 :]
    return table(options) if options.verb == "table" else min(1, train(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
