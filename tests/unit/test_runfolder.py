"""A run's folder: one writer at a time, states that tell the truth, faults in words."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from effrec_cli.errors import ConfigError, EnvironmentFault, Interrupted, NonFiniteError
from effrec_cli.lock import is_locked
from effrec_cli.runfolder import RunFolder, read_state

HOLD = """
import sys, time
from effrec_cli.runfolder import RunFolder
folder = RunFolder(sys.argv[1]).open(resume="auto")
folder.status("running", step=17)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_new_folder_is_made_and_running(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run").open()
    assert folder.previous is None
    assert not folder.finished
    assert folder.read_json("status.json")["state"] == "running"
    assert is_locked(folder.path)
    folder.close()
    assert not is_locked(folder.path)


def test_a_second_process_is_refused_by_name(tmp_path, holder):
    assert read_state(tmp_path / "run") == "running"
    with pytest.raises(ConfigError) as caught:
        RunFolder(tmp_path / "run").open(resume="auto")
    assert f"process {holder.pid}" in caught.value.what
    assert os.uname().nodename in caught.value.what
    assert caught.value.exit_code == 2


def test_two_runs_of_one_process_are_refused_too(tmp_path):
    first = RunFolder(tmp_path / "run").open()
    with pytest.raises(ConfigError, match="using this folder"):
        RunFolder(tmp_path / "run").open(resume="auto")
    first.close()
    RunFolder(tmp_path / "run").open(resume="auto").close()


def test_a_lock_dies_with_its_process_and_the_run_is_known_as_killed(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert read_state(tmp_path / "run") == "killed"
    folder = RunFolder(tmp_path / "run").open(resume="auto")
    assert folder.previous == "killed"
    assert folder.read_json("status.json")["step"] == 17, "the last known step stays"
    assert "was killed" in (folder.path / "log.txt").read_text()


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    folder = RunFolder(tmp_path / "run").open()
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    folder.close()
    assert not is_locked(folder.path)
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)


def test_never_refuses_a_folder_with_a_run(tmp_path):
    RunFolder(tmp_path / "run").open().close()
    with pytest.raises(ConfigError) as caught:
        RunFolder(tmp_path / "run").open()
    assert f"effrec resume {tmp_path / 'run'}" in caught.value.fix
    assert not is_locked(tmp_path / "run"), "a refused run holds nothing"


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_a_folder_of_other_files_is_refused_and_left_as_it_is(tmp_path, resume):
    for name in ("model.safetensors", "photo.jpg", "tax.pdf", "thesis.tex"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError) as caught:
        RunFolder(tmp_path).open(resume=resume)
    assert caught.value.where == f"{tmp_path}: model.safetensors, photo.jpg, tax.pdf and 1 more"
    assert caught.value.fix == f"name a folder of its own: run.dir={tmp_path / 'NAME'}"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["slurm-17.out", "stdout.txt", ".hidden"])
def test_a_folder_that_holds_the_output_of_its_launcher_is_welcome(tmp_path, name):
    (tmp_path / name).write_text("mine")
    RunFolder(tmp_path).open().close()
    assert (tmp_path / name).read_text() == "mine"


def test_a_finished_run_stays_finished(tmp_path):
    folder = RunFolder(tmp_path / "run").open()
    with folder.recording():
        folder.status("running", step=5)
    folder.close()
    again = RunFolder(tmp_path / "run").open(resume="auto")
    assert again.finished
    assert again.read_json("status.json")["state"] == "done"
    assert again.read_json("status.json")["step"] == 5


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (NonFiniteError("the loss"), "failed", "the loss"),
        (Interrupted("SIGTERM came"), "interrupted", "SIGTERM came"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: "),
        (ZeroDivisionError("oh"), "failed", "ZeroDivisionError: oh"),
    ],
)
def test_how_a_run_ended_is_written_down(tmp_path, error, state, reason):
    folder = RunFolder(tmp_path / "run").open()
    folder.status("running", step=3)
    with pytest.raises(type(error)), folder.recording():
        raise error
    status = folder.read_json("status.json")
    assert (status["state"], status["reason"], status["step"]) == (state, reason, 3)
    assert read_state(folder.path) == state


def test_a_full_disk_does_not_hide_the_first_error(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run").open()
    with pytest.raises(NonFiniteError), folder.recording():  # noqa: PT012
        monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        raise NonFiniteError("the loss")


def test_metrics_are_cut_back_and_half_lines_go(tmp_path):
    folder = RunFolder(tmp_path / "run").open()
    for step in range(4):
        folder.append_metrics({"step": step})
    assert folder.metrics_lines == 4
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    folder.close()
    folder = RunFolder(tmp_path / "run").open(resume="auto")
    assert folder.metrics_lines == 4
    folder.cut_metrics(2)
    folder.append_metrics({"step": "new"})
    steps = [json.loads(line)["step"] for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, "new"]
    assert folder.metrics_lines == 3


def test_leftover_drafts_are_swept(tmp_path):
    (tmp_path / ".writing-status.json").write_text("{")
    (tmp_path / ".writing-abc").mkdir()
    RunFolder(tmp_path).open().close()
    assert not list(tmp_path.glob(".writing-*"))


def test_handed_over_it_can_be_opened_by_a_rank(tmp_path):
    parent = RunFolder(tmp_path / "run").open()
    parent.hand_over()
    rank = RunFolder(tmp_path / "run").open(resume="auto")
    assert rank.previous == "starting"
    assert not (rank.path / "log.txt").exists(), "nobody was killed"


def test_a_path_that_is_a_file_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="is a file"):
            RunFolder(path).open()


@pytest.mark.parametrize("number", [30, 13])  # EROFS, EACCES
def test_a_folder_that_cannot_be_made_is_an_environment_fault(tmp_path, monkeypatch, number):
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(number, "no")))
    with pytest.raises(EnvironmentFault) as caught:
        RunFolder(tmp_path / "run").open()
    assert caught.value.exit_code == 6
    assert os.strerror(number) in caught.value.what
    assert "run.dir=" in caught.value.fix


def test_a_broken_status_is_a_killed_run(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "status.json").write_text("{half")
    assert read_state(tmp_path) == "killed"
    assert RunFolder(tmp_path).open(resume="auto").previous == "killed"


def test_no_run_has_no_state(tmp_path):
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "missing") is None


def _open_and_report(path, box):
    try:
        RunFolder(path).open(resume="auto")
        box.put("held")
    except ConfigError:
        box.put("refused")
    except Exception as error:
        box.put(repr(error))


def test_of_many_at_once_one_gets_it(tmp_path):
    spawn = multiprocessing.get_context("fork")
    box = spawn.Queue()
    (tmp_path / "run").mkdir()
    held = RunFolder(tmp_path / "run").open()
    rivals = [spawn.Process(target=_open_and_report, args=(tmp_path / "run", box)) for _ in range(4)]
    for rival in rivals:
        rival.start()
    assert [box.get(timeout=60) for _ in rivals] == ["refused"] * 4
    held.close()
    for rival in rivals:
        rival.join()


def test_an_interruption_names_the_run_to_resume(tmp_path):
    folder = RunFolder(tmp_path / "run").open()
    with pytest.raises(Interrupted) as caught, folder.recording():
        raise Interrupted("Stopped by SIGTERM.", fix="effrec resume RUN")
    assert caught.value.fix == f"effrec resume {tmp_path / 'run'}"
