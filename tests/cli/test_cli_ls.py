"""`effrec ls`: what can be named, as text and as JSON."""

import json
from dataclasses import replace

import pytest

from effrec_cli import registry
from effrec_cli.catalogue import GROUPS, first_comment
from effrec_cli.paths import conf_dir


@pytest.mark.parametrize(("kind", "group"), GROUPS.items())
def test_every_yaml_is_listed(effrec, kind, group):
    done = effrec("ls", kind, "--json")
    assert done.code == 0
    listed = json.loads(done.out)
    assert [entry["name"] for entry in listed] == sorted(
        path.stem for path in (conf_dir() / group).glob("*.yaml")
    )
    for entry in listed:
        assert entry["summary"]
        assert not entry["summary"].startswith("does not compose"), entry


def test_methods_tell_model_and_task(effrec):
    by_name = {entry["name"]: entry for entry in json.loads(effrec("ls", "methods", "--json").out)}
    assert by_name["cce"]["model"] == "sasrec"
    assert by_name["cce"]["task"] == "next_item"
    assert by_name["pop"]["model"] == "none"


def test_experiments_tell_what_they_need(effrec):
    by_name = {entry["name"]: entry for entry in json.loads(effrec("ls", "experiments", "--json").out)}
    assert by_name["paper_cce_beauty"]["needs"] == "dataset.path=FILE"
    assert by_name["smoke_cce"]["needs"] is None


def test_models_tell_their_tasks(effrec):
    by_name = {entry["name"]: entry for entry in json.loads(effrec("ls", "models", "--json").out)}
    assert by_name["sasrec"]["tasks"] == by_name["bert4rec"]["tasks"] == "next_item"


@pytest.mark.parametrize("kind", ["methods", "models"])
def test_rows_tell_the_tasks_of_their_classes(kind):
    for name, row in registry.rows(kind).items():
        found = registry.implementation(kind, name)
        assert row.tasks == found.tasks


def test_the_task_of_a_row_that_does_not_tell_is_its_class_s(effrec, monkeypatch):
    row = replace(registry.row("methods", "pop"), tasks=None)
    monkeypatch.setitem(registry.rows("methods"), "pop", row)
    by_name = {entry["name"]: entry for entry in json.loads(effrec("ls", "methods", "--json").out)}
    assert by_name["pop"]["task"] == "none"


def test_text_is_a_table_with_the_next_step(effrec):
    lines = effrec("ls", "datasets").out.splitlines()
    assert lines[0].split() == ["name", "family", "summary"]
    assert lines[-1] == "use: effrec train dataset=NAME"


def test_a_users_folder_joins_and_a_broken_file_hides_nothing(effrec, tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# Mine.\nname: mine\n")
    (tmp_path / "method" / "broken.yaml").write_text("defaults:\n  - override /nothing: here\n")
    done = effrec("ls", "methods", "--config-dir", str(tmp_path), "--json")
    by_name = {entry["name"]: entry for entry in json.loads(done.out)}
    assert by_name["mine"]["summary"] == "not registered"
    assert by_name["broken"]["summary"].startswith("does not compose")
    assert "cce" in by_name


def test_unknown_list(effrec):
    done = effrec("ls", "method")
    assert done.code == 2
    assert "did you mean: methods" in done.err


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("# @package _global_\n# What it does.\nseed: 1\n", "What it does"),
        ("seed: 1\n# late\n", ""),
        ("#\n# x\n", "x"),
        ("", ""),
    ],
)
def test_first_comment(tmp_path, text, comment):
    (tmp_path / "a.yaml").write_text(text)
    assert first_comment(tmp_path / "a.yaml") == comment
