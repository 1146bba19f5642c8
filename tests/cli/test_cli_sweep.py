"""`effrec train -m`: folders, failures, the table and what is refused before anything runs."""

import json
from pathlib import Path

import pytest

from effrec_cli.errors import DataError, Interrupted
from effrec_cli.outcomes import Outcome


def the_sweep():
    """Returns the only sweep's folder."""
    (folder,) = Path("outputs/sweeps").iterdir()
    return folder


def test_each_job_has_a_folder_and_nothing_else_is_written(effrec, stub_run, tmp_path):
    done = effrec("train", "-m", "method=cce,pop", "seed=1,2")
    assert done.code == 0, done.err
    folder = the_sweep()
    named = [
        f"{number}-synthetic-{method}-seed{seed}"
        for number, (method, seed) in enumerate([("cce", 1), ("cce", 2), ("pop", 1), ("pop", 2)])
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*named, "jobs", "multirun.yaml"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
    assert [Path(config.run.dir) for config, _ in stub_run.calls] == [
        folder.absolute() / name for name in named
    ]
    assert [config.model.name for config, _ in stub_run.calls] == ["sasrec", "sasrec", "none", "none"]
    assert stub_run.calls[3][1] == ["method=pop", "seed=2"]


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("method.last=5", lambda config: config.method.last == 5),
        ("method.last=null", lambda config: config.method.last is None),
        ("run.max_minutes=2.5", lambda config: config.run.max_minutes == 2.5),
        ("dataset.name='a, b'", lambda config: config.dataset.name == "a, b"),
    ],
)
def test_settings_that_only_the_swept_methods_have(effrec, stub_run, override, found):
    done = effrec("train", "-m", "method=itemknn,ease", override)
    assert done.code == 0, done.err
    assert [config.method.name for config, _ in stub_run.calls] == ["itemknn", "ease"]
    assert all(found(config) for config, _ in stub_run.calls)


def test_lists_reach_the_jobs_of_a_swept_group(effrec, stub_run):
    assert effrec("train", "-m", "optimizer=adam,adamw", "optimizer.betas=[0.8,0.9]").code == 0
    assert [config.optimizer.betas for config, _ in stub_run.calls] == [[0.8, 0.9], [0.8, 0.9]]


def test_a_setting_that_one_of_the_swept_methods_lacks_is_refused(effrec, stub_run):
    done = effrec("train", "-m", "method=itemknn,pop", "method.num_neighbors=20")
    assert done.code == 2
    assert "method.num_neighbors" in done.err
    assert not stub_run.calls


def test_the_table_shows_what_differs(effrec, stub_run):
    done = effrec("train", "-m", "method=pop", "seed=1,2")
    lines = done.out.strip().splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("job"))
    assert "valid ndcg@10" in lines[header]
    rows = [line.split() for line in lines[header + 1 : header + 3]]
    assert [row[:5] for row in rows] == [
        ["0", "seed=1", "done", "0.1000", "0.5000"],
        ["1", "seed=2", "done", "0.2000", "0.5000"],
    ]
    assert rows[1][-1] == str(the_sweep() / "1-synthetic-pop-seed2")
    assert f"next: effrec compare {the_sweep()}" in done.out


def test_every_job_runs_and_the_first_failure_decides(effrec, stub_run):
    def answer(config):
        if config.seed == 2:
            raise DataError("the file is empty", where="x.csv")
        if config.seed == 3:
            raise ZeroDivisionError("a bug")

    stub_run.answer = answer
    done = effrec("train", "-m", "method=pop", "seed=1,2,3,4")
    assert done.code == 3
    assert [config.seed for config, _ in stub_run.calls] == [1, 2, 3, 4]
    outcomes = Outcome.read_all(the_sweep() / "jobs")
    assert [each.status for each in outcomes] == ["done", "failed", "failed", "done"]
    assert [each.exit_code for each in outcomes] == [0, 3, 1, 0]
    assert "effrec: the file is empty\n  where: x.csv" in done.err
    assert "failed (3)" in done.out
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Interrupted("told to stop"), 143)])
def test_an_interrupt_stops_the_sweep(effrec, stub_run, error, code):
    def answer(config):
        if config.seed == 2:
            raise error

    stub_run.answer = answer
    done = effrec("train", "-m", "method=pop", "seed=1,2,3")
    assert done.code == code
    assert [config.seed for config, _ in stub_run.calls] == [1, 2]
    assert [each.status for each in Outcome.read_all(the_sweep() / "jobs")] == ["done", "interrupted"]
    assert "interrupted" in done.out


@pytest.mark.parametrize(
    "override", ["seed=1,-5", "method=cce,pp", "method.num_negatives=1,x", "+method.x=1,2"]
)
def test_a_wrong_job_stops_the_sweep_before_any_runs(effrec, stub_run, tmp_path, override):
    done = effrec("train", "-m", override)
    assert done.code == 2
    assert not stub_run.calls
    assert not list(tmp_path.glob("outputs/sweeps/*")), "no empty folder is left"


def test_a_wrong_job_is_named(effrec, stub_run):
    assert "in the job seed=-5" in effrec("train", "-m", "seed=1,-5").err


