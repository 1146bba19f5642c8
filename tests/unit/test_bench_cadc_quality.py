"""What `benchmarks/cadc_quality.py` runs, and what it makes of finished runs."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from effrec_cli.compose import compose

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quality():
    spec = importlib.util.spec_from_file_location("cadc_quality", ROOT / "benchmarks" / "cadc_quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def asked(quality, monkeypatch):
    """Returns the runs that are started, each by its words, where every one but those of seed 9 succeeds."""
    found = []

    def started(command, **options):
        found.append(command[command.index("train") + 1 :])
        return subprocess.CompletedProcess(command, int("seed=9" in command), "", "no\nluck")

    monkeypatch.setattr(quality.subprocess, "run", started)
    return found


def test_the_table_has_every_strategy_and_baseline_at_every_rate(quality):
    names = set(quality.variants())
    at_rates = {
        f"{who}@{rate}" for who in ("rand", "init_frz", "init_upd", "residual") for rate in quality.RATES
    }
    of_samples = {
        f"{who}@{rate}" for who in ("mf", "init_frz_of_sample") for rate in quality.RATES if rate < 100
    }
    assert names == {"pop@100", "mf@100"} | at_rates | of_samples
    fewer = set(quality.variants((5,)))
    assert {"rand@100", "init_frz@100", "mf@100", "mf@5", "residual@5"} < fewer, "full training stays beside"
    assert not {"residual@100", "rand@10"} & fewer


@pytest.mark.parametrize("steps", [None, 12_000])
def test_every_variant_is_a_valid_run(quality, steps, tmp_path):
    for name, words in quality.variants().items():
        rate = int(name.rpartition("@")[2]) / 100
        config = compose(["dataset=synthetic", *quality.overrides_of(words, 3, steps, tmp_path)])
        own, run = config.method, config.run
        assert (config.seed, run.resume, run.dir) == (3, "auto", str(tmp_path))
        assert (run.max_steps, run.patience) == ((None, quality.PATIENCE) if steps is None else (steps, None))
        assert run.validate_every == (1 if steps is None else 3)
        if name.startswith("init_frz_of_sample"):
            assert (config.dataset.sample.rate, own.sample.rate, own.embedding) == (rate, 1, "init_frz")
        elif own.name == "cadc":
            assert (config.dataset.sample.rate, own.sample.rate) == (1, rate), "the factors are of all rows"
            assert own.embedding == name.partition("@")[0]
        else:
            assert (own.name, config.dataset.sample.rate) == ("pop" if "pop" in name else "ials", rate)


def test_finished_runs_are_left_alone_and_seeds_go_in_turn(quality, asked, tmp_path):
    (tmp_path / "mf@100-1").mkdir()
    (tmp_path / "mf@100-1" / "result.json").write_text("{}")
    words = ["train", str(tmp_path), "--seeds", "1", "2", "--only", "mf@100", "pop"]
    assert quality.main([*words, "--", "dataset=synthetic", "run.patience=5"]) == 0
    folders = [next(word for word in each if word.startswith("run.dir=")) for each in asked]
    assert [Path(each).name for each in folders] == ["pop@100-1", "pop@100-2", "mf@100-2"]
    assert asked[0][-2:] == ["dataset=synthetic", "run.patience=5"], "the user has the last word"


def test_a_run_that_fails_stops_no_other_and_is_told(quality, asked, tmp_path, capsys):
    assert quality.main(["train", str(tmp_path), "--seeds", "9", "1", "--only", "pop"]) == 1
    assert len(asked) == 2
    assert "pop@100-9: ended with code 1\nno\nluck" in capsys.readouterr().out


def test_records_have_a_cell_for_each_rate(quality, tmp_path):
    cost = {"epochs": 7, "seconds_per_epoch": 1.5, "seconds_total": 20.0}
    cost |= {"seconds_cache": 4.0, "seconds_factorise": 0.0, "seconds_sample": None}
    for name, score in (("residual@10", 0.3), ("rand@10", 0.1), ("rand@100", 0.2), ("pop@100", 0.05)):
        for seed in (1, 2):
            result = {
                "seed": seed,
                "commit": "c" * 40,
                "metrics": {"test": {"ndcg@10": score}, "valid": {"ndcg@10": score}},
                "cost": cost | ({"seconds_per_epoch": None} if name.startswith("pop") else {}),
                "config": {"evaluation": {"monitor": "ndcg@10"}},
            }
            folder = tmp_path / f"{name}-{seed}"
            folder.mkdir()
            (folder / "result.json").write_text(json.dumps(result))
    made = quality.records_of("quality-cadc-toy", "at convergence", tmp_path)
    assert [(each["cell"], each["peer"], each["figures"]["ndcg@10"]["median"]) for each in made] == [
        ("10 %, at convergence", "rand", 0.1),
        ("10 %, at convergence", "residual", 0.3),
        ("100 %, at convergence", "pop", 0.05),
        ("100 %, at convergence", "rand", 0.2),
    ]
    assert ["epoch" in each["figures"] for each in made] == [True, True, False, True]
    assert {each["suite"] for each in made} == {"quality-cadc-toy"}
    assert all(len(each["runs"]) == 2 for each in made)
    assert made[0]["figures"]["in all"] == {
        "unit": "s",
        "median": 24.0,
        "min": 24.0,
        "max": 24.0,
        "repeats": 2,
    }
    with pytest.raises(SystemExit, match="No finished run"):
        quality.records_of("quality-cadc-toy", "", tmp_path / "none")
