"""Settings of method iisan: what would do nothing or contradicts is named before anything is prepared."""

from dataclasses import replace

import pytest
from iisan_helpers import built

from effrec_cli import compose
from effrec_cli.errors import ConfigError
from effrec_cli.schema.backbone import BackboneConfig
from effrec_cli.schema.method_iisan import (
    LOOKED_AT,
    MODES,
    FeatureCacheConfig,
    IISANConfig,
    RatesConfig,
    iisan_problems,
    in_batch,
)

NAMED = BackboneConfig(name="bert", tokenizer="own")
LIVE = {"cache": FeatureCacheConfig(use=False)}
KEPT = [
    *({"mode": mode, "rates": RatesConfig(side=0.1, text=0.2, image=0.3)} for mode in MODES),
    {"transform": "low_rank", "transform_rank": 8, "towers": "inter"},
    {"text_taps": [0, 2], "image_taps": [1], "modality_dropout": 0.5},
    {"text_taps": [0, 2], "num_taps": 3},
    {"modality": "text", "text": NAMED},
    {"modality": "image", "image_taps": [0, 1], "fusion": "sum", "head": "narrow", "activation": "gelu"},
    {"modality": "auto", "text": NAMED, "image": BackboneConfig(name="vit")},
    {"cache": FeatureCacheConfig(True, "int8", "disk", True), "compile": True},
    {"mode": "frozen", "cache": FeatureCacheConfig(dtype="fp8", residence="ram")},
    {"mode": "fft", **LIVE},
    {"mode": "adapter", "adapter_rank": 8},
    {"mode": "lora", "lora_rank": 2},
    {"mode": "bitfit", "recompute": True},
    {"mode": "fft", "memory_share": 0.1},
]
# What is not looked at, each with another value than its default, and in which mode.
UNUSED = [
    ("fft", "towers", "intra"),
    ("lora", "num_taps", 3),
    ("adapter", "text_taps", [0]),
    ("bitfit", "image_taps", [0]),
    ("frozen", "rank", 8),
    ("fft", "activation", "gelu"),
    ("fft", "fusion", "sum"),
    ("fft", "head", "narrow"),
    ("fft", "transform", "shared"),
    ("iisan", "transform_rank", 8),
    ("fft", "modality_dropout", 0.1),
    ("frozen", "compile", True),
    ("iisan", "adapter_rank", 8),
    ("adapter", "lora_rank", 2),
    ("iisan", "recompute", True),
    ("frozen", "memory_share", 0.1),
]
REFUSED = [
    *(({"mode": mode, name: value}, name, f"{name}=") for mode, name, value in UNUSED),
    *(
        (
            {"mode": mode, "cache": FeatureCacheConfig(use=True)},
            "cache.use",
            f"mode={mode} trains the backbones",
        )
        for mode in ("fft", "adapter", "lora", "bitfit")
    ),
    ({"cache": FeatureCacheConfig(use=False, dtype="fp8")}, "cache.dtype", "no cache is read"),
    ({"cache": FeatureCacheConfig(use=False, residence="ram")}, "cache.residence", "no cache is read"),
    ({"recompute": True, **LIVE}, "recompute", "recompute=true would do nothing: it is for mode=fft or"),
    ({"mode": "fft", "recompute": True, "memory_share": 0.1}, "memory_share", "for recompute=null, not true"),
    ({"mode": "lora", "cache": FeatureCacheConfig(rebuild=True)}, "cache.rebuild", "no cache is read"),
    ({"modality": "image", "text": NAMED}, "text", "leaves the text backbone out"),
    ({"modality": "text", "image": BackboneConfig(dim=8)}, "image", "leaves the image backbone out"),
    ({"modality": "image", "text_taps": [0, 2]}, "text_taps", "leaves the text backbone out"),
    ({"text": BackboneConfig(revision="abc")}, "text.revision", "is for a named backbone"),
    ({"image": BackboneConfig(name="vit", dim=8)}, "image.dim", "is for the built-in backbone"),
    ({"text_taps": [2, 0]}, "text_taps", "rising numbers"),
    ({"text_taps": [1, 1]}, "text_taps", "rising numbers"),
    ({"image_taps": [-1, 2]}, "image_taps", "rising numbers"),
    ({"image_taps": []}, "image_taps", "rising numbers"),
    ({"text_taps": [0], "image_taps": [1], "num_taps": 3}, "num_taps", "say which are read"),
    ({"modality": "text", "text_taps": [0], "num_taps": 3}, "num_taps", "say which are read"),
    ({"modality": "text", "towers": "inter"}, "towers", "one tower"),
    ({"modality": "image", "modality_dropout": 0.2}, "modality_dropout", "nothing left"),
    ({"modality": "image", "transform": "shared"}, "transform", "would do nothing"),
    ({"towers": "intra", "transform": "low_rank"}, "transform", "would do nothing"),
    ({"next_item": replace(in_batch(), num_negatives=5)}, "next_item.num_negatives", "candidates=step"),
    ({"next_item": replace(in_batch(), correction="logq")}, "next_item.correction", "draws none"),
]