def test_one_folder_for_all_is_refused(effrec, stub_run):
    done = effrec("train", "-m", "seed=1,2", "run.dir=mine")
    assert done.code == 2
    assert "cannot share" in done.err
    assert "hydra.sweep.dir=mine" in done.err
    assert not stub_run.calls


@pytest.mark.parametrize(
    "override", ["run.dir='mine-${seed}'", "run.dir=mine-1,mine-2", "run.dir='mine-${hydra:job.num}'"]
)
def test_a_folder_for_each_is_taken(effrec, stub_run, override):
    swept = ["seed=1,2"] if "," not in override else ["seed=1"]
    done = effrec("train", "-m", *swept, override)
    assert done.code == 0, done.err
    assert len({config.run.dir for config, _ in stub_run.calls}) == 2
    assert all(config.run.dir.startswith("mine-") for config, _ in stub_run.calls)
    assert sorted(path.name for path in the_sweep().iterdir()) == ["jobs", "multirun.yaml"]


def test_a_place_of_ones_own(effrec, stub_run, tmp_path):
    done = effrec(
        "train", "-m", "seed=1,2", "hydra.sweep.dir=all here", "hydra.sweep.subdir='job${hydra.job.num}'"
    )
    assert done.code == 0, done.err
    assert [config.run.dir for config, _ in stub_run.calls] == [
        str(tmp_path / "all here" / f"job{n}") for n in (0, 1)
    ]
    assert not Path("outputs").exists()


def test_a_second_sweep_in_a_folder_forgets_the_first(effrec, stub_run):
    assert effrec("train", "-m", "seed=1,2,3", "hydra.sweep.dir=here").code == 0
    done = effrec("train", "-m", "seed=1", "hydra.sweep.dir=here", "run.resume=auto")
    assert done.code == 0
    assert len(Outcome.read_all(Path("here/jobs"))) == 1


def test_two_sweeps_in_one_second_do_not_meet(effrec, stub_run, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda pattern: "now")
    for _ in range(2):
        assert effrec("train", "-m", "method=pop", "seed=1,2").code == 0
    assert sorted(path.name for path in Path("outputs/sweeps").iterdir()) == ["now", "now_2"]


def test_mode_may_be_set_by_config(effrec, stub_run):
    assert effrec("train", "hydra.mode=MULTIRUN", "seed=1,2").code == 0
    assert [config.seed for config, _ in stub_run.calls] == [1, 2]


def test_sweep_functions(effrec, stub_run):
    assert effrec("train", "-m", "seed=range(1,4)", "optimizer.lr=choice(1e-3,1e-2)").code == 0
    assert len(stub_run.calls) == 6


def test_outcomes_are_plain_json(effrec, stub_run):
    effrec("train", "-m", "method=pop", "seed=1,2")
    kept = json.loads((the_sweep() / "jobs" / "1.json").read_text())
    assert kept["overrides"] == ["method=pop", "seed=2"]
    assert (kept["metric"], kept["valid"], kept["test"]) == ("ndcg@10", 0.2, 0.5)


def test_a_job_can_travel_to_another_process():
    import pickle

    from hydra._internal.utils import create_config_search_path

    from effrec_cli.jobs import SweepJob
    from effrec_cli.sweep import CheckedLoader

    job = pickle.loads(pickle.dumps(SweepJob(Path("x"))))
    assert job.outcomes == Path("x")
    loader = pickle.loads(pickle.dumps(CheckedLoader(create_config_search_path(None))))
    assert isinstance(loader, CheckedLoader)


def test_torchrun_cannot_start_a_sweep(effrec, stub_run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = effrec("train", "-m", "seed=1,2")
    assert done.code == 2
    assert "run.devices=N" in done.err
    assert not stub_run.calls


@pytest.mark.slow
def test_a_sweep_that_really_trains(effrec_process, tmp_path):
    tiny = [
        "dataset.num_users=60",
        "dataset.num_items=40",
        "dataset.num_clusters=4",
        "run.max_steps=2",
        "model.dim=8",
    ]
    done = effrec_process("train", "-m", "seed=1,2", *tiny)
    assert done.returncode == 0, done.stderr
    for outcome in Outcome.read_all(the_sweep() / "jobs"):
        result = json.loads((Path(outcome.folder) / "result.json").read_text())
        assert result["metrics"]["test"]["ndcg@10"] == outcome.test
        assert result["metrics"]["valid"]["ndcg@10"] == outcome.valid


def test_the_papers_grid_joins_the_settings_of_a_run_and_yields_to_what_is_typed(effrec, stub_run):
    """A grid is hydra.sweeper.params of an experiment: 8 x 7 x 6 jobs, fewer where values are named."""
    chosen = "experiment=[paper_cce_ml20m,paper_cce_grid]"
    done = effrec("train", "-m", chosen, "method.num_negatives=256,512", "model.max_length=64")
    assert done.code == 0, done.err
    jobs = [(config.method.num_negatives, config.method.batch_size) for config, _ in stub_run.calls]
    assert jobs == [(n, b) for n in (256, 512) for b in (16, 32, 64, 128, 256, 512, 1024)]
    assert {config.model.max_length for config, _ in stub_run.calls} == {64}
    assert {(config.dataset.name, config.model.dim) for config, _ in stub_run.calls} == {("ml-20m", 256)}
