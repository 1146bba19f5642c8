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

    monkeypatch.setattr(quality.many_runs.subprocess, "run", started)
    return found


def test_the_table_has_every_strategy_and_baseline_at_every_rate(quality):
    names = set(quality.variants())
    at_rates = {
        f"{who}@{rate}" for who in ("rand", "init_frz", "init_upd", "residual") for rate in quality.RATES
    }
    of_rest = {
        f"{who}@{rate}"
        for who in ("init_frz_rest", "residual_rest", "init_frz_rest_folded", "residual_rest_folded")
        for rate in quality.RATES
        if rate < 100
    }
    of_samples = {
        f"{who}@{rate}" for who in ("mf", "init_frz_of_sample") for rate in quality.RATES if rate < 100
    }
    assert names == {"pop@100", "mf@100", "mf_folded@100"} | at_rates | of_rest | of_samples
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
            strategy, _, how = name.partition("@")[0].partition("_rest")
            assert own.embedding == strategy
            assert (own.factorise == "rest") is ("_rest" in name)
            assert (own.users == "fold_in") is (how == "_folded")
        else:
            assert (own.name, config.dataset.sample.rate) == ("pop" if "pop" in name else "ials", rate)


def test_finished_runs_are_left_alone_and_seeds_go_in_turn(quality, asked, tmp_path):
    (tmp_path / "mf@100-1").mkdir()
    (tmp_path / "mf@100-1" / "result.json").write_text("{}")
    words = [
        "train",
        str(tmp_path),
        "--seeds",
        "1",
        "2",
        "--only",
        "mf@100",
        "pop",
        "--network",
        "model.dim=8",
    ]
    assert quality.main([*words, "--", "dataset=synthetic", "run.patience=5"]) == 0
    folders = [next(word for word in each if word.startswith("run.dir=")) for each in asked]
    assert [Path(each).name for each in folders] == ["pop@100-1", "pop@100-2", "mf@100-2"]
    assert asked[0][-2:] == ["dataset=synthetic", "run.patience=5"], "the user has the last word"
    asked.clear()
    assert (
        quality.main(["train", str(tmp_path), "--only", "rand@1", *words[-2:], "--", "run.patience=5"]) == 0
    )
    assert {each[-1] for each in asked} == {"model.dim=8"}, "of networks; the others would refuse it"


def test_a_run_that_fails_stops_no_other_and_is_told(quality, asked, tmp_path, capsys):
    assert quality.main(["train", str(tmp_path), "--seeds", "9", "1", "--only", "pop"]) == 1
    assert len(asked) == 2
    assert "pop@100-9: ended with code 1\nno\nluck" in capsys.readouterr().out


COST = {"epochs": 7, "seconds_per_epoch": 1.5, "seconds_total": 20.0}
COST |= {"seconds_cache": 4.0, "seconds_factorise": 0.0, "seconds_sample": None}


def leave_run(folder, score, seed=1, cost=COST, **more):
    """Leaves what a finished run says in FOLDER-SEED."""
    found = {
        "seed": seed,
        "commit": "c" * 40,
        "metrics": {"test": {"ndcg@10": score}, "valid": {"ndcg@10": score}},
        "cost": cost,
        "config": {"evaluation": {"monitor": "ndcg@10"}},
        **more,
    }
    folder = folder.with_name(f"{folder.name}-{seed}")
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(found))


def test_records_have_a_cell_for_each_rate(quality, tmp_path):
    for name, score in (("residual@10", 0.3), ("rand@10", 0.1), ("rand@100", 0.2), ("pop@100", 0.05)):
        cost = COST | ({"seconds_per_epoch": None} if name.startswith("pop") else {})
        for seed in (1, 2):
            leave_run(tmp_path / name, score, seed, cost)
    made = quality.records_of("quality-cadc-toy", "at convergence", tmp_path)
    assert [(each["cell"], each["peer"], each["figures"]["ndcg@10"]["median"]) for each in made] == [
        ("10 %, at convergence", "rand", 0.1),
        ("10 %, at convergence", "residual", 0.3),
        ("100 %, at convergence", "pop", 0.05),
        ("100 %, at convergence", "rand", 0.2),
    ]
    assert all("epoch" not in each["figures"] for each in made), "epochs of a rate are no epochs of another"
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


