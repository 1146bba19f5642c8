"""A run can be scored later: from its folder alone, and with its dataset wherever that is now."""

import shutil

import numpy as np
import pytest
import torch

from effrec_cli.app import main
from effrec_cli.artifacts import lost, open_run
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.evaluation.scorer import Histories

CPU = torch.device("cpu")
TINY = ["dataset.num_users=80", "dataset.num_items=60", "run.device=cpu", "method=itemknn"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run and the data root it was trained from."""
    base = tmp_path_factory.mktemp("trained")
    assert main(["train", f"run.dir={base / 'run'}", f"data_root={base / 'data'}", *TINY]) == 0
    return base


@pytest.fixture
def moved(trained, tmp_path, monkeypatch):
    """A copy of the run on a machine that has no data."""
    shutil.copytree(trained / "run", tmp_path / "run")
    text = (tmp_path / "run" / "config.yaml").read_text().replace(str(trained / "data"), "/nowhere")
    (tmp_path / "run" / "config.yaml").write_text(text)
    monkeypatch.setenv("EFFREC_DATA", str(tmp_path / "data"))
    return tmp_path


def scores(opened):
    history = Histories(torch.tensor([3, 5, 8]), torch.tensor([0, 3]))
    return opened.method.scorer().score(torch.tensor([-1]), history)


def test_without_its_dataset_a_run_scores_the_same(trained, moved):
    here, there = open_run(trained / "run", CPU), open_run(moved / "run", CPU)
    assert here.data is not None
    assert there.data is None
    assert torch.equal(scores(here), scores(there))
    assert np.array_equal(here.items.ids, there.items.ids)


def test_a_dataset_that_moved_is_found(trained, moved):
    shutil.copytree(trained / "data", moved / "data")
    found = open_run(moved / "run", CPU).data
    assert found is not None
    assert found.folder.is_relative_to(moved / "data")


def test_damaged_weights_are_told(moved):
    path = moved / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"model\.safetensors") as caught:
        open_run(moved / "run", CPU)
    assert f"effrec resume {moved / 'run'}" in caught.value.fix


def test_a_lost_map_to_raw_ids_is_told(moved):
    shutil.rmtree(moved / "run" / "ids")
    with pytest.raises(ConfigError, match="raw ids") as caught:
        open_run(moved / "run", CPU)
    assert f"effrec resume {moved / 'run'}" in caught.value.fix


@pytest.mark.parametrize("text", [None, "", "{", '{"metrics": {}}', '{"schema_version": 1}'])
def test_a_finished_run_scores_without_its_result(trained, moved, text):
    path = moved / "run" / "result.json"
    path.unlink() if text is None else path.write_text(text)
    opened = open_run(moved / "run", CPU)
    assert opened.result is None
    assert torch.equal(scores(opened), scores(open_run(trained / "run", CPU)))


def test_a_result_of_a_newer_effrec_is_not_called_lost(moved):
    (moved / "run" / "result.json").write_text('{"schema_version": 99}')
    with pytest.raises(ConfigError, match="newer effrec"):
        open_run(moved / "run", CPU)
    with pytest.raises(ConfigError, match="newer effrec"):
        lost(moved / "run")


def test_an_unfinished_run_is_no_finished_one_without_a_result(moved):
    (moved / "run" / "result.json").unlink()
    (moved / "run" / "status.json").write_text('{"state": "interrupted"}')
    with pytest.raises(ConfigError, match="has no result"):
        open_run(moved / "run", CPU)


def test_what_is_lost_is_named(trained, moved):
    assert lost(trained / "run") == []
    run = moved / "run"
    (run / "ids" / "users.npy").unlink()
    (run / "result.json").write_text("{")
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[:-1])
    assert lost(run) == ["result.json", "model.safetensors", "ids"]
