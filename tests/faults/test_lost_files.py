"""A finished run that has lost some of its files gets them back, or says exactly what is lost."""

import json
import shutil

import pytest

from effrec_cli.app import main

TINY = [
    "dataset.num_users=60",
    "dataset.num_items=40",
    "dataset.side=[]",
    "run.device=cpu",
    "run.max_epochs=2",
]
LOOP = ["model.dim=16", "model.num_layers=1", "model.max_length=20", "method.num_negatives=15"]


@pytest.fixture(scope="module", params=["cce", "itemknn"])
def trained(request, tmp_path_factory):
    """Returns the folder of a finished run of a method with a loop, and of one without."""
    base = tmp_path_factory.mktemp(request.param)
    words = LOOP if request.param == "cce" else ["method=itemknn"]
    assert main(["train", f"data_root={base / 'data'}", f"run.dir={base / 'run'}", *TINY, *words]) == 0
    return base / "run"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def measured(folder):
    return json.loads((folder / "result.json").read_text())["metrics"]


def spoil(path, how):
    if how == "missing":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("result.json", "missing"),
        ("result.json", "damaged"),
        ("model.safetensors", "missing"),
        ("model.safetensors", "damaged"),
        ("ids", "missing"),
    ],
)
def test_resume_writes_anew_what_is_lost(trained, run, name, how, capsys):
    spoil(run / name, how)
    assert main(["resume", str(run)]) == 0
    assert f"has lost {name}: writing it anew" in capsys.readouterr().err
    assert measured(run) == measured(trained)
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert main(["resume", str(run)]) == 0
    assert "it is left as it is" in capsys.readouterr().err


def test_time_and_energy_come_back_from_the_checkpoint(trained, run):
    before = json.loads((trained / "result.json").read_text())["cost"]
    spoil(run / "result.json", "missing")
    main(["resume", str(run)])
    after = json.loads((run / "result.json").read_text())["cost"]
    assert (after["epochs"], after["seconds_per_epoch"]) == (before["epochs"], before["seconds_per_epoch"])


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_evaluate_and_recommend_need_no_result(trained, run, how, capsys):
    spoil(run / "result.json", how)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == measured(trained)["test"]
    assert main(["evaluate", str(run)]) == 0
    assert f"effrec resume {run}" in capsys.readouterr().out
    assert main(["recommend", str(run), "--history", "101"]) == 0


def test_without_a_checkpoint_the_fixes_do_not_go_in_circles(run, capsys):
    """A method without a loop is fitted again; of another one nothing is thrown away."""
    spoil(run / "result.json", "missing")
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    capsys.readouterr()
    main(["show", str(run)])
    assert capsys.readouterr().out.rstrip().endswith(f"effrec resume {run}")
    kept = {path: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != "log.txt"}
    loop = (run / "metrics.jsonl").exists()
    assert main(["resume", str(run)]) == (2 if loop else 0)
    if loop:
        told = capsys.readouterr().err
        assert "no sound checkpoint is left" in told
        assert f"effrec evaluate {run}" in told
        assert "train it again: effrec train" in told
        assert {path: path.read_bytes() for path in kept} == kept
        assert main(["evaluate", str(run)]) == 0
