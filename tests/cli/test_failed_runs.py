"""A run that bad input stopped before it reached anything leaves no folder behind; any other does."""

from pathlib import Path

import pytest

from effrec_cli.errors import ConfigError, DataError, EnvironmentFault
from effrec_cli.runfolder import RunFolder

TABLE = ["method=pop", "dataset=table", "dataset.path=log.csv", "dataset.user=user", "dataset.item=item"]
BAD = {
    "no such file": (["dataset.path=absent.csv"], 2),
    "no such column": (["dataset.user=who"], 3),
    "a wrong option": (["dataset.separator=abc"], 2),
    "no place for data": (["data_root=log.csv/root"], 2),
    "a file with nothing in it": (["dataset.path=empty.csv"], 3),
}


@pytest.fixture
def log(own_folder):
    rows = "".join(f"{user},{item}\n" for user in range(5) for item in range(5))
    Path("log.csv").write_text(f"user,item\n{rows}")
    Path("empty.csv").write_text("")


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def fail(folder, error):
    """Ends a run as `run` does when `error` stops it."""
    with folder.tidied(), folder.recording():
        raise error


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("what", BAD)
def test_bad_input_leaves_no_folder(effrec, log, what, named):
    options, code = BAD[what]
    done = effrec("train", *TABLE, *options, *(["run.dir=outputs/mine"] if named else []))
    assert done.code == code, done.err
    assert not Path("outputs").exists() or names("outputs") == []
    if named:
        assert effrec("train", *TABLE, "run.dir=outputs/mine").code == 0, "the name is free again"


def test_a_folder_that_was_there_stays(effrec, log):
    Path("mine").mkdir()
    assert effrec("train", *TABLE, "dataset.user=who", "run.dir=mine").code == 3
    assert (Path("mine") / "status.json").exists()
    assert effrec("train", *TABLE, "dataset.user=who", "run.dir=mine", "run.resume=auto").code == 3
    assert (Path("mine") / "status.json").exists()


def test_a_failed_job_of_a_sweep_keeps_its_folder(effrec, log):
    assert effrec("train", "-m", *TABLE, "dataset.user=who", "run.dir=runs/${seed}", "seed=1,2").code == 3
    assert names("runs") == ["1", "2"]


@pytest.mark.parametrize("error", [ConfigError("late"), DataError("late")])
def test_what_was_reached_is_kept(tmp_path, error):
    folder = RunFolder(tmp_path / "run").open()
    folder.append_metrics({"loss": 1.0})
    with pytest.raises(type(error)):
        fail(folder, error)
    assert folder.read_json("status.json")["state"] == "failed"
    folder.close()


@pytest.mark.parametrize(("error", "stays"), [(DataError("bad"), False), (EnvironmentFault("full"), True)])
def test_only_bad_input_takes_the_folder_away(tmp_path, error, stays):
    folder = RunFolder(tmp_path / "run").open()
    folder.log("preparing")
    with pytest.raises(type(error)):
        fail(folder, error)
    assert folder.path.exists() == stays
    folder.close()
