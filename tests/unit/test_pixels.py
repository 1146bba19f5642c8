"""The size and the colours of what a named vision model is given, beside transformers' own processors."""

import json

import numpy as np
import pytest
import torch
from encoder_helpers import contents
from hub_helpers import save_folder

from effrec_cli.data.contents import Contents
from effrec_cli.methods.content.pixels import pixels_of
from effrec_cli.methods.multimodal.backbones import build_backbone, describe_backbone
from effrec_cli.models.encoders.hub import RESIZE
from effrec_cli.schema.backbone import BackboneConfig

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
OWN, USED = 24, 16
CROPS = {"size": {"shortest_edge": 20}, "crop_size": {"height": USED, "width": USED}, "do_center_crop": True}
FREE = (
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "vit",
    "vit_msn",
    "deit",
    "ijepa",
    "clip_vision_model",
    "siglip_vision_model",
)


def folder_of(path, kind, said=None, file="preprocessor_config.json"):
    """Returns a folder with a tiny random model of 24 pixels, and an image processor's settings if given."""
    config = transformers.AutoConfig.for_model(kind, image_size=OWN, patch_size=8, **SIZES)
    save_folder(path, config, tokenizer=False)
    if said is not None:
        (path / file).write_text(json.dumps(said))
    return path


def built(folder, given=None):
    settings = BackboneConfig(name=str(folder), dropout=0.0)
    return build_backbone(settings, given or contents(), "image", None, lambda line: None)


def tokens_of(made):
    """Returns how many tokens an image is to the first layer."""
    inputs, real = made.rows(torch.arange(3), 0)
    found = []
    with torch.no_grad():
        hook = made.network.layers()[0].register_forward_pre_hook(
            lambda _, args, named: found.append(args[0] if args else named["hidden_states"]), with_kwargs=True
        )
        states = made.network.eval()(inputs, real)
    hook.remove()
    assert torch.isfinite(states).all()
    return found[0].shape[1]


@pytest.mark.parametrize("kind", FREE)
def test_a_model_that_reads_any_size_reads_its_image_processors(kind, tmp_path):
    plain = built(folder_of(tmp_path / "plain", kind))
    used = built(folder_of(tmp_path / "used", kind, CROPS))
    assert (plain.network.size, used.network.size) == ((OWN, OWN), (USED, USED))
    assert tokens_of(plain) - tokens_of(used) == 9 - 4
    assert (plain.costs[0], used.costs[0]) == (10, 5)


def test_a_model_with_a_fixed_table_of_places_reads_its_own_size(tmp_path):
    made = built(folder_of(tmp_path, "beit", CROPS))
    assert made.network.size == (OWN, OWN)
    assert tokens_of(made) == 10


SAID = [
    ({"size": {"height": 32, "width": 40}}, (32, 40)),
    ({"size": 32}, (32, 32)),
    ({"size": [32, 40]}, (32, 40)),
    ({"size": {"shortest_edge": 32}}, (32, 32)),
    ({**CROPS, "do_center_crop": False}, (20, 20)),
    ({"size": 20, "crop_size": USED}, (USED, USED)),
    ({"size": 32, "do_resize": False}, (OWN, OWN)),
    ({"size": {"longest_edge": 32}}, (OWN, OWN)),
    ({"size": 7}, (OWN, OWN)),
    ({"size": [16, 7]}, (OWN, OWN)),
    ({}, (OWN, OWN)),
]


@pytest.mark.parametrize(("said", "size"), SAID, ids=[json.dumps(said) for said, _ in SAID])
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_the_size_with_which_an_image_processor_ends(said, size, file, tmp_path):
    given = {"image_processor": said, "processor_class": "any"} if file.startswith("processor") else said
    (tmp_path / file).write_text(json.dumps(given))
    config = transformers.AutoConfig.for_model("vit", image_size=OWN, patch_size=8)
    assert pixels_of(tmp_path, config).size == size


GREY, SKY = (0.5, 0.5, 0.5), [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [
        ({}, GREY, GREY),
        ({"image_mean": SKY}, tuple(SKY), GREY),
        ({"image_mean": None, "image_std": SKY}, GREY, tuple(SKY)),
        ({"do_normalize": None, "image_std": SKY}, GREY, tuple(SKY)),
        ({"do_normalize": False, "image_mean": SKY, "image_std": None}, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
    ids=str,
)
def test_the_colours_that_an_image_processor_says(said, mean, std, tmp_path):
    """What it writes as null it leaves open; without norming values stay from 0 to 1."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    config = transformers.AutoConfig.for_model("vit", image_size=OWN, patch_size=8)
    found = pixels_of(tmp_path, config)
    assert (found.mean, found.std) == (mean, std)


def test_size_colours_and_rule_are_part_of_the_identity(tmp_path):
    folder = folder_of(tmp_path, "dinov2", CROPS)

    def identity():
        settings = BackboneConfig(name=str(folder))
        return describe_backbone(settings, contents(), "image", None, lambda line: None).identity

    before = identity()
    assert before["image"] == {
        "size": [USED, USED],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "resize": RESIZE,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 32}))
    after = identity()
    assert {name for name in before if before[name] != after[name]} == {"image"}


PROCESSORS = {
    "vit": ("ViTImageProcessorPil", "vit"),
    "clip": ("CLIPImageProcessorPil", "clip_vision_model"),
    "siglip": ("SiglipImageProcessorPil", "siglip_vision_model"),
    "dinov2": ("BitImageProcessorPil", "dinov2"),
}


@pytest.mark.parametrize("stored", [12, USED, 37])
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_transformers_processors(name, stored, tmp_path):
    """Within one grey level: theirs rounds to whole ones after each of two directions."""
    pytest.importorskip("PIL")
    processor, kind = PROCESSORS[name]
    side = {"height": USED, "width": USED}
    made = getattr(transformers, processor)(size=side, resample=2, do_center_crop=False)
    folder = folder_of(tmp_path, kind)
    made.save_pretrained(folder)
    images = np.random.default_rng(5).integers(0, 256, (4, stored, stored, 3), dtype=np.uint8)
    backbone = built(folder, Contents(images=images))
    found = []
    backbone.network.model.register_forward_pre_hook(
        lambda _, args, named: found.append(named["pixel_values"]), with_kwargs=True
    )
    with torch.no_grad():
        backbone.network(*backbone.rows(torch.arange(4), 0))
    theirs = torch.from_numpy(np.stack(made(list(images))["pixel_values"]))
    level = 1 / 255 / torch.tensor(made.image_std).min()
    assert found[0].shape == theirs.shape == (4, 3, USED, USED)
    assert (found[0] - theirs).abs().max() <= 1e-5 + (0 if stored == USED else level)
