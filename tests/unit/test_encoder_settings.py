"""An encoder's settings: what would do nothing or contradicts is named before anything is built."""

import pytest

from effrec_cli.schema.encoder import EncoderConfig, encoder_problems

KEPT = [
    {},
    {"name": "folder", "revision": "v1", "tokenizer": "own", "max_tokens": 24},
    {"name": "folder", "weights": "random", "tokenizer": "dataset"},
    {"name": "folder", "train": "lora", "lora_rank": 4},
    {"name": "folder", "train": "lora", "top_layers": 2, "cache_lower": True},
    {"name": "folder", "modality": "image", "pooling": "cls"},
    {"train": "top", "top_layers": 1, "cache_lower": True},
    {"modality": "image", "dim": 96, "num_heads": 3},
]
REFUSED = [
    ({"revision": "v1"}, "revision", "is for a named encoder"),
    ({"weights": "random"}, "weights", "weights=random would do nothing"),
    ({"name": "folder", "dim": 32}, "dim", "dim=32 would do nothing: it is for the built-in encoder"),
    ({"name": "folder", "num_layers": 3}, "num_layers", "is for the built-in encoder"),
    ({"modality": "image", "tokenizer": "own"}, "tokenizer", "is for texts"),
    ({"modality": "image", "max_tokens": 9}, "max_tokens", "is for texts"),
    ({"top_layers": 1}, "top_layers", "is for train=top or lora"),
    ({"lora_rank": 4}, "lora_rank", "is for train=lora"),
    ({"train": "lora"}, "train", "starts from random ones"),
    ({"name": "folder", "train": "top"}, "top_layers", "needs to know how many layers"),
    ({"cache_lower": True}, "cache_lower", "nothing can be kept"),
    ({"name": "folder", "train": "lora", "cache_lower": True}, "cache_lower", "With train=lora no layer"),
    ({"name": "folder", "tokenizer": "dataset"}, "tokenizer", "their own tokenizer's tokens"),
    ({"max_tokens": 100, "batch_tokens": 64}, "batch_tokens", "more than batch_tokens=64"),
    ({"dim": 65}, "dim", "dim=65 is not a multiple of num_heads=2"),
    ({"train": "top", "top_layers": 2}, "top_layers", "top_layers=2 is all"),
    ({"modality": "image", "pooling": "cls"}, "pooling", "stands for the whole image"),
]


@pytest.mark.parametrize("given", KEPT, ids=str)
def test_settings_that_fit_together_are_kept(given):
    assert not list(encoder_problems(EncoderConfig(**given)))


@pytest.mark.parametrize(("given", "name", "said"), REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_one_problem_names_the_setting_says_why_and_what_to_write(given, name, said):
    (problem,) = encoder_problems(EncoderConfig(**given), "method.text")
    assert problem.path == f"method.text.{name}"
    assert said in problem.what
    assert "method.text." in problem.fix


def test_the_learning_rate_left_open_follows_where_the_weights_come_from():
    assert EncoderConfig().peak_lr(3e-3) == 3e-3
    assert EncoderConfig(name="folder").peak_lr(3e-3) == 1e-4
    assert EncoderConfig(name="folder", weights="random").peak_lr(3e-3) == 3e-3
    assert EncoderConfig(name="folder", lr=2e-5).peak_lr(3e-3) == 2e-5
