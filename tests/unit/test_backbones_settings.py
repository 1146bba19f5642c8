"""A backbone's settings: what would do nothing or contradicts is named before anything is built."""

import pytest

from effrec_cli.schema.backbone import BackboneConfig, backbone_problems

KEPT = [
    ("text", {}),
    ("text", {"name": "folder", "revision": "v1", "tokenizer": "own", "max_tokens": 24, "pooling": "eos"}),
    ("text", {"name": "folder", "weights": "random", "tokenizer": "dataset"}),
    ("text", {"dim": 48, "num_heads": 3, "pooling": "cls"}),
    ("image", {}),
    ("image", {"name": "folder", "pooling": "cls"}),
]
REFUSED = [
    ("text", {"revision": "v1"}, "revision", "is for a named backbone"),
    ("image", {"weights": "random"}, "weights", "weights=random would do nothing"),
    ("text", {"name": "folder", "dim": 16}, "dim", "is for the built-in backbone"),
    ("image", {"tokenizer": "own"}, "tokenizer", "is for texts"),
    ("image", {"max_tokens": 9}, "max_tokens", "is for texts"),
    ("text", {"name": "folder", "tokenizer": "dataset"}, "tokenizer", "their own tokenizer's tokens"),
    ("text", {"dim": 33}, "dim", "dim=33 is not a multiple of num_heads=2"),
    ("image", {"pooling": "cls"}, "pooling", "stands for the whole image"),
    ("image", {"name": "folder", "pooling": "last"}, "pooling", "stand in no order"),
    ("text", {"pooling": "eos"}, "pooling", "No token ends the texts"),
]


@pytest.mark.parametrize(("modality", "given"), KEPT, ids=str)
def test_settings_that_fit_together_are_kept(modality, given):
    assert not list(backbone_problems(BackboneConfig(**given), f"method.{modality}", modality))


@pytest.mark.parametrize(("modality", "given", "name", "said"), REFUSED, ids=str)
def test_one_problem_names_the_setting_says_why_and_what_to_write(modality, given, name, said):
    (problem,) = backbone_problems(BackboneConfig(**given), f"method.{modality}", modality)
    assert problem.path == f"method.{modality}.{name}"
    assert said in problem.what
    assert problem.fix
