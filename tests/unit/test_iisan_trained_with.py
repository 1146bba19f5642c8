"""A frozen backbone that is another one than the run was trained with is named, and what of it changed."""

import json
import shutil

import pytest
import torch
from backbone_helpers import folder_of
from iisan_helpers import LIVE, built, config_of

from effrec_cli.data.load import load
from effrec_cli.distributed import World
from effrec_cli.methods.content.trained_with import changes
from effrec_cli.methods.iisan import IISAN

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Folders of a text and an image backbone, and the words that name them."""
    root = tmp_path_factory.mktemp("backbones")
    return {name: folder_of(root / name, kind) for name, kind in (("text", "bert"), ("image", "vit"))}


@pytest.fixture
def words(names, tmp_path):
    for name, folder in names.items():
        shutil.copytree(folder, tmp_path / name)
    plain = ("dim=32", "num_layers=4")  # as they are for built-in backbones, which these are not
    return [f"method.{name}.{word}" for name in names for word in (f"name={tmp_path / name}", *plain)]


def reopened(root, state, *words, mode="iisan"):
    """Returns the lines that a run of a state says when it is opened again, of changed backbones alone."""
    said = []
    method = IISAN(config_of(root, *words, mode=mode), World())
    method.say = said.append
    method.recall(json.loads(json.dumps(state)))
    method.reopen()
    method.data = load(method.config.dataset, root, lambda line: None)
    method.model = method.build(method.data)
    return [line for line in said if "not the one" in line]


def other_weights(folder):
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(folder)


@pytest.mark.parametrize(("mode", "more"), [("iisan", []), ("frozen", []), ("iisan", LIVE)])
def test_other_weights_are_told_of_the_backbone_that_has_them(tmp_path, words, mode, more):
    words += more
    state = built(tmp_path, *words, mode=mode).extra_state()
    assert state["backbones"].keys() == {"text", "image"}
    assert reopened(tmp_path, state, *words, mode=mode) == []
    other_weights(tmp_path / "image")
    (line,) = reopened(tmp_path, state, *words, mode=mode)
    assert "The image backbone is not the one that this run was trained with" in line
    assert ": other weights. " in line
    assert "method.image.name" in line
    assert "train anew" in line


def test_a_run_resumed_with_other_weights_goes_on_naming_those_it_began_with(tmp_path, words):
    state = built(tmp_path, *words).extra_state()
    other_weights(tmp_path / "text")
    method = IISAN(config_of(tmp_path, *words, mode="iisan"), World())
    method.say = lambda line: None
    method.recall(json.loads(json.dumps(state)))
    method.data = load(method.config.dataset, tmp_path, lambda line: None)
    method.model = method.build(method.data)
    saved = method.extra_state()
    assert saved["backbones"] == json.loads(json.dumps(state["backbones"]))
    (line,) = reopened(tmp_path, saved, *words)
    assert ": other weights. " in line


def test_another_size_of_images_is_told_by_its_numbers(tmp_path, words):
    state = built(tmp_path, *words).extra_state()
    (tmp_path / "image" / "preprocessor_config.json").write_text(json.dumps({"size": 24}))
    (line,) = reopened(tmp_path, state, *words)
    assert "image.size: [16, 16] there, [24, 24] here" in line


def test_weights_that_the_run_keeps_itself_are_not_asked_for(tmp_path, words):
    method = built(tmp_path, *words, *LIVE, mode="frozen")
    assert "backbones" not in method.extra_state()
    assert any(name.startswith("encoder.backbones.image") for name in method.state_dict())


def test_a_run_without_a_record_says_nothing(tmp_path, words):
    assert reopened(tmp_path, {"keeps_lower": False}, *words) == []


def test_all_that_changed_is_in_one_line_for_each_backbone():
    then = {
        "text": {"model": "a", "weights": "b", "tokenizer": "c", "max_tokens": 9},
        "image": {"model": "d"},
    }
    now = {
        "text": {"model": "x", "weights": "y", "tokenizer": "z", "max_tokens": 12},
        "image": {"model": "d"},
    }
    (line,) = changes(then, now)
    assert "max_tokens: 9 there, 12 here; other config.json; other tokenizer; other weights. " in line


def test_facts_are_compared_as_a_checkpoint_holds_them():
    assert list(changes({"image": {"size": [8, 8]}}, {"image": {"size": (8, 8)}})) == []
