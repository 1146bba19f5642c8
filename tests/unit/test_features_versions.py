"""Which versions kept features: written down, told where they differ, never a reason for another folder."""

import importlib.metadata
import json

import numpy as np
import pytest
from features_helpers import keep, never, spec

from effrec_cli.data.features import build, draft
from effrec_cli.data.features.versions import since, versions

KEPT = {"torch": "2.12.1+cu130", "transformers": "5.17.0"}


def kept_by(root, monkeypatch, found):
    monkeypatch.setattr(draft, "versions", lambda: found)
    return keep(root)


def reused_by(root, monkeypatch, found):
    """Returns the features and the lines of a process with some versions, which builds nothing."""
    said = []
    monkeypatch.setattr(build, "versions", lambda: found)
    return keep(root, never, said=said), said


def test_the_manifest_names_them_and_the_folder_does_not_depend_on_them(tmp_path, monkeypatch):
    first = kept_by(tmp_path, monkeypatch, KEPT)
    assert first.versions == KEPT
    folder = spec().folder(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["versions"] == KEPT
    assert "5.17.0" not in json.dumps(manifest["facts"])
    again, _ = reused_by(tmp_path, monkeypatch, {"torch": "3.0.0", "transformers": "6.0.0"})
    assert np.array_equal(again.rows, first.rows)
    assert again.versions == KEPT


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (KEPT, None),
        ({"torch": "2.12.9", "transformers": "5.17.3"}, None),
        ({"torch": "2.12.1"}, None),
        ({**KEPT, "transformers": "5.23.0"}, "kept by transformers 5.17, this is 5.23."),
        ({**KEPT, "torch": "3.12.1"}, "kept by torch 2.12, this is 3.12."),
    ],
)
def test_another_major_or_minor_number_is_told_in_one_line(tmp_path, monkeypatch, now, told):
    kept_by(tmp_path, monkeypatch, KEPT)
    _, said = reused_by(tmp_path, monkeypatch, now)
    assert len(said) == (told is not None)
    if told:
        assert told in said[0]
        assert "items' text" in said[0]
        assert "method.cache.rebuild=true" in said[0]


def test_both_that_changed_are_told_in_one_line():
    now = {"torch": "2.13.0", "transformers": "5.23.0"}
    assert since(KEPT, now) == "kept by torch 2.12, this is 2.13; kept by transformers 5.17, this is 5.23"


def test_what_an_older_effrec_kept_without_versions_is_read(tmp_path, monkeypatch):
    keep(tmp_path)
    path = spec().folder(tmp_path) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["versions"]
    path.write_text(json.dumps(manifest))
    found, said = reused_by(tmp_path, monkeypatch, KEPT)
    assert found.versions == {}
    assert not said


def test_they_are_those_of_this_process(tmp_path):
    assert versions()["torch"] == importlib.metadata.version("torch")
    assert keep(tmp_path).versions == versions()
