"""Which metric a run selects by: the one named, or the usual one of its task's protocol."""

from dataclasses import replace

import pytest

from effrec_cli import compose, registry
from effrec_cli.errors import ConfigError
from effrec_cli.kept_settings import refuse_other_settings
from effrec_cli.schema import Config
from effrec_cli.schema.protocols import OWN, metrics_of, monitor_of


def task(monkeypatch, name):
    """Makes cce and sasrec a method and a model of another task."""
    for kind, row in (("methods", "cce"), ("models", "sasrec")):
        changed = replace(registry.row(kind, row), tasks=(name,))
        monkeypatch.setitem(registry.rows(kind), row, changed)


@pytest.mark.parametrize(
    ("words", "monitor"),
    [
        ([], "ndcg@10"),
        (["method=pop"], "ndcg@10"),
        (["evaluation.monitor=mrr@5"], "mrr@5"),
        (["evaluation.ks=[5,20]"], "ndcg@5"),
        (["evaluation.metrics=[hr,mrr]"], "hr@1"),
    ],
)
def test_rankings(words, monitor):
    assert compose.compose(words).evaluation.monitor == monitor


@pytest.mark.parametrize("name", ["news", "knowledge_tracing"])
def test_tasks_with_a_protocol_of_their_own(monkeypatch, name):
    task(monkeypatch, name)
    assert compose.compose([]).evaluation.monitor == "auc"
    assert compose.compose(["evaluation.monitor=auc_cold"]).evaluation.monitor == "auc_cold"


@pytest.mark.parametrize(
    ("name", "given", "nearest"),
    [
        ("news", "ndcg@20", "ndcg@10"),
        ("news", "auc_kold", "auc_cold"),
        ("knowledge_tracing", "acuracy", "accuracy"),
        ("knowledge_tracing", "ndcg@10", None),
    ],
)
def test_a_metric_of_another_protocol_is_refused(monkeypatch, name, given, nearest):
    task(monkeypatch, name)
    with pytest.raises(ConfigError, match="not among the metrics") as caught:
        compose.compose([f"evaluation.monitor={given}"])
    assert caught.value.where == "evaluation.monitor"
    assert caught.value.nearest == nearest
    assert "auc" in caught.value.fix


def test_no_run_is_selected_by_what_is_better_when_lower(monkeypatch):
    task(monkeypatch, "knowledge_tracing")
    with pytest.raises(ConfigError, match="Lower is better for 'log_loss'"):
        compose.compose(["evaluation.monitor=log_loss"])


@pytest.mark.parametrize("setting", ["ks=[3]", "metrics=[hr]", "seen=keep"])
def test_settings_of_ranking_are_refused_where_nothing_is_ranked(monkeypatch, setting):
    compose.compose([f"evaluation.{setting}"])
    task(monkeypatch, "news")
    with pytest.raises(ConfigError, match="would do nothing: it is for ranking, and task news has auc"):
        compose.compose([f"evaluation.{setting}"])


def test_settings_made_by_hand_have_one_too(monkeypatch):
    config = Config()
    assert monitor_of(config) == "ndcg@10"
    assert metrics_of(config)[:2] == ["ndcg@1", "ndcg@5"]
    config.evaluation.monitor = "hr@5"
    assert monitor_of(config) == "hr@5"


def test_a_run_from_before_goes_on(tmp_path):
    kept = compose.to_yaml(compose.compose(["evaluation.monitor=ndcg@10"]))
    (tmp_path / "config.yaml").write_text(kept)
    refuse_other_settings(tmp_path, compose.compose([]))
    with pytest.raises(ConfigError, match="other settings"):
        refuse_other_settings(tmp_path, compose.compose(["evaluation.monitor=hr@10"]))


def test_each_own_protocol_has_a_usual_metric():
    for metrics in OWN.values():
        assert metrics[0] == "auc"
        assert len(set(metrics)) == len(metrics)