def test_the_front_is_of_what_nothing_beats(quality):
    points = [(3.0, 0.2), (1.0, 0.1), (2.0, 0.1), (4.0, 0.2), (3.0, 0.15), (5.0, 0.3)]
    assert quality.cadc_pareto.front(points) == [(1.0, 0.1), (3.0, 0.2), (5.0, 0.3)]


@pytest.fixture
def drawn(quality, tmp_path, monkeypatch):
    """Returns the text of the plot of a few runs, drawn again for each call."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(quality, "PLOTS", tmp_path / "plots")
    for seed, lift in ((1, 0.0), (2, 0.1)):
        leave_run(tmp_path / "runs" / "residual@10", 0.3 + lift, seed)
        leave_run(tmp_path / "runs" / "rand@10", 0.2, seed, COST | {"seconds_total": 40.0 + lift})
        leave_run(tmp_path / "runs" / "rand@100", 0.4 + lift, seed, COST | {"seconds_total": 400.0})

    def draw():
        assert quality.main(["plot", str(tmp_path / "runs"), "pareto-toy", "Toys & 5,000 steps"]) == 0
        return (tmp_path / "plots" / "pareto-toy.svg").read_text()

    return draw


def test_a_plot_names_strategies_and_rates_and_is_the_same_twice(drawn):
    text = drawn()
    for said in ("residual", "rand", "front", "10 %", "100 %", "test NDCG@10", "Toys &amp; 5,000 steps"):
        assert f">{said}<" in text, said
    assert ">init_upd<" not in text, "of which no run is finished"
    assert drawn() == text


def told(first, second):
    """Returns `by_frequency` with two deciles of users and one of items."""

    def group(decile, rows, score):
        return {"decile": decile, "rows": rows, "cases": 1000 * decile, "ndcg@10": score, "hr@10": 1.0}

    return {"users": [group(1, [2, 2], first), group(9, [3, 5000], second)], "items": [group(5, [1, 9], 0.5)]}


def test_deciles_are_means_over_seeds(quality, tmp_path, capsys):
    leave_run(tmp_path / "rand@10", 0.1, 1, by_frequency=told(0.1, 0.5))
    leave_run(tmp_path / "rand@10", 0.1, 2, by_frequency=told(0.2, 0.7))
    leave_run(tmp_path / "mf@100", 0.1, 1, by_frequency=told(0.3, 0.4))
    leave_run(tmp_path / "pop@100", 0.1, 1)
    assert quality.main(["deciles", str(tmp_path)]) == 0
    said = capsys.readouterr()
    users, _, items = said.out.partition("**Test NDCG@10 by the training rows of the target**")
    assert users.splitlines()[2:7] == [
        "| rows | 2 | 3 to 5,000 |",
        "| --- | ---: | ---: |",
        "| cases | 1,000 | 9,000 |",
        "| mf@100 | **0.3000** | 0.4000 |",
        "| rand@10 | 0.1500 | **0.6000** |",
    ]
    assert "| rows | 1 to 9 |" in items
    assert said.err.startswith("pop@100: left out")


def test_deciles_of_several_datasets_or_of_old_runs_are_no_table(quality, tmp_path):
    leave_run(tmp_path / "old" / "pop@100", 0.1)
    with pytest.raises(SystemExit, match="tells of deciles"):
        quality.main(["deciles", str(tmp_path / "old")])
    other = told(0.1, 0.2)
    other["items"][0]["rows"] = [1, 8]
    leave_run(tmp_path / "rand@10", 0.1, 1, by_frequency=told(0.1, 0.2))
    leave_run(tmp_path / "mf@100", 0.1, 1, by_frequency=other)
    with pytest.raises(SystemExit, match="unlike deciles of items"):
        quality.main(["deciles", str(tmp_path)])
