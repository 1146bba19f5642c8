"""What `benchmarks/sharing.py` reads from run folders, and what it makes of it."""

import importlib.util
import json
from pathlib import Path

import pytest

from effrec_cli.bench.tables import suite_tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sharing():
    spec = importlib.util.spec_from_file_location("sharing", ROOT / "benchmarks" / "sharing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder, shared, seed, curve, test, step_s):
    """Writes a finished run that validated at (step, score)s; validating takes a second each time."""
    method = {"num_negatives": 127, "sharing": shared, "tile_rows": 16}
    result = {"dataset": {"name": "toy"}, "config": {"method": method}, "seed": seed, "commit": "c" * 40}
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | {"metrics": {"test": {"ndcg@10": test}}}))
    elapsed, last, lines = 0.0, 0, []
    for step, score in curve:
        for at in (step - 1, step):
            elapsed, last = elapsed + step_s * (at - last), at
            lines.append({"kind": "train", "step": at, "elapsed_s": elapsed})
        elapsed += 1
        lines.append({"kind": "valid", "step": step, "ndcg@10": score, "elapsed_s": elapsed})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def results(sharing, tmp_path, monkeypatch):
    runs, pace = tmp_path / "runs", tmp_path / "pace"
    for seed, lift in ((1, 0.0), (2, 0.1)):
        write_run(runs / f"row-{seed}", "row", seed, [(10, 0.1), (20, 0.3 + lift)], 0.2 + lift, 9.0)
        write_run(runs / f"tile-{seed}", "tile", seed, [(10, 0.2), (20, 0.25)], 0.15, 9.0)
    write_run(pace / "row", "row", 1, [(5, 0.0)], 0.0, 2.0)
    write_run(pace / "tile", "tile", 1, [(5, 0.0)], 0.0, 1.0)
    monkeypatch.setattr(sharing, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sharing, "CURVE", 2)
    monkeypatch.setattr(sharing, "PLOTS", tmp_path / "plots")
    sharing.keep(runs, pace)
    return tmp_path / "results"


def test_scores_are_kept_at_equal_steps_and_at_equal_time(sharing, results):
    (path,) = results.glob("sharing-toy-*.json")
    row, tile = sharing.records.read(path)
    assert (row["cell"], row["peer"], tile["peer"]) == ("N = 127", "row", "tiles of 16")
    assert row["commit"] == "c" * 40
    figures = {name: one["median"] for name, one in row["figures"].items()}
    # In the 20 s that 20 steps of a tile take, rows on their own make 10 steps.
    assert figures == pytest.approx({"test": 0.25, "valid": 0.35, "valid, equal time": 0.1, "step": 2000})
    assert tile["figures"]["valid, equal time"]["median"] == 0.25
    assert row["figures"]["test"]["min"] == 0.2


def test_records_make_a_table(results):
    table = suite_tables("sharing-toy", results)
    assert "| N = 127: " in table
    assert "| tiles of 16 |" in table


def test_plots_are_drawn(sharing, results):
    pytest.importorskip("matplotlib")
    sharing.plot()
    assert "test NDCG@10" in (sharing.PLOTS / "sharing-toy.svg").read_text()
