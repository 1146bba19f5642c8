"""What a whole run says it cost: one definition for methods with a loop and without."""

import json

import pytest

from effrec_cli.app import main

TINY = [
    "dataset.num_users=60",
    "dataset.num_items=40",
    "dataset.side=[]",
    "run.device=cpu",
    "run.max_epochs=2",
]
SMALL_MODEL = ["model.dim=16", "model.num_layers=1", "model.max_length=20", "method.num_negatives=15"]


@pytest.mark.parametrize("words", [["method=pop"], ["method=itemknn"], ["method=ease"], SMALL_MODEL])
def test_the_total_is_training_and_validating_whatever_the_method(words, tmp_path, monkeypatch, capsys):
    from effrec_cli.methods import base

    ranked = []
    rank_cases = base.rank_cases

    def counted(scorer, data, cases, *rest, **more):
        ranked.append("valid" if cases is data.valid else "test")
        return rank_cases(scorer, data, cases, *rest, **more)

    monkeypatch.setattr(base, "rank_cases", counted)
    folder = tmp_path / "run"
    assert main(["train", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *TINY, *words]) == 0
    cost = json.loads((folder / "result.json").read_text())["cost"]
    assert ranked == ["valid"] * (2 if words is SMALL_MODEL else 1) + ["test"], "nothing is ranked unmeasured"
    assert 0 < cost["seconds_validation"] < cost["seconds_total"]
    assert cost["seconds_data"] > 0
    assert cost["seconds_test"] > 0
    stages = [cost[f"seconds_{what}"] for what in ("data", "build", "total", "test", "save")]
    # That no second lies between stages is held to a clock of its own in test_cadc_costs.py.
    assert 0.5 * cost["seconds_wall"] < sum(stages) <= cost["seconds_wall"]
    assert (cost["seconds_factorise"], cost["seconds_sample"]) == (None, None)
    out = " ".join(capsys.readouterr().out.split())  # long texts go over two lines
    for text in ("time in all", "training and validating", "beside it: data", "beside it: test", "whole run"):
        assert text in out
