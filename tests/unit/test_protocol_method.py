"""A method says how it is judged: a run, a look at memory and `evaluate` go by what it says."""

import json
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from test_cce import chain

from effrec_cli import trial
from effrec_cli.app import main
from effrec_cli.data.types import EvalCases
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.methods.base import Method
from effrec_cli.methods.pop import Popularity
from effrec_cli.schema import Config
from effrec_cli.schema.method_pop import PopularityConfig
from effrec_cli.schema.model_none import NoModelConfig

SMALL = ["dataset.num_users=60", "dataset.num_items=40", "dataset.side=[]", "run.device=cpu", "method=pop"]
STAMP = {"task": "answers", "threshold": 0.5}


@pytest.fixture
def answers(monkeypatch):
    """Makes `pop` a method that is judged by a protocol of its own."""
    monkeypatch.setattr(
        Popularity, "judge", lambda self, part, limit=None: {"auc": {"valid": 0.7}.get(part, 0.6)}
    )
    monkeypatch.setattr(Popularity, "protocol", lambda self: STAMP)
    monkeypatch.setattr(Popularity, "training_rows", property(lambda self: 7))
    monkeypatch.setattr(Popularity, "ceiling", property(lambda self: {"auc": 0.9}))


@pytest.fixture
def run(tmp_path, answers):
    folder = tmp_path / "run"
    assert main(["train", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *SMALL]) == 0
    return folder


def test_a_run_goes_by_the_methods_own_protocol(run):
    found = json.loads((run / "result.json").read_text())
    assert found["metrics"] == {"valid": {"auc": 0.7}, "test": {"auc": 0.6}}
    assert found["protocol"] == STAMP
    assert found["cost"]["training_rows"] == 7
    assert found["ceiling"] == {"auc": 0.9}


def test_evaluate_asks_the_method_again(run, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", "valid", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["metrics"] == {"auc": 0.7}
    assert record["protocol"] == STAMP
    assert record["same_as_result"] is True


DATA = chain(num_users=30, num_items=40)


def make_pop(data=DATA):
    config = Config(model=NoModelConfig(), method=PopularityConfig())
    method = Popularity(config)
    method.build(method.prepare(data))
    method.fit(SimpleNamespace(world=SimpleNamespace(device=torch.device("cpu"))))
    return method


def test_the_default_ranks_all_cases_or_the_first():
    method = make_pop()
    settings = method.config.evaluation
    assert method.judge("valid") == rank_cases(method.scorer(), DATA, DATA.valid, settings)
    assert method.judge("test") == rank_cases(method.scorer(), DATA, DATA.test, settings)
    first = EvalCases(**{f.name: getattr(DATA.test, f.name)[:2] for f in fields(EvalCases)})
    assert method.judge("test", limit=2) == rank_cases(method.scorer(), DATA, first, settings)
    assert method.judge("test", limit=2) != method.judge("test")


def test_a_look_at_memory_judges_a_block(monkeypatch):
    seen = []
    monkeypatch.setattr(Popularity, "judge", lambda self, part, limit=None: seen.append((part, limit)))
    growth = SimpleNamespace(so_far=lambda: len(seen))
    assert trial._validation(make_pop(), DATA, torch.device("cpu"), growth) == 1
    assert seen == [("valid", len(DATA.valid))]


def test_what_cannot_rank_says_so():
    config = Config(model=NoModelConfig(), method=PopularityConfig())

    class Unable(Method):
        tasks = ("none",)

    with pytest.raises(ConfigError, match="method=pop with model=none cannot rank") as caught:
        Unable(config).scorer()
    assert "effrec evaluate" in caught.value.fix
