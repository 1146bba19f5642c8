"""A run killed at any moment, and resumed, ends as one that was never stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY = Path(__file__).with_name("toy.py")
SETTINGS = {
    "run__checkpoint_every_steps": 2,
    "run__accumulate": 2,
    "run__clip_norm": 0.5,
    "run__patience": 2,
    "optimizer__schedule": "cosine",
    "optimizer__warmup_steps": 3,
}

# Moments to break at. A run of these settings does about 100 fsyncs and 40 renames.
KILLS = [
    *[{"at": "fsync", "count": count} for count in (1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 14, 16, 33, 47, 58, 71)],
    *[{"at": "replace", "count": count} for count in (1, 2, 3, 4, 5, 6, 7, 12, 19, 26)],
    *[{"at": "step", "count": count} for count in (1, 5, 8, 14, 23)],
    *[{"at": "update", "count": count} for count in (2, 7)],
    *[{"at": "validate", "count": count} for count in (1, 2, 3)],
    *[{"at": "record", "count": count, "after": after} for count in (1, 2, 4) for after in (False, True)],
]


def play(scenarios):
    """Runs scenarios in a process of their own, each in a forked child; returns their exit codes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, TOY], input=json.dumps(scenarios), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outcome(folder):
    """Returns what must not depend on how often a run was stopped: weights, metrics, result."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("elapsed_s")
    return {
        "model": (folder / "model.safetensors").read_bytes(),
        "metrics": records,
        "result": json.loads((folder / "result.json").read_text()),
        "state": json.loads((folder / "status.json").read_text())["state"],
        "drafts": [path.name for path in folder.rglob(".writing-*")],
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert play([{"folder": str(folder), "settings": SETTINGS}]) == [0]
    return outcome(folder)


def test_killed_anywhere_it_resumes_to_the_same_bytes(tmp_path, uninterrupted):
    stories = []
    for number, kill in enumerate(KILLS):
        scenario = {"folder": str(tmp_path / f"run{number}"), "settings": SETTINGS}
        stories += [{**scenario, "fault": {"signal": "SIGKILL", **kill}}, scenario]
    codes = play(stories)
    assert codes[0::2] == [-9] * len(KILLS), "every run must have been killed where it was meant to be"
    assert codes[1::2] == [0] * len(KILLS)
    for number, kill in enumerate(KILLS):
        assert outcome(tmp_path / f"run{number}") == uninterrupted, kill


def test_killed_again_and_again_it_still_gets_there(tmp_path, uninterrupted):
    scenario = {"folder": str(tmp_path / "run"), "settings": SETTINGS}
    kills = [{"at": "step", "count": 7}, {"at": "fsync", "count": 20}, {"at": "validate", "count": 1}]
    codes = play([{**scenario, "fault": {"signal": "SIGKILL", **kill}} for kill in kills] + [scenario])
    assert codes == [-9, -9, -9, 0]
    assert outcome(tmp_path / "run") == uninterrupted


def test_a_signal_saves_and_exits_with_143(tmp_path, uninterrupted):
    moments = [("step", 1), ("step", 9), ("validate", 1), ("validate", 3), ("fsync", 12)]
    stories = [(name, *moment) for name in ("SIGTERM", "SIGINT") for moment in moments]
    folders = [tmp_path / f"run{number}" for number in range(len(stories))]
    scenarios = [{"folder": str(folder), "settings": SETTINGS} for folder in folders]
    faults = [{"signal": name, "at": at, "count": count} for name, at, count in stories]
    signalled = [{**scenario, "fault": fault} for scenario, fault in zip(scenarios, faults, strict=True)]
    assert play(signalled) == [143] * len(stories)
    for folder, (name, *_) in zip(folders, stories, strict=True):
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == "interrupted"
        assert name in status["reason"]
        steps = [path.name for path in (folder / "checkpoints").iterdir()]
        assert steps, "also of a run that had not made a step"
    assert play(scenarios) == [0] * len(stories)
    for folder, story in zip(folders, stories, strict=True):
        assert outcome(folder) == uninterrupted, story


def test_a_finished_run_is_left_alone(tmp_path):
    scenario = {"folder": str(tmp_path / "run"), "settings": SETTINGS}
    assert play([scenario]) == [0]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}
    assert play([scenario]) == [0]
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}
    assert after == before
