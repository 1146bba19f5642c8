"""Method cadc through the front door (papers/cadc section 5: tests 11, 12, 13, 21)."""

import json

import numpy as np
import pytest
import torch

from effrec_cli.app import main
from effrec_cli.artifacts import open_run
from effrec_cli.evaluation.recommend import top_k
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.tensorfile import read_tensors

SMALL = ["experiment=smoke_cadc", "run.device=cpu", "run.max_epochs=2", "evaluation.ks=[5,10]"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Returns a data root that the tests here share, so that it is factorised once."""
    return tmp_path_factory.mktemp("data")


def train(root, folder, *words):
    assert main(["train", f"data_root={root}", f"run.dir={folder}", *SMALL, *words]) == 0
    return json.loads((folder / "result.json").read_text())


def factors_in(root):
    """Returns the one factorisation that is kept."""
    (folder,) = [each for each in (root / "factors").iterdir() if each.is_dir()]
    return {name: np.load(folder / f"{name}.npy") for name in ("users", "items")}


def test_21_two_runs_of_one_seed_have_the_same_metrics_and_factorise_once(root, tmp_path):
    """Sheet tests 21 and 11: identical metrics; the saved tables are the factors, scaled."""
    first, second = (train(root, tmp_path / name) for name in ("a", "b"))
    assert first["metrics"] == second["metrics"]
    assert "fitted" in first["choices"]["method.factors"]
    assert "found" in second["choices"]["method.factors"]
    assert first["cost"]["seconds_cache"] == second["cost"]["seconds_cache"] > 0
    saved, _ = read_tensors(tmp_path / "a" / "model.safetensors")
    for name, factors in factors_in(root).items():
        scaled = factors * saved[f"{name}.scale"].float().numpy()
        np.testing.assert_allclose(saved[f"{name}.table"].numpy(), scaled, rtol=1e-6)
    assert (
        first["cost"]["parameters"]["all"] < saved["users.table"].numel() + saved["items.table"].numel() + 6e4
    )


def test_a_run_scores_the_same_without_its_dataset_and_folds_new_users_in(root, tmp_path, monkeypatch):
    """Sheet test 13: who is in no training row is scored, also where the dataset is not."""
    train(root, tmp_path / "run", "method.embedding=init_upd", "model=dlrm")
    opened = [open_run(tmp_path / "run", CPU)]
    monkeypatch.setenv("EFFREC_DATA", str(tmp_path / "nowhere"))
    (root / "prepared").rename(root / "hidden")
    opened.append(open_run(tmp_path / "run", CPU))
    (root / "hidden").rename(root / "prepared")
    assert opened[0].data is not None
    assert opened[1].data is None
    users = torch.tensor([3, -1])
    histories = Histories(torch.tensor([1, 2, 5, 9]), torch.tensor([0, 2, 4]))
    lists = [top_k(each.method.scorer(), users, histories, 10) for each in opened]
    assert torch.equal(lists[0][0], lists[1][0])
    torch.testing.assert_close(lists[0][1], lists[1][1])


def test_looking_at_a_run_factorises_nothing(tmp_path, capsys):
    words = [f"data_root={tmp_path}", *SMALL, "--json"]
    assert main(["validate", *words]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["weights"] > 0
    assert not (tmp_path / "factors").exists()