@pytest.mark.parametrize("given", KEPT, ids=str)
def test_settings_that_fit_together_are_kept(given):
    assert not list(iisan_problems(IISANConfig(**given), "next_item"))


@pytest.mark.parametrize(("given", "name", "said"), REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_one_problem_names_the_setting_says_why_and_what_to_write(given, name, said):
    (problem,) = iisan_problems(IISANConfig(**given), "next_item")
    assert problem.path == f"method.{name}"
    assert said in problem.what
    assert "method." in problem.fix


def test_every_setting_that_a_mode_looks_at_is_refused_elsewhere():
    assert {name for _, name, _ in UNUSED} == set(LOOKED_AT)


COMMAND_LINES = [
    (["method.mode=ffft"], "method.mode", "fft"),
    (["method.modality=txt"], "method.modality", "text"),
    (["method.cache.dtype=bf15"], "method.cache.dtype", "bf16"),
    (["method.cache.residence=gpu"], "method.cache.residence", None),
    (["method.num_taps=0"], "method.num_taps", None),
    (["method.modality_dropout=0.6"], "method.modality_dropout", None),
    (["method.rates.side=0"], "method.rates.side", None),
    (["method.rate.side=1"], "method.rate", "method.rates.side=1"),
    (["method.mode=fft", "method.cache.use=true"], "method.cache.use", None),
    (["method.modality=text", "dataset=table", "dataset.path=log.csv"], "dataset.title", None),
    (["optimizer.sparse_rows=true"], "optimizer.sparse_rows", None),
]


@pytest.mark.parametrize(
    ("words", "said", "nearest"), COMMAND_LINES, ids=[str(row[0]) for row in COMMAND_LINES]
)
def test_a_command_line_that_cannot_mean_anything(words, said, nearest):
    with pytest.raises(ConfigError) as caught:
        compose.compose(["method=iisan", *words])
    assert said in str(caught.value)
    assert caught.value.fix or caught.value.nearest
    assert nearest is None or caught.value.nearest == nearest


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["model.dim=32"], True),
        (["model.dim=32", "method.dim=32"], False),
        (["model.dim=32", "method.next_item.projection=true"], False),
        ([], False),
    ],
)
def test_a_model_of_another_width_than_the_vectors_is_refused(words, refused):
    given = ["experiment=smoke_iisan", "method.dim=64", *words]
    if not refused:
        compose.compose(given)
        return
    with pytest.raises(ConfigError, match=r"vectors of method.dim=64 as they are, and model.dim=32"):
        compose.compose(given)


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["method.image.name=vit", "method.image.dim=32", "method.image.num_layers=4"], "method.image.name"),
        (["method.towers=inter"], "method.towers"),
        (["method.modality_dropout=0.1"], "method.modality_dropout"),
    ],
)
def test_what_is_for_images_is_refused_where_auto_finds_none(tmp_path, words, where):
    with pytest.raises(ConfigError, match="has no images of its items") as caught:
        built(tmp_path, "dataset.side=[text]", *words)
    assert caught.value.where == where
    assert built(tmp_path, "dataset.side=[text]").table().isfinite().all()


def test_a_named_text_backbone_is_refused_where_auto_finds_no_texts(tmp_path):
    named = ["method.text.name=bert", "method.text.dim=32", "method.text.num_layers=4"]
    with pytest.raises(ConfigError, match="has no texts of its items"):
        built(tmp_path, "dataset.side=[images]", *named, mode="fft")
