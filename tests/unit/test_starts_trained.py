"""A network that starts as a good ranker is validated before its first step, and training cannot harm it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from compare_helpers import make_result
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))
from toy import ToyMethod, make_config, make_engine, run

from effrec_cli.app import main
from effrec_cli.errors import Interrupted
from effrec_cli.evaluation.cost import CostMeter
from effrec_cli.loop.pace import Pace
from effrec_cli.report import figures
from effrec_cli.report.outlook import Outlook
from effrec_cli.report.tables import kept_words
from effrec_cli.result import read, write
from effrec_cli.tensorfile import read_tensors

SMALL = ["dataset.num_users=120", "dataset.num_items=80", "run.device=cpu", "evaluation.ks=[5,10]"]
CADC = ["method=cadc", "method.factors.dim=8"]
RESIDUAL = [*CADC, "method.embedding=residual"]
HARM = ["optimizer.lr=1", "run.patience=2", "run.max_epochs=9"]


class Trained(ToyMethod):
    """A toy that says it is good from the start."""

    starts_trained = True


class Crashing(Trained):
    """Dies in its third step, without a word."""

    def training_step(self, batch, engine):
        if batch.step == 2:
            raise ZeroDivisionError("a bug")
        return super().training_step(batch, engine)


class Clock:
    """A clock that only the test moves."""

    now = 100.0

    def __call__(self):
        return self.now


def curve(folder, kind="valid"):
    """Returns the records of a kind, less what the clock says."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in each.items() if k != "elapsed_s"} for each in records if each["kind"] == kind]


def places(folder):
    return [(each["step"], each["epoch"]) for each in curve(folder)]


def toy(path, kind=Trained, fault=None, **settings):
    return run(path, fault=fault, method=kind(make_config(**settings)), **settings)


def scripted(path, *scores, **settings):
    """Returns the engine of a run of these validation scores, and the weights it began with."""
    told, config = list(scores), make_config(**settings)
    engine = make_engine(path, config, method=Trained(config), validate=lambda: {"ndcg@10": told.pop(0)})
    first = {name: each.clone() for name, each in engine.method.state_dict().items()}
    engine.loop()
    engine.folder.close()
    return engine, first


