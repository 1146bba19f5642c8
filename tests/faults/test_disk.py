"""Disks that are full, read-only or broken: one clear error, and nothing that was saved is lost."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy import make_config, make_engine, run

from effrec_cli import checkpoint
from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.loop import interrupt

HERE = Path(__file__).parent
CAN_MOUNT = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 128 KiB; mounting may be forbidden even to root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk]
    if not CAN_MOUNT or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def same_end(folder, whole):
    ours = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    drop = {"elapsed_s"}
    assert [{k: v for k, v in record.items() if k not in drop} for record in ours] == [
        {k: v for k, v in record.items() if k not in drop} for record in theirs
    ]
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def fill(path):
    """Writes into `path` until the disk has no room for another page."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def test_a_disk_that_fills_up_costs_nothing_but_the_time_since_the_last_save(small_disk, tmp_path):
    run(tmp_path / "whole")
    config = make_config()
    engine = make_engine(small_disk / "run", config)
    filler = small_disk / "filler"
    original = engine.method.training_step

    def filling(batch, engine):
        if batch.step == 6:
            fill(filler)
        return original(batch, engine)

    engine.method.training_step = filling
    with pytest.raises(EnvironmentFault) as caught, engine.folder.recording():
        engine.loop()
    assert caught.value.exit_code == 6
    assert "No space left on device" in caught.value.what
    assert "intact" in caught.value.what
    assert str(small_disk / "run") in caught.value.where
    engine.folder.close()
    assert checkpoint.load(small_disk / "run" / "checkpoints").state["steps"] == 4
    filler.unlink()
    run(small_disk / "run")
    same_end(small_disk / "run", tmp_path / "whole")


def test_a_read_only_disk_is_named(small_disk):
    run(small_disk / "run", run__max_epochs=1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for path in (small_disk / "run", small_disk / "new"):
        with pytest.raises(EnvironmentFault) as caught:
            run(path)
        assert caught.value.exit_code == 6
        assert "Read-only file system" in caught.value.what
        assert "run.dir=" in caught.value.fix
    assert json.loads((small_disk / "run" / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("moment", range(1, 32, 4))
def test_a_write_that_fails_at_any_moment_can_be_resumed(tmp_path, monkeypatch, moment):
    """Every fsync from the chosen one on fails, as on a full disk; such a run makes 32."""
    run(tmp_path / "whole", run__max_epochs=2)
    calls = 0
    fsync = os.fsync

    def failing(handle):
        nonlocal calls
        calls += 1
        if calls >= moment:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing)
        # A fault must be told; a run of this length makes 40 fsyncs.
        told = (
            pytest.raises(EnvironmentFault, match="No space left")
            if moment < 36
            else contextlib.nullcontext()
        )
        with told:
            run(tmp_path / "run", run__max_epochs=2)
    forget_locks(tmp_path / "run")
    run(tmp_path / "run", run__max_epochs=2)
    same_end(tmp_path / "run", tmp_path / "whole")


def forget_locks(folder):
    """Replaces the lock file, which a failed run of this very process may still hold."""
    (folder / ".lock").unlink(missing_ok=True)


def test_a_second_run_in_one_folder_is_refused(tmp_path):
    engine = make_engine(tmp_path, make_config())
    with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        make_engine(tmp_path, make_config())
    engine.loop()


def test_a_signal_outside_the_loop_ends_at_once():
    with interrupt.listening(), pytest.raises(interrupt.Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), 15)


def test_a_second_ctrl_c_does_not_wait_for_the_step():
    with interrupt.listening() as signals, signals.deferred():
        os.kill(os.getpid(), 2)
        assert signals.requested == "SIGINT"
        with pytest.raises(interrupt.Interrupted):
            os.kill(os.getpid(), 2)


def test_handlers_are_put_back():
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with interrupt.listening() as outer, interrupt.listening() as inner:
        assert inner is outer
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
