"""What `effrec validate` says of memory is held against what runs take."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effrec_cli.dryrun import MARGIN, ROOM_BYTES
from effrec_cli.evaluation import memory

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "short": ["dataset.num_users=800", "dataset.num_items=600", "run.max_epochs=1"],
    "wide": [
        "dataset.num_users=600",
        "dataset.num_items=6000",
        "method.batch_size=32",
        "run.max_epochs=1",
        "run.max_steps=3",
    ],
}


def effrec(*words):
    """Runs a verb in a process of its own, since what one holds would be mixed in; returns what it prints."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, "-m", "effrec_cli", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not memory._high_water_resets(), reason="this kernel does not reset the high-water mark")
@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("loss", ["ce", "ce_sampled", "cce", "cce_sampled"])
def test_what_is_told_is_what_a_run_takes_within_the_margin(shape, loss, tmp_path):
    data = f"data_root={tmp_path / 'data'}"
    words = ["dataset=synthetic", "dataset.side=[]", *SHAPES[shape]]
    own = [f"method.loss={loss}", "run.device=cpu"]
    effrec("data", "describe", "synthetic", data, *[word for word in words if word.startswith("dataset.")])
    told = json.loads(effrec("validate", "--json", data, *words, *own))["memory"]
    effrec("train", data, f"run.dir={tmp_path / 'run'}", *words, *own)
    cost = json.loads((tmp_path / "run" / "result.json").read_text())["cost"]
    grown = told["total"] - told["weights"]  # the model is there before a run's growth is measured
    taken = cost["peak_memory_bytes"]
    assert taken < max(MARGIN * grown, grown + ROOM_BYTES), "what is said to fit fits"
    assert grown < MARGIN * taken