def holds(engine, weights):
    engine.restore_best()
    return all(torch.equal(each, weights[name]) for name, each in engine.method.state_dict().items())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Returns a data root that the tests here share, so that it is factorised once."""
    return tmp_path_factory.mktemp("data")


def train(root, folder, *words):
    assert main(["train", f"data_root={root}", f"run.dir={folder}", *SMALL, *words]) == 0
    return json.loads((folder / "result.json").read_text())


# The loop.


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({}, [(0, 0), (4, 1), (8, 2), (12, 3)]),
        ({"run__validate_every": 2}, [(0, 0), (8, 2), (12, 3)]),
        ({"run__max_steps": 6}, [(0, 0), (4, 1), (6, 2)]),
        ({"run__max_minutes": 1e-9}, [(0, 0), (1, 1)]),
        ({"run__max_steps": 0}, [(0, 0)]),
        ({"run__max_epochs": 0}, [(0, 0)]),
    ],
)
def test_the_start_is_validated_once_under_any_limit(settings, validated, tmp_path):
    engine = toy(tmp_path, **settings)
    assert places(tmp_path) == validated
    assert engine.meter.counts["validated"] == len(validated)


def test_the_start_is_the_first_validation_that_patience_counts_from(tmp_path):
    engine, first = scripted(tmp_path, 0.3, 0.3, 0.2, run__max_epochs=9, run__patience=2)
    assert (engine.stopped, engine.steps, engine.selection.step) == ("patience", 8, 0)
    assert not all(torch.equal(each, first[name]) for name, each in engine.method.state_dict().items())
    assert holds(engine, first), "an equal score is no improvement"


def test_training_that_helps_is_kept(tmp_path):
    engine, first = scripted(tmp_path, 0.1, 0.2, 0.15, run__max_epochs=2)
    assert engine.selection.step == 4
    assert engine.progress.pace.validations_due == 3
    assert not holds(engine, first)


@pytest.mark.parametrize(("at", "count"), [("validate", 1), ("record", 1), ("step", 1), ("step", 6)])
def test_an_interrupted_run_ends_as_one_that_never_stopped(at, count, tmp_path):
    toy(tmp_path / "whole")
    with pytest.raises(Interrupted):
        toy(tmp_path / "part", fault={"signal": "SIGTERM", "at": at, "count": count})
    (tmp_path / "part" / ".lock").unlink()
    toy(tmp_path / "part")
    same_end(tmp_path)


def test_a_run_that_died_goes_on_from_the_start_that_is_validated_already(tmp_path):
    toy(tmp_path / "whole")
    with pytest.raises(ZeroDivisionError):
        toy(tmp_path / "part", kind=Crashing)
    (tmp_path / "part" / ".lock").unlink()
    engine = toy(tmp_path / "part")
    assert "resumed at step 0" in (tmp_path / "part" / "log.txt").read_text()
    assert engine.meter.counts["validated"] == 4
    assert engine.progress.pace.validations_due == 3
    same_end(tmp_path)


def same_end(folder):
    whole, part = folder / "whole", folder / "part"
    assert [step for step, _ in places(part)] == [0, 4, 8, 12]
    assert curve(part) == curve(whole)
    assert curve(part, "train") == curve(whole, "train")
    assert (part / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


# What is told of it.


def test_the_time_left_counts_the_start_among_the_validations():
    pace = Pace(clock := Clock())
    pace.start(0, 100, 10, due=True)
    assert pace.validations_due == 11
    with pace.validating():
        clock.now += 3.0
    for step in range(1, 4):
        clock.now += 0.125
        pace.mark(step)
    assert pace.left_s == pytest.approx(97 * 0.125 + 10 * 3.0)


def test_the_outlook_waits_for_steps_though_a_validation_is_measured():
    config = make_config(run__max_epochs=10, run__patience=10)
    pace = Pace(clock := Clock())
    outlook = Outlook(config, 10, "cpu", pace)
    pace.start(0, 100, 10, due=True)
    with pace.validating():
        clock.now += 3.0
    said = {}
    for step in range(1, 11):
        clock.now += 0.25
        pace.mark(step)
        said[step] = outlook.words(1.0)
    (words,) = filter(None, said.values())
    assert said[6] == words, "five steps, longer than a second"
    assert "and 3.0 s a validation; at most 10 epochs, 54 s from now; stops earlier" in words


def test_a_start_that_stays_the_best_takes_no_time_to_95_percent():
    meter = CostMeter(torch.device("cpu"), clock=(clock := Clock()))
    meter.start()
    for score in (0.4, 0.1):
        with meter.validating():
            clock.now += 5.0
        meter.validated(score)
        clock.now += 7.0
    meter.stop()
    found = meter.costs(nn.Linear(1, 1), training_rows=1)
    assert (found.seconds_to_95, found.seconds_validation, found.epochs) == (0.0, 10.0, 0)
    assert figures.seconds(found.seconds_to_95) == "0 ms"


# Method cadc.


@pytest.mark.parametrize(("embedding", "starts"), [("residual", 1), ("init_frz", 0)])
def test_residual_alone_has_a_line_of_step_0(embedding, starts, root, tmp_path):
    train(root, tmp_path / "run", *CADC, f"method.embedding={embedding}", "run.max_epochs=2")
    steps = [step for step, _ in places(tmp_path / "run")]
    assert steps.count(0) == starts
    assert len(steps) == 2 + starts


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_training_only_harms_ends_as_the_factorisation_to_the_bit(ranks, root, tmp_path, capfd):
    alone = train(root, tmp_path / "ials", "method=ials", "method.dim=8")
    harmed = train(root, tmp_path / "run", *RESIDUAL, *HARM, f"run.devices={ranks}")
    said = capfd.readouterr()
    assert harmed["metrics"] == alone["metrics"]
    assert harmed["by_frequency"] == alone["by_frequency"]
    assert (harmed["best_step"], alone.get("best_step")) == (0, None)
    assert [epoch for _, epoch in places(tmp_path / "run")] == [0, 1, 2], "two without gain are enough"
    scores = [each["ndcg@10"] for each in curve(tmp_path / "run")]
    assert scores[0] == harmed["metrics"]["valid"]["ndcg@10"] > max(scores[1:])
    assert "epoch 0  step 0/" in said.err
    assert said.out.count("weights of step 0, before training") == 1
    assert main(["show", str(tmp_path / "run")]) == main(["compare", str(tmp_path)]) == 0
    assert "weights   of step 0, before training" in capfd.readouterr().out


def test_a_run_that_went_on_says_which_step_it_kept(root, tmp_path):
    whole = train(root, tmp_path / "whole", *RESIDUAL, "run.max_epochs=3")
    train(root, tmp_path / "part", *RESIDUAL, "run.max_epochs=1")
    (tmp_path / "part" / "status.json").write_text('{"state": "interrupted"}')
    part = train(root, tmp_path / "part", *RESIDUAL, "run.max_epochs=3", "run.resume=auto")
    assert curve(tmp_path / "part") == curve(tmp_path / "whole")
    assert (part["metrics"], part["best_step"]) == (whole["metrics"], whole["best_step"])
    ended, again = (read_tensors(tmp_path / each / "model.safetensors")[0] for each in ("whole", "part"))
    assert all(torch.equal(each, again[name]) for name, each in ended.items())
    best = max(curve(tmp_path / "whole"), key=lambda each: each["ndcg@10"])
    assert whole["best_step"] == best["step"]


@pytest.mark.parametrize(
    ("step", "said"), [(None, ""), (0, "of step 0, before training:"), (1200, "of step 1,200, by validation")]
)
def test_the_step_that_was_kept_is_written_read_and_said(step, said, tmp_path):
    write(tmp_path, make_result(0.1, best_step=step))
    assert ("best_step" in json.loads((tmp_path / "result.json").read_text())) is (step is not None)
    found = kept_words(read(tmp_path))
    assert found.startswith(said)
    assert bool(found) is bool(said)
