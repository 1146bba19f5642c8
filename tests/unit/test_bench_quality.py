"""What `benchmarks/quality.py` reads from run folders, and what it makes of it."""

import importlib.util
import json
from pathlib import Path

import pytest

from effrec_cli.bench.tables import suite_tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quality(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("quality", ROOT / "benchmarks" / "quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


@pytest.fixture
def runs(tmp_path):
    """Three seeds of a variant and one of another, whose cold cases are too few to tell."""
    for name, seed, score, cold in (
        ("a-b", 1, 0.1, 500),
        ("a-b", 2, 0.3, 500),
        ("a-b", 3, 0.2, 500),
        ("c", 1, 0.5, 5),
    ):
        test = {
            "ndcg@10": score,
            "hr@10": 2 * score,
            "hr@10_cold": score / 2,
            "mrr@5": 0.3,
            "cases_cold": cold,
        }
        result = {
            "seed": seed,
            "commit": str(seed) * 40,
            "metrics": {"test": test, "valid": {"hr@10": 3 * score, "ndcg@10": 0.9}},
            "cost": {"epochs": 7 * seed, "seconds_per_epoch": 1.5},
            "config": {"evaluation": {"monitor": "hr@10"}},
        }
        folder = tmp_path / "runs" / f"{name}-{seed}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result))
    (tmp_path / "runs" / "a-b-4").mkdir()
    return tmp_path / "runs"


def test_a_variant_is_one_record_over_the_seeds_that_are_finished(quality, runs, tmp_path):
    quality.main(["quality-toy", "all of it", str(runs)])
    (path,) = (tmp_path / "results").glob("quality-toy-*.json")
    both = {record["peer"]: record for record in quality.records.read(path)}
    assert list(both) == ["a-b", "c"]
    figures = both["a-b"]["figures"]
    assert both["a-b"]["parameters"] == {"seeds": 3}
    assert (figures["ndcg@10"]["median"], figures["ndcg@10"]["min"], figures["ndcg@10"]["max"]) == (
        0.2,
        0.1,
        0.3,
    )
    assert figures["valid hr@10"]["median"] == pytest.approx(0.6)
    assert figures["epochs"]["median"] == 14
    assert "mrr@5" not in figures
    assert both["a-b"]["commit"].split(", ") == ["1" * 40, "2" * 40, "3" * 40]


def test_cold_cases_are_told_where_there_are_many(quality, runs, tmp_path):
    records = {made["peer"]: made for made in quality.recorded("quality-toy", "cell", runs, {})}
    assert "hr@10_cold" in records["a-b"]["figures"]
    assert "hr@10_cold" not in records["c"]["figures"]


def test_named_variants_come_in_their_order_under_their_names(quality, runs, tmp_path):
    quality.main(["quality-toy", "cell", str(runs), "c=the other", "a-b=the first"])
    table = suite_tables("quality-toy", tmp_path / "results")
    assert table.index("the other") < table.index("the first")


def test_a_variant_without_a_finished_run_is_refused_by_name(quality, runs):
    with pytest.raises(SystemExit, match="No finished run of d"):
        quality.recorded("quality-toy", "cell", runs, {"d": "d"})
