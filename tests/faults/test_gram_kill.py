"""A run of method gram stopped in mid-cycle, and resumed, ends as one that was never stopped, to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLAYER = Path(__file__).with_name("gram_runs.py")
SMALL = [
    "method=gram",
    "model=dkt",
    "model.max_length=12",
    "model.dropout=0.2",
    "method.batch_size=16",
    "method.encoder.dim=8",
    "method.encoder.dropout=0.2",
    "method.encoder.batch_tokens=256",
    "dataset.num_users=90",
    "dataset.num_items=40",
    "run.max_epochs=2",
    "run.log_every=3",
    "run.device=cpu",
    "run.checkpoint_every_steps=4",
]
ADAPTED = ["method.adapt_period=true", "optimizer.warmup_steps=3", "method.encoder.warmup_steps=2"]
SHARE = ["method.update_share=0.5", "method.update_by=age"]
MULTI = ["method.mode=multi_step", "method.period=5", "method.probe_every=1"]
MODES = {
    "recompute left open": ["optimizer.schedule=cosine"],
    "recomputed, of micro-batches": ["method.recompute=true", "run.accumulate=2"],
    "inject_single": [*MULTI, "method.update=inject_single", "optimizer.schedule=noam", *ADAPTED],
    "inject_multi, of micro-batches": [
        *MULTI,
        "method.update=inject_multi",
        "method.update_items=7",
        "run.accumulate=2",
    ],
    "a share": [*MULTI, "method.update=inject_multi", "method.refresh=eager", *SHARE],
    "regress": [*MULTI, "method.update=regress", "method.update_items=7"],
}
# Epochs have 8 steps, cycles 5 and 3: the checkpoint at 4 lies inside of one, and so does 6.
FAULTS = [("SIGKILL", 8), ("SIGTERM", 6)]


def play(stories):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, PLAYER], input=json.dumps(stories), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def outcome(folder):
    """Returns what must not depend on how often a run was stopped."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("elapsed_s")
    result = json.loads((folder / "result.json").read_text())
    return {
        "model": (folder / "model.safetensors").read_bytes(),
        "metrics": records,
        "judged": result["metrics"],
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Runs every mode whole, and broken off by each fault and resumed, in one process of children."""
    folder = tmp_path_factory.mktemp("gram")
    stories, places = [], {}
    for mode, settings in MODES.items():
        for fault in [None, *FAULTS]:
            place = folder / f"run{len(places)}"
            places[mode, fault] = place
            argv = ["train", *SMALL, *settings, f"run.dir={place}", f"data_root={folder / 'data'}"]
            if fault is None:
                stories.append({"argv": argv})
            else:
                name, step = fault
                stories.append({"argv": argv, "fault": {"signal": name, "step": step}})
                stories.append({"argv": ["resume", str(place)]})
    codes, said = play(stories)
    return places, codes, said


def test_runs_were_broken_off_and_resumed(outcomes):
    _, codes, said = outcomes
    assert codes == [0, -9, 0, 143, 0] * len(MODES), said


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_ends_in_the_same_bytes(mode, fault, outcomes):
    places = outcomes[0]
    whole, broken = outcome(places[mode, None]), outcome(places[mode, fault])
    assert broken["metrics"] == whole["metrics"]
    assert broken == whole


@pytest.mark.parametrize("mode", [name for name in MODES if MULTI[0] in MODES[name]])
def test_the_probe_has_looked_in_cycles_that_were_broken(mode, outcomes):
    records = outcome(outcomes[0][mode, None])["metrics"]
    assert [record for record in records if record["kind"] == "probe"]
