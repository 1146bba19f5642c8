"""The jobs of a sweep in processes of their own: isolation, deaths and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effrec_cli import jobprocess
from effrec_cli.outcomes import Outcome, Task

ROOT = Path(__file__).resolve().parents[2]

# Loaded by every Python that starts with its folder on the path: training becomes a few lines.
SITE = """
import os, signal, sys, time, types
from pathlib import Path

def run(config, overrides, **options):
    from effrec_cli.errors import Interrupted
    Path(f"seen-{config.seed}").write_text(str(os.getpid()))
    if config.seed == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 8:
        def stop(number, frame):
            raise Interrupted(f"saved on {signal.Signals(number).name}")
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        Path("ready").write_text("")
        time.sleep(60)
    return types.SimpleNamespace(metrics={"valid": {"ndcg@10": 0.25}, "test": {"ndcg@10": 0.5}})

sys.modules["effrec_cli.run"] = types.ModuleType("effrec_cli.run")
sys.modules["effrec_cli.run"].run = run
"""


@pytest.fixture
def start(tmp_path, own_folder):
    """Returns a function that starts `effrec ARGS` with the few lines in place of training."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join(map(str, [tmp_path / "site", ROOT, ROOT / "kernels"]))

    def call(*argv):
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "effrec_cli", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    return call


def outcomes():
    (folder,) = Path("outputs/sweeps").iterdir()
    return Outcome.read_all(folder / "jobs")


def test_each_job_has_a_process_and_a_killed_one_harms_no_other(start):
    sweep = start("train", "-m", "method=pop", "seed=1,7,2")
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 4, err
    assert [(each.status, each.exit_code) for each in outcomes()] == [("done", 0), ("failed", 4), ("done", 0)]
    assert "killed" in outcomes()[1].error
    assert "effrec: The job was killed" in err
    pids = {Path(f"seen-{seed}").read_text() for seed in (1, 7, 2)}
    assert len(pids) == 3
    assert str(sweep.pid) not in pids
    assert outcomes()[2].valid == 0.25
    assert "failed (4)" in out


@pytest.mark.parametrize(
    ("sent", "arrives"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGTERM")]
)
def test_a_signal_reaches_the_job_and_ends_the_sweep(start, sent, arrives):
    sweep = start("train", "-m", "method=pop", "seed=1,8,2")
    deadline = time.monotonic() + 60
    while not Path("ready").exists():
        assert time.monotonic() < deadline
        assert sweep.poll() is None
        time.sleep(0.02)
    sweep.send_signal(sent)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 143
    assert [each.status for each in outcomes()] == ["done", "interrupted"]
    assert outcomes()[1].error == f"saved on {arrives}"
    assert f"effrec: saved on {arrives}" in err
    assert not Path("seen-2").exists()
    assert "interrupted (143)" in out


def test_modules_of_the_current_folder_do_not_get_in(start):
    Path("json.py").write_text("raise SystemExit('the wrong json')")
    sweep = start("train", "-m", "method=pop", "seed=1,2")
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, err


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        (-signal.SIGTERM, "interrupted", 143),
        (130, "interrupted", 143),
        (-signal.SIGSEGV, "failed", 6),
        (3, "failed", 6),
    ],
)
def test_a_job_without_an_outcome(tmp_path, monkeypatch, code, status, exit_code):
    monkeypatch.setattr(jobprocess._Child, "run", lambda self, task: code)
    outcome = jobprocess.perform_apart(Task(4, ["seed=1"], "here"), tmp_path)
    assert (outcome.status, outcome.exit_code) == (status, exit_code)
    assert json.loads((tmp_path / "4.json").read_text())["status"] == status


def test_signal_handlers_are_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(jobprocess._Child, "run", lambda self, task: 1)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    jobprocess.perform_apart(Task(0, [], "here"), tmp_path)
    assert {number: signal.getsignal(number) for number in before} == before
