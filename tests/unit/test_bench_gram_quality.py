"""What `benchmarks/gram_quality.py` runs, what it reads from run folders, and what it makes of it."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from effrec_cli.bench.tables import suite_tables
from effrec_cli.compose import compose

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quality(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("gram_quality", ROOT / "benchmarks" / "gram_quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def write_run(quality, folder, mode, seed, curve, test):
    """Writes a finished run that validated at (seconds, auc)s."""
    method = {"update": "inject_multi", **quality.MODES[mode], "encoder": {"name": None}}
    config = {"method": method, "evaluation": {"monitor": "auc"}, "run": {"max_minutes": 2.0}}
    result = {
        "dataset": {"name": "toy"},
        "model": "dkt",
        "config": config,
        "seed": seed,
        "commit": str(seed) * 40,
        "metrics": {"test": {"auc": test, "auc_cold": test - 0.1, "auc_low": 0.1, "mrr@5": 0.3}},
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    lines = [
        {"kind": "valid", "step": 5 * at, "epoch": at, "auc": score, "elapsed_s": seconds}
        for at, (seconds, score) in enumerate(curve, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def finished(quality, tmp_path):
    runs = tmp_path / "runs"
    epoch = "multi_step, epoch, inject_multi"
    for seed in (1, 2):
        write_run(quality, runs / f"a{seed}", "e2e", seed, [(60.0, 0.6), (120.0, 0.7)], 0.7)
        write_run(quality, runs / f"b{seed}", epoch, seed, [(10.0 * seed, 0.7), (20.0 * seed, 0.8)], 0.78)
        write_run(quality, runs / f"c{seed}", "frozen", seed, [(1.0, 0.65)], 0.6 + seed / 100)
    quality.main(["table", str(runs)])
    (path,) = (tmp_path / "results").glob("quality-gram-toy-*.json")
    return {record["peer"]: record for record in quality.records.read(path)}


def test_scores_are_told_with_the_time_to_those_of_e2e(finished):
    assert list(finished) == ["e2e", "multi_step, epoch, inject_multi", "frozen"]
    cycles = finished["multi_step, epoch, inject_multi"]
    figures = {name: one["median"] for name, one in cycles["figures"].items()}
    assert figures == pytest.approx(
        {"auc": 0.78, "auc_cold": 0.68, "epochs": 2, "steps": 10, "to e2e's best": 15.0}
    )
    assert finished["e2e"]["figures"]["to e2e's best"]["median"] == 120
    assert "to e2e's best" not in finished["frozen"]["figures"], "it was never as good"
    assert (finished["frozen"]["figures"]["auc"]["min"], finished["frozen"]["figures"]["auc"]["max"]) == (
        0.61,
        0.62,
    )
    assert cycles["cell"] == "dkt, built-in, 2 minutes"
    assert cycles["commit"] == f"{'1' * 40}, {'2' * 40}"


def test_records_make_a_table(finished, tmp_path):
    table = suite_tables("quality-gram-toy", tmp_path / "results")
    assert "| dkt, built-in, 2 minutes: 2 seeds | e2e |" in table
    assert "to e2e's best, s" in table
    assert "commit 11111111, 22222222;" in table


def test_every_mode_is_a_valid_run(quality, tmp_path):
    for mode in quality.MODES:
        words = ["dataset=synthetic", "model=dkt", *quality.overrides_of(mode, 3, 0.5, tmp_path)]
        config = compose(words)
        assert config.seed == 3
        assert (config.run.max_minutes, config.run.patience, config.run.resume) == (0.5, None, "auto")
        assert quality.MODES[mode].items() <= vars(config.method).items()


def test_recording_runs_what_is_not_finished_seed_by_seed(quality, tmp_path, monkeypatch):
    ran = []

    def run(command, **options):
        ran.append([word for word in command if word.startswith(("run.dir", "dataset", "seed"))])
        return subprocess.CompletedProcess(command, 0 if len(ran) > 1 else 3, "", "data are missing\n")

    monkeypatch.setattr(quality.subprocess, "run", run)
    done = tmp_path / "frozen" / "seed-1"
    done.mkdir(parents=True)
    (done / "result.json").write_text("{}")
    words = ["record", str(tmp_path), "5", "--seeds", "1", "2", "--modes", "e2e", "frozen"]
    assert quality.main([*words, "--", "dataset=toy"]) == 1, "one of the runs failed"
    assert ran == [
        ["dataset=toy", f"run.dir={tmp_path}/e2e/seed-1", "seed=1"],
        ["dataset=toy", f"run.dir={tmp_path}/e2e/seed-2", "seed=2"],
        ["dataset=toy", f"run.dir={tmp_path}/frozen/seed-2", "seed=2"],
    ]


def test_modes_are_chosen_by_name_or_part_of_it(quality):
    assert quality.chosen([]) == list(quality.MODES)
    assert quality.chosen(["e2e"]) == ["e2e"]
    assert len(quality.chosen(["epoch"])) == 3
