"""Which of a method's training tasks feeds a model, and what is said where none does."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from effrec_cli import registry
from effrec_cli.backbone import model_for, task_for
from effrec_cli.errors import ConfigError
from effrec_cli.methods.base import Method
from effrec_cli.models.sasrec import SASRec
from effrec_cli.schema import Config


class Both:
    """A model that two tasks can feed."""

    tasks = ("news", "next_item")


@pytest.fixture
def both(monkeypatch):
    row = replace(registry.row("models", "sasrec"), target=f"{__name__}:Both", tasks=Both.tasks)
    monkeypatch.setitem(registry.rows("models"), "both", row)
    monkeypatch.setattr(registry, "load", lambda path: Both if path == row.target else loaded(path))


loaded = registry.load


def test_the_model_decides_which_task():
    assert task_for(("knowledge_tracing", "next_item"), "sasrec") == "next_item"
    assert task_for(("none", "next_item"), "none") == "none"
    assert model_for("next_item", "sasrec") is SASRec


def test_a_model_that_takes_several_gets_the_methods_first(both):
    assert task_for(("next_item", "news"), "both") == "next_item"
    assert task_for(("news", "next_item"), "both") == "news"


def test_a_method_has_the_task_of_its_runs_model():
    class Several(Method):
        tasks = ("none", "next_item")

    for name, task in (("sasrec", "next_item"), ("none", "none")):
        assert Several(Config(model=SimpleNamespace(name=name))).task == task


def test_no_task_that_fits_lists_the_pairs(both):
    with pytest.raises(
        ConfigError, match=r"task 'knowledge' or 'news'; pairs that fit: .*bert4rec"
    ) as caught:
        task_for(("knowledge", "news"), "sasrec")
    assert caught.value.where == "model=sasrec"
    assert "both" in caught.value.fix
