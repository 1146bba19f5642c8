"""A real run learns: it beats popularity by far and reaches a good share of the ceiling."""

import json

import pytest

from effrec_cli.app import main

WORLD = ["dataset=synthetic", "run.device=cpu"]


def score(tmp_path, name, *overrides):
    folder = tmp_path / name
    code = main(["train", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *WORLD, *overrides])
    assert code == 0
    result = json.loads((folder / "result.json").read_text())
    return result["metrics"]["test"]["ndcg@10"] / result["ceiling"]["ndcg@10"]


@pytest.mark.slow
def test_the_default_job_reaches_a_good_share_of_the_ceiling(tmp_path):
    popularity = score(tmp_path, "pop", "method=pop")
    neighbours = score(tmp_path, "itemknn", "method=itemknn")
    trained = score(tmp_path, "cce")
    assert popularity < 0.25
    assert trained > 0.6
    assert trained > 1.2 * neighbours > 1.2 * popularity


@pytest.mark.slow
def test_bert4rec_beats_popularity_by_far(tmp_path):
    world = ["dataset.num_users=400", "dataset.num_items=200", "run.max_epochs=120", "run.patience=null"]
    popularity = score(tmp_path, "pop", "method=pop", *world)
    trained = score(tmp_path, "bert4rec", "model=bert4rec", "method.loss=cce", *world)
    assert trained > 2 * popularity
