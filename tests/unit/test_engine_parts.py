"""The feeder, the seeds and the progress line."""

import io
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from toy import ToyBatches

from effrec_cli.data.batches import Share, refuse_empty_shares
from effrec_cli.errors import ConfigError
from effrec_cli.loop.feeder import AHEAD, Feeder
from effrec_cli.report.progress import Progress, duration
from effrec_cli.seeds import mix

CPU = torch.device("cpu")


def feeder(batches, start=0, end=8, micros=2):
    return Feeder(batches, CPU, rank=0, ranks=1, micros=micros, start=start, end=end)


def alive():
    return [thread for thread in threading.enumerate() if thread.name == "effrec-feeder"]


def test_the_order_is_the_pure_function():
    batches = ToyBatches()
    with feeder(batches, start=3) as fed:
        for step in range(3, 8):
            for micro in range(2):
                epoch, position = divmod(step, 4)
                expected = batches.batch(epoch, position, Share(0, 1, micro, 2), step)
                got = fed.next()
                assert got.step == step
                assert torch.equal(got.tensors["rows"], expected.tensors["rows"])
    assert not alive()


def test_it_works_ahead_but_not_far():
    made = []

    class Counting(ToyBatches):
        def batch(self, *arguments):
            made.append(arguments)
            return super().batch(*arguments)

    with feeder(Counting(), end=1000):
        waited = 0
        while len(made) < AHEAD + 1 and waited < 1000:
            time.sleep(0.01)
            waited += 1
        time.sleep(0.05)
        assert len(made) == AHEAD + 1, "the queue full and one in hand"
    assert not alive(), "left early, the thread ends all the same"


def test_an_error_in_the_thread_is_raised_where_the_batch_is_wanted():
    class Broken(ToyBatches):
        def batch(self, epoch, position, share, step):
            if step == 2:
                raise MemoryError("no room")
            return super().batch(epoch, position, share, step)

    with feeder(Broken(), micros=1) as fed:
        fed.next()
        fed.next()
        with pytest.raises(MemoryError, match="no room"):
            fed.next()
    assert not alive()


def test_seeds_of_neighbours_have_nothing_in_common():
    seeds = {
        mix(seed, step, rank, micro)
        for seed in range(5)
        for step in range(20)
        for rank in range(3)
        for micro in range(3)
    }
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == 900, "a CPU generator looks at 32 bits alone"
    flipped = [bin(mix(1, step) ^ mix(1, step + 1)).count("1") for step in range(1000)]
    assert 30 < sum(flipped) / 1000 < 33
    assert mix(1, 2) != mix(2, 1)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plain_progress(enabled=True):
    out, clock = io.StringIO(), Clock()
    return Progress(0, enabled, stream=out, clock=clock), out, clock


def test_plain_lines_come_every_ten_seconds_and_at_validations():
    progress, out, clock = plain_progress()
    progress.start(10, 110, samples_per_step=32.0)
    progress.loss(1.5)
    for step in range(11, 41):
        clock.now += 1.0
        progress.pace.mark(step)
        progress.step(step, epoch=2)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "epoch 2  step 20/110  32 samples/s  loss 1.5000  1 min 30 s left"
    progress.validated("ndcg@10", 0.25, best=0.5)
    assert (
        out.getvalue().splitlines()[3].endswith("best ndcg@10 0.5000  1 min 10 s left  valid ndcg@10 0.2500")
    )


def test_a_rank_above_0_says_nothing():
    progress, out, clock = plain_progress(enabled=False)
    progress.start(0, 10, 1.0)
    clock.now += 100
    progress.pace.mark(1)
    progress.step(1, 1)
    progress.validated("x", 0.1, 0.1)
    progress.say("hello")
    progress.close()
    assert out.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal_one_line_renews_itself(monkeypatch, colour):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    out, clock = Terminal(), Clock()
    progress = Progress(0, True, stream=out, clock=clock)
    progress.start(0, 100, 8.0)
    for step in range(1, 51):
        clock.now += 0.0625
        progress.pace.mark(step)
        progress.step(step, 1)
    progress.close()
    shown = out.getvalue()
    assert "step 48/100" in shown
    assert shown.count("samples/s") <= 13, "drawn five times a second, not at every step"
    assert ("\x1b[3" in shown) == colour


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (7500, "2 h 05 min")]
)
def test_durations_read_at_a_glance(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("ranks", "most"), [(1, 6), (2, 3), (4, 1), (6, 1), pytest.param(7, 1, id="7 ranks, more than samples")]
)
def test_more_micro_batches_than_samples_are_refused(ranks, most):
    """Steps have six samples, the last of an epoch four."""
    refuse_empty_shares(ToyBatches(), most, ranks)
    for micros in (most + 1, 100_000):
        with pytest.raises(ConfigError) as caught:
            refuse_empty_shares(ToyBatches(), micros, ranks)
        assert "A step has 6 samples" in caught.value.what
        assert (caught.value.where, caught.value.fix) == (
            f"run.accumulate={micros}",
            f"run.accumulate={most}",
        )
