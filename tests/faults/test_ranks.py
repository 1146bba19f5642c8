"""Data-parallel runs on two processes: the same result as one, one clear error, nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy import RowsMethod, make_config, run
from toy_rank import Dry

from effrec_cli import launch
from effrec_cli.errors import EffrecError, EnvironmentFault, Interrupted, NonFiniteError
from effrec_cli.parent import LAUNCHER
from effrec_cli.tensorfile import read_tensors

HERE = Path(__file__).parent
SETTINGS = {"run__max_epochs": 3, "run__clip_norm": 0.5, "run__log_every": 2}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(folder, ranks=2, **plan):
    folder.mkdir(exist_ok=True)
    (folder / ".plan.json").write_text(json.dumps(plan))
    launch.launch(folder, ranks, "cpu", module="toy_rank")


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def close(left, right, **tolerance):
    ours, theirs = (read_tensors(folder / "model.safetensors")[0] for folder in (left, right))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], **tolerance)


def test_two_ranks_equal_one_process_on_the_union(tmp_path):
    """Samples have 0 to 3 targets, the last step of an epoch has 4 samples: shares differ in size."""
    start(tmp_path / "two", settings=SETTINGS)
    config = make_config(**SETTINGS)
    method = Dry(config)
    run(tmp_path / "one", method=method, **SETTINGS)
    close(tmp_path / "two", tmp_path / "one", rtol=1e-4, atol=1e-5)
    for two, one in zip(records(tmp_path / "two"), records(tmp_path / "one"), strict=True):
        assert two.keys() == one.keys()
        assert {name: two[name] for name in ("kind", "step", "epoch")} == {
            name: one[name] for name in ("kind", "step", "epoch")
        }
        numbers = [name for name in one if name in ("loss", "lr", "ndcg@10")]
        assert [two[name] for name in numbers] == pytest.approx([one[name] for name in numbers], rel=1e-4)


@pytest.mark.parametrize(
    "accumulate", [1, pytest.param(4, marks=pytest.mark.slow, id="4: some shares are empty")]
)
def test_rows_of_two_ranks_add_up_to_those_of_one_process(tmp_path, accumulate):
    """Row-sparse gradients with other numbers of rows on each rank, clipped, moved by the row-wise Adam."""
    settings = {**SETTINGS, "run__accumulate": accumulate}
    start(tmp_path / "two", settings=settings, rows=True)
    method = RowsMethod(make_config(**settings))
    run(tmp_path / "one", method=method, **{**settings, "run__accumulate": 1})
    close(tmp_path / "two", tmp_path / "one", rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have names under /proc on Linux only")
def test_no_thread_of_gloo_lives_to_see_the_interpreter_shut_down(tmp_path):
    """It would abort the process if it still had a tensor to let go of."""
    start(tmp_path / "run", settings={"run__max_epochs": 1})
    for rank in (0, 1):
        names = json.loads((tmp_path / "run" / f"threads{rank}.json").read_text())
        assert "python" in " ".join(names)
        assert not [name for name in names if "gloo" in name]


@pytest.mark.slow
def test_empty_shares_are_fine(tmp_path):
    """Eight parts, of two ranks and four micro-batches, share six samples."""
    settings = {**SETTINGS, "run__accumulate": 4, "run__max_epochs": 2}
    start(tmp_path / "two", settings=settings)
    run(tmp_path / "one", method=Dry(make_config(**settings)), **{**settings, "run__accumulate": 1})
    close(tmp_path / "two", tmp_path / "one", rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_moves_between_numbers_of_ranks(tmp_path):
    """Stopped on two ranks in mid-epoch, ended by one process."""
    settings = {**SETTINGS, "run__checkpoint_every_steps": 3}
    with pytest.raises(NonFiniteError):
        start(tmp_path / "run", settings=settings, does="raise", step=7, rank=1)
    resumed = run(tmp_path / "run", method=Dry(make_config(**settings)), **settings)
    assert resumed.steps == 12
    run(tmp_path / "one", method=Dry(make_config(**settings)), **settings)
    close(tmp_path / "run", tmp_path / "one", rtol=1e-4, atol=1e-5)
    assert len(records(tmp_path / "run")) == len(records(tmp_path / "one"))


def test_a_failing_rank_ends_all_with_its_error(tmp_path, capfd):
    with pytest.raises(NonFiniteError) as caught:
        start(tmp_path / "run", does="raise", step=2, rank=1)
    assert caught.value.what == "rank 1 met a bad number"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_bug_on_a_rank_is_told_with_its_traceback_kept(tmp_path, capfd):
    with pytest.raises(EffrecError, match="ZeroDivisionError on rank 1: a bug on rank 1") as caught:
        start(tmp_path / "run", does="crash", step=2, rank=1)
    assert caught.value.exit_code == 1
    assert "toy_rank.py" in caught.value.__notes__[0]
    assert "Traceback" not in capfd.readouterr().err


def test_a_nan_on_one_rank_is_known_to_both(tmp_path):
    with pytest.raises(NonFiniteError, match="The loss is not finite at step 2"):
        start(tmp_path / "run", does="nan", step=2, rank=1)
    tensors, note = read_tensors(tmp_path / "run" / "failed_batch.safetensors")
    assert set(note["torch_seeds"]) == {"rank0.micro0", "rank1.micro0"}
    assert len(tensors["rank0.micro0.rows"]) + len(tensors["rank1.micro0.rows"]) == 6


@pytest.mark.slow
def test_a_killed_rank_is_reported(tmp_path):
    with pytest.raises(EnvironmentFault, match="was killed by signal 9"):
        start(tmp_path / "run", does="SIGKILL", step=2, rank=1)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_signal_to_one_rank_stops_all_and_saves(tmp_path, rank):
    with pytest.raises(Interrupted):
        start(tmp_path / "run", does="SIGTERM", step=5, rank=rank)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 6)
    run(tmp_path / "run", method=Dry(make_config()))
    run(tmp_path / "one", method=Dry(make_config()))
    close(tmp_path / "run", tmp_path / "one", rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_rank_between_micro_batches_stops_all_before_their_step(tmp_path):
    settings = {"run__accumulate": 3}
    with pytest.raises(Interrupted):
        start(tmp_path / "run", does="SIGTERM", step=5, rank=1, settings=settings)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 5)
    run(tmp_path / "run", method=Dry(make_config(**settings)), **settings)
    run(tmp_path / "one", method=Dry(make_config(**settings)), **settings)
    close(tmp_path / "run", tmp_path / "one", rtol=1e-4, atol=1e-5)


WORKER = [sys.executable, "-X", "importtime", "-m", "effrec_cli.worker"]


@pytest.mark.skipif(sys.platform != "linux", reason="a child learns of its parent's death on Linux only")
def test_a_rank_whose_launcher_is_dead_already_ends_at_once(tmp_path):
    environment = {**os.environ, LAUNCHER: str(os.getppid())}
    done = subprocess.run(
        [*WORKER, str(tmp_path), "cpu"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 143
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "effrec_cli.parent" in imported
    assert "torch" not in imported


JOINING = """
import sys
from effrec_cli import distributed, worker
join = distributed.join
def told(device):
    print("joining", flush=True)
    return join(device)
