"""A run of method iisan stopped in an epoch, or as its cache is filled, and resumed: the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_gram_kill import outcome

PLAYER = Path(__file__).with_name("iisan_runs.py")
SMALL = [
    "method=iisan",
    "model.num_layers=1",
    "model.max_length=8",
    "model.dropout=0.2",
    "method.dim=8",
    "method.batch_size=16",
    "method.batch_tokens=64",
    *(f"method.{name}.{size}" for name in ("text", "image") for size in ("dim=8", "num_layers=2")),
    "dataset.num_users=90",
    "dataset.num_items=40",
    "dataset.interactions_per_user=12",
    "dataset.side=[text,images]",
    "optimizer.schedule=cosine",
    "optimizer.warmup_steps=3",
    "run.max_epochs=2",
    "run.log_every=3",
    "run.device=cpu",
    "run.checkpoint_every_steps=4",
]
MODES = {
    "iisan": ["method.modality_dropout=0.3"],
    "iisan, of micro-batches": ["run.accumulate=2", "method.cache.residence=disk", "method.cache.dtype=int8"],
    "iisan without a cache": ["method.cache.use=false"],
    "fft": ["method.mode=fft"],
    "lora, recomputed": ["method.mode=lora", "method.recompute=true"],
    "frozen": ["method.mode=frozen"],
}
# Epochs have 6 steps, and a checkpoint is left by every fourth.
KILLED, TOLD = {"signal": "SIGKILL", "step": 9}, {"signal": "SIGTERM", "step": 6}
# Texts are read first, in some chunks, then images, three or four at once.
IN_TEXTS, IN_IMAGES = {"signal": "SIGKILL", "read": 3}, {"signal": "SIGKILL", "read": 12}
BROKEN = [
    ("iisan", KILLED),
    ("iisan", TOLD),
    ("iisan, of micro-batches", KILLED),
    ("iisan without a cache", KILLED),
    ("fft", KILLED),
    ("lora, recomputed", KILLED),
    ("iisan", IN_TEXTS),
    ("frozen", IN_IMAGES),
]
KEYS = [(mode, json.dumps(fault)) for mode, fault in BROKEN]


def play(stories):
    paths = [str(PLAYER.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, PLAYER], input=json.dumps(stories), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Runs every mode whole, and broken off by each fault and resumed, in one process of children."""
    folder = tmp_path_factory.mktemp("iisan")
    stories, places = [], {}

    def train(mode, data, fault=None):
        place = folder / f"run{len(places)}"
        places[mode, fault and json.dumps(fault)] = place
        argv = ["train", *SMALL, *MODES[mode], f"run.dir={place}", f"data_root={folder / data}"]
        stories.append({"argv": argv, "fault": fault})
        if fault:
            stories.append({"argv": ["resume", str(place)]})

    for mode in MODES:
        train(mode, "data")
    for mode, fault in BROKEN:
        train(mode, f"data{len(places)}" if "read" in fault else "data", fault)
    codes, said = play(stories)
    return places, codes, said


def test_runs_were_broken_off_and_resumed(outcomes):
    _, codes, said = outcomes
    ends = {"SIGKILL": -9, "SIGTERM": 143}
    due = [code for _, fault in BROKEN for code in (ends[fault["signal"]], 0)]
    assert codes == [0] * len(MODES) + due, said


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_resumed_run_ends_in_the_same_bytes(key, outcomes):
    places = outcomes[0]
    whole, broken = outcome(places[key[0], None]), outcome(places[key])
    assert broken["metrics"] == whole["metrics"]
    assert broken == whole


def test_caches_were_gone_on_with_and_not_begun_again(outcomes):
    assert outcomes[2].count("Going on after") == 2


@pytest.mark.parametrize(("mode", "fault"), [("iisan", IN_TEXTS), ("frozen", IN_IMAGES)])
def test_of_a_cache_that_was_broken_off_nothing_half_made_is_left(mode, fault, outcomes):
    place = outcomes[0][mode, json.dumps(fault)]
    root = json.loads((place / "result.json").read_text())["config"]["data_root"]
    names = {path.name for path in Path(root, "features").iterdir()}
    kept = {name for name in names if not name.endswith(".lock")}
    assert {name.split("-")[0] for name in kept} == {"text", "image"}
    assert names == kept | {f"{name}.lock" for name in kept}
