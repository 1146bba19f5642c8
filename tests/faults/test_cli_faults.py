"""The command under fire: killed, told to stop, started twice; nothing is lost and results stay equal."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

SMALL = [
    "dataset.num_users=300",
    "dataset.num_items=120",
    "model.dim=16",
    "model.num_layers=1",
    "model.max_length=20",
    "method.num_negatives=15",
    "method.batch_size=32",
    "evaluation.ks=[10]",
    "run.max_epochs=6",
    "run.checkpoint_every_steps=7",
    "run.log_every=5",
    "run.device=cpu",
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def command(*words):
    return [sys.executable, "-m", "effrec_cli", *words]


def start(folder, data_root, *more):
    environment = {**os.environ, "EFFREC_DATA": str(data_root), "OMP_NUM_THREADS": "1"}
    words = command("train", f"run.dir={folder}", *SMALL, *more)
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def resume(folder, data_root):
    environment = {**os.environ, "EFFREC_DATA": str(data_root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command("resume", str(folder)), env=environment, capture_output=True, text=True)


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def metrics(folder):
    return json.loads((folder / "result.json").read_text())["metrics"]


def wait_for_lines(folder, count, process):
    """Waits until metrics.jsonl has `count` lines: a moment in training that does not depend on the clock."""
    path = folder / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.005)
    raise AssertionError(f"ended before it had written {count} lines: {process.communicate()}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_root):
    folder = tmp_path_factory.mktemp("plain") / "run"
    process = start(folder, data_root)
    assert process.wait() == 0, process.communicate()
    return folder


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_killed_and_resumed_ends_with_the_same_bytes(lines, uninterrupted, tmp_path, data_root):
    folder = tmp_path / "run"
    process = start(folder, data_root)
    wait_for_lines(folder, lines, process)
    process.kill()
    process.wait()
    done = resume(folder, data_root)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(uninterrupted)
    assert metrics(folder) == metrics(uninterrupted)


def test_masks_are_those_of_a_run_never_stopped(tmp_path, data_root):
    """They are drawn anew each epoch, by no generator whose state would have to be kept."""
    plain, folder = tmp_path / "plain", tmp_path / "run"
    assert start(plain, data_root, "model=bert4rec").wait() == 0
    process = start(folder, data_root, "model=bert4rec")
    wait_for_lines(folder, 4, process)
    process.kill()
    process.wait()
    done = resume(folder, data_root)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(plain)
    assert metrics(folder) == metrics(plain)


def test_told_to_stop_it_saves_and_can_be_resumed(uninterrupted, tmp_path, data_root):
    folder = tmp_path / "run"
    process = start(folder, data_root)
    wait_for_lines(folder, 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    done = resume(folder, data_root)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(uninterrupted)


def test_a_second_process_in_the_folder_is_refused(tmp_path, data_root):
    folder = tmp_path / "run"
    first = start(folder, data_root, "run.max_epochs=1000")  # outlasts the second whatever the machine does
    wait_for_lines(folder, 1, first)
    second = start(folder, data_root, "run.resume=auto")
    _, error = second.communicate()
    first.kill()
    first.wait()
    assert second.returncode == 2
    assert str(first.pid) in error


def test_a_finished_run_is_left_alone(uninterrupted, data_root):
    before = (uninterrupted / "result.json").stat().st_mtime_ns
    assert resume(uninterrupted, data_root).returncode == 0
    assert (uninterrupted / "result.json").stat().st_mtime_ns == before


def test_a_run_is_not_overwritten_by_another(uninterrupted, data_root):
    before = {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file()}
    process = start(uninterrupted, data_root, "seed=2", "run.resume=auto")
    _, error = process.communicate()
    assert process.returncode == 2
    assert "seed was 1, now 2" in error
    assert before == {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file()}


@pytest.mark.parametrize("resume_setting", ["never", "auto"])
def test_an_outside_launcher_leaves_a_finished_run_alone(resume_setting, uninterrupted, data_root):
    before = (uninterrupted / "result.json").read_bytes()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    words = ["-m", "effrec_cli", "train", f"run.dir={uninterrupted}", f"run.resume={resume_setting}", *SMALL]
    environment = {**os.environ, "EFFREC_DATA": str(data_root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *words], env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == (resume_setting == "auto")
    assert ("holds a finished run" if resume_setting == "auto" else "holds a run already") in done.stderr
    assert (uninterrupted / "result.json").read_bytes() == before


@pytest.mark.parametrize("setting", ["run.accumulate=100000", "run.devices=9999"])
def test_what_would_only_take_time_and_memory_is_refused_before_training(setting, tmp_path, data_root):
    folder = tmp_path / "run"
    _, error = (process := start(folder, data_root, setting)).communicate(timeout=120)
    assert process.returncode == 2, error
    assert f"where: {setting}" in error
    assert re.search(rf"fix: {setting.partition('=')[0]}=\d{{1,3}}\b", error), error
    assert not folder.exists()


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, data_root):
    folder = tmp_path / "run"
    words = command("train", "method=pop", "model=sasrec", f"run.dir={folder}", f"data_root={data_root}")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pairs that fit" in done.stderr
    assert not folder.exists()


@pytest.mark.slow
def test_two_ranks_end_to_end(tmp_path, data_root):
    folder = tmp_path / "run"
    process = start(folder, data_root, "run.devices=2")
    _, error = process.communicate()
    assert process.returncode == 0, error
    result = json.loads((folder / "result.json").read_text())
    assert result["device"]["count"] == 2
    assert 0 < result["metrics"]["test"]["ndcg@10"] <= 1


@pytest.mark.parametrize("mode", ["dsl", pytest.param("topk_anneal", marks=pytest.mark.slow)])
def test_a_rank_whose_share_is_empty_changes_places_with_the_other(mode, tmp_path):
    """Steps of one row: the second rank has none, and takes part in every update all the same."""
    words = ["method=dsl", f"method.mode={mode}", "method.batch_size=1", "run.devices=2", "run.device=cpu"]
    words += ["dataset.num_users=20", "dataset.num_items=50", "dataset.interactions_per_user=5"]
    words += ["run.max_epochs=2", f"run.dir={tmp_path / 'run'}", f"data_root={tmp_path / 'data'}"]
    done = subprocess.run(command("train", *words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads((tmp_path / "run" / "result.json").read_text())["sparsity"]
    assert told["updates"]
    assert told["updates"][-1]["live"] == told["live"]