distributed.join = told
sys.exit(worker.main(sys.argv[1:]))
"""


def test_sigterm_ends_a_rank_that_waits_for_the_others(tmp_path):
    with socket.create_server(("localhost", 0)) as nobody:
        place = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}
        environment = {**os.environ, **place, "MASTER_PORT": str(nobody.getsockname()[1])}
        words = [sys.executable, "-c", JOINING, str(tmp_path), "cpu"]
        rank = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert rank.stdout.readline() == "joining\n"
            nobody.settimeout(60)
            _ = nobody.accept()  # it waits for an answer
            rank.send_signal(signal.SIGTERM)
            assert rank.wait(timeout=20) == -signal.SIGTERM
        finally:
            rank.kill()
            rank.communicate()


PARENT = """
import sys
from pathlib import Path
from effrec_cli import launch
from effrec_cli.errors import EffrecError
try:
    launch.launch(Path(sys.argv[1]), 2, "cpu", module="toy_rank")
except EffrecError as error:
    print(error.what)
    sys.exit(error.exit_code)
"""


def launched(folder, **plan):
    """Starts a parent whose rank 1 waits at step 5, and returns once it does."""
    folder.mkdir()
    flag = folder / ".flag"
    plan = {"does": "wait", "step": 5, "rank": 1, "steps": 20, "flag": str(flag), **plan}
    (folder / ".plan.json").write_text(json.dumps(plan))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, folder], stdout=subprocess.PIPE, text=True)
    while not flag.exists():
        assert parent.poll() is None, "it ended before the moment to break it"
        time.sleep(0.02)
    return parent


def test_sigterm_to_the_parent_saves_and_exits_with_143(tmp_path):
    parent = launched(tmp_path / "run")
    parent.send_signal(signal.SIGTERM)
    said, _ = parent.communicate(timeout=300)
    assert parent.returncode == 143, said
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 6)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a child learns of its parent's death on Linux only")
def test_ranks_do_not_outlive_a_killed_parent(tmp_path):
    parent = launched(tmp_path / "run")
    parent.kill()
    parent.wait()
    for _ in range(3000):
        status = json.loads((tmp_path / "run" / "status.json").read_text())
        if status["state"] == "interrupted":
            break
        time.sleep(0.1)
    assert status["state"] == "interrupted"
