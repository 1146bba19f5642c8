"""How long training takes is said once, from measured steps; the time left counts validations, too."""

import io
import re
import sys
from pathlib import Path

import pytest
import torch

from effrec_cli.distributed import World
from effrec_cli.loop.pace import Pace
from effrec_cli.report.outlook import Outlook
from effrec_cli.report.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

from toy import make_config, make_engine

PLACE = "cpu (a CPU, 1 thread)"


class Clock:
    """A clock that only the test moves, or each look at it by `tick_s`."""

    def __init__(self, tick_s=0.0):
        self.now, self.tick_s = 100.0, tick_s

    def __call__(self):
        self.now += self.tick_s
        return self.now


def trained(steps, step_s, *, warm_up_s=30.0, total=8400, between=84, clock=None):
    """Returns a pace after `steps` steps, the first of which took `warm_up_s`."""
    clock = clock or Clock()
    pace = Pace(clock)
    pace.start(0, total, between)
    for step in range(1, steps + 1):
        clock.now += warm_up_s if step == 1 else step_s
        pace.mark(step)
    return pace


def words(pace, elapsed_s=40.0, **run):
    config = make_config(**{"run__max_epochs": 100, "run__patience": 8, **run})
    return Outlook(config, 84, PLACE, pace).words(elapsed_s)


def test_the_sentence_names_size_rate_device_and_limits_without_the_warm_up():
    assert words(trained(11, 0.125)) == (
        "84 steps an epoch at 8.00 steps/s on cpu (a CPU, 1 thread): about 10 s an epoch "
        "(validation not measured yet); at most 100 epochs, 17 min 29 s from now and the validations; "
        "stops earlier after 8 validations without a better ndcg@10"
    )


def test_a_measured_validation_is_in_the_sentence_and_in_the_time_left():
    clock = Clock()
    pace = trained(84, 0.125, clock=clock)
    assert pace.left_s == pytest.approx(0.125 * (8400 - 84))
    with pace.validating():
        clock.now += 3.0
    assert pace.left_s == pytest.approx(0.125 * (8400 - 84) + 99 * 3.0)
    said = words(pace)
    assert "about 10 s an epoch and 3.0 s a validation; at most 100 epochs, 22 min 16 s from now;" in said


def test_validations_do_not_slow_the_measured_steps():
    clock = Clock()
    pace = trained(6, 0.5, clock=clock)
    with pace.validating():
        clock.now += 1000.0
    clock.now += 0.5
    pace.mark(7)
    assert pace.step_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("steps", "step_s", "said"),
    [(1, 1.0, False), (5, 1.0, False), (6, 1.0, True), (50, 0.01, False), (150, 0.01, True), (2, 11.0, True)],
)
def test_it_waits_until_enough_is_measured(steps, step_s, said):
    assert (words(trained(steps, step_s)) is not None) == said


@pytest.mark.parametrize(("steps", "said"), [(10, False), (11, True)])
def test_steps_that_differ_are_measured_over_a_whole_cycle(steps, said):
    found = Outlook(make_config(), 84, PLACE, trained(steps, 11.0), cycle=10).words(40.0)
    assert (found is not None) == said


def test_the_end_of_a_short_first_epoch_is_enough():
    clock = Clock()
    pace = trained(3, 0.01, clock=clock)
    assert words(pace) is None
    with pace.validating():
        clock.now += 20.0
    assert "20 s a validation" in words(pace)


def test_nothing_is_said_where_nothing_is_left():
    assert words(trained(20, 1.0, total=20)) is None


def test_limits_of_steps_and_minutes_are_named_where_they_end_the_run():
    assert "at most 900 steps, 1 min 51 s from now" in words(trained(12, 0.125, total=900))
    assert "at most 4 min 00 s from now, by run.max_minutes=5;" in words(
        trained(12, 0.125), 60.0, run__max_minutes=5.0
    )
    assert "max_minutes" not in words(trained(12, 0.125), 60.0, run__max_minutes=600.0)
    assert words(trained(12, 0.125), run__patience=None).endswith("validations")
    assert "stops earlier" not in words(trained(12, 0.125), run__patience=100)
    assert "at 2.00 s a step on" in words(trained(12, 2.0))


def test_a_resumed_run_counts_what_is_left():
    pace = Pace(clock := Clock())
    pace.start(50, 100, 10)
    for step in (51, 52, 53):
        clock.now += 1.0
        pace.mark(step)
    with pace.validating():
        clock.now += 2.0
    assert pace.left_s == pytest.approx(47 + 4 * 2.0)


def engine_with(tmp_path, clock, out, **settings):
    engine = make_engine(tmp_path / "run", make_config(run__max_epochs=40, **settings))
    engine.progress = Progress(0, True, stream=out, clock=clock)
    return engine


def test_training_says_it_once_on_the_screen_and_in_the_log(tmp_path):
    out = io.StringIO()
    engine = engine_with(tmp_path, Clock(tick_s=0.25), out)
    engine.loop()
    engine.folder.close()
    sentence = re.compile(rf"{engine.steps_per_epoch} steps an epoch at .* steps?/?s? on cpu \(.*; at most")
    assert len(sentence.findall(out.getvalue())) == 1
    assert len(sentence.findall((tmp_path / "run" / "log.txt").read_text())) == 1


def test_ranks_above_0_neither_say_nor_log_it(tmp_path):
    engine = engine_with(tmp_path, Clock(), io.StringIO())
    engine.progress.enabled = False
    engine._outlook = Outlook(engine.config, 84, PLACE, trained(20, 1.0))
    engine.world = World(rank=1)
    engine._foretell()
    assert not engine._outlook.told
    engine.folder.close()


def test_a_gpu_is_measured_only_where_the_loop_waits_for_it(tmp_path, monkeypatch):
    """The host runs ahead of a GPU, so its own clock between steps would promise too much."""
    engine = engine_with(tmp_path, Clock(tick_s=0.25), io.StringIO(), run__log_every=3)
    marked = []
    monkeypatch.setattr(engine.progress.pace, "mark", marked.append)
    monkeypatch.setattr(engine, "_foretell", lambda: None)
    monkeypatch.setattr(engine, "_record", lambda *_: None)
    engine.world = World(device=torch.device("cuda"))
    for engine.steps in range(1, 7):
        engine._after_step()
    assert marked == [3, 6]
    engine.folder.close()
