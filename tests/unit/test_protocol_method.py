"""A method says how it is judged: a run, a look at memory and `evaluate` go by what it says."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_cce import chain

from effrec_cli import result, trial
from effrec_cli.app import main
from effrec_cli.commands.show import protocol_words
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.methods.base import Method
from effrec_cli.methods.pop import Popularity
from effrec_cli.report import tables
from effrec_cli.report.board import board_table
from effrec_cli.report.compare import compare
from effrec_cli.schema import Config, protocols
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
    assert "by_frequency" not in found, "it ranks no catalogue"


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
    assert method.judge("test", limit=2) == rank_cases(method.scorer(), DATA, DATA.test[:2], settings)
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


@pytest.fixture
def own_task(monkeypatch):
    """Gives the runs' task a protocol of its own."""
    monkeypatch.setattr(protocols, "OWN", {"none": ("auc", "log_loss")})


def test_words_of_rankings_are_refused_where_nothing_is_ranked(own_task, run, capsys):
    for words, said in (
        (["evaluate", "--ks", "5"], "--ks 5"),
        (["evaluate", "--seen", "keep"], "--seen keep"),
        (["recommend", "--history", "[]"], "cannot recommend"),
    ):
        assert main([words[0], str(run), *words[1:]]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert f"effrec evaluate {run}" in told
        assert "task none" in told
    assert main(["evaluate", str(run)]) == 0


def test_a_look_at_memory_asks_any_protocol(own_task, monkeypatch):
    seen = []
    monkeypatch.setattr(Popularity, "judge", lambda self, part, limit=None: seen.append((part, limit)))
    monkeypatch.setattr(trial, "BUDGET_BYTES", 0)
    growth = SimpleNamespace(so_far=lambda: 5 * len(seen))
    data = replace(DATA, valid=DATA.valid[:0])
    assert trial._validation(make_pop(), data, torch.device("cpu"), growth) == 5
    assert len(seen) == 1


def test_a_finished_run_recommends_only_where_it_can(run, capsys):
    found = result.read(run)
    assert not any("effrec recommend" in line for line in tables.next_commands(found, run))
    ranked = replace(found, protocol={"candidates": "full"})
    assert any("effrec recommend" in line for line in tables.next_commands(ranked, run))


def test_a_stamp_is_told_in_words():
    parts = {"by_user": {"test_share": 0.1, "valid_share": 0.2}, "seed": 42}
    told = protocol_words({"task": "answers", "parts": parts, "ks": [1]})
    assert told == "task: answers, parts: by_user (test_share 0.1, valid_share 0.2), seed 42"


def test_scores_of_new_items_stand_under_their_cut_offs():
    scores = {"auc": 0.7, "ndcg@5": 0.1, "ndcg@10": 0.2, "ndcg@5_cold": 0.3, "ndcg@10_cold": 0.4}
    table = tables.scores_table("", "test", {**scores, "cases_cold": 1234}, "ndcg", {"ndcg@10": 0.8})
    assert [column.header for column in table.columns] == ["test", "value", "@5", "@10"]
    assert table.rows == [
        ["auc", "0.7000", "-", "-"],
        ["ndcg", "-", "0.1000", "0.2000"],
        ["  of ceiling", "-", "-", "25.0 %"],
        ["ndcg_cold", "-", "0.3000", "0.4000"],
        ["cases_cold", "1,234", "-", "-"],
    ]


def test_compare_puts_the_lower_loss_first_and_protocols_apart(run, tmp_path, capsys):
    worse = result.read(run)
    for name, change in (
        ("a", {"metrics": {"test": {"auc": 0.5, "log_loss": 0.9}}}),
        ("b", {"metrics": {"test": {"auc": 0.6, "log_loss": 0.3}}, "method": "ease"}),
        ("c", {"protocol": {"task": "other"}}),
    ):
        (tmp_path / "runs" / name).mkdir(parents=True)
        result.write(tmp_path / "runs" / name, replace(worse, **change))
    boards = compare([tmp_path / "runs"], "log_loss").boards
    assert [len(board.entries) for board in boards] == [2, 1]
    assert [entry.first.method for entry in boards[0].entries] == ["ease", "pop"]
    shown = board_table(boards[0])
    assert "answers" in shown.title
    at = [column.header for column in shown.columns].index("log_loss")
    assert (0, at) in shown.best
    assert (1, at) not in shown.best
