"""Backbones: hidden states numbered as transformers numbers them, and the row that stands for an item."""

import json
import shutil

import numpy as np
import pytest
import torch
from backbone_helpers import IMAGES, LAYERS, TEXTS, Folders, backbone, folder_of
from encoder_helpers import LENGTHS, close, contents

from effrec_cli.data.contents import Contents
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.methods.content import networks
from effrec_cli.methods.multimodal.backbones import describe_backbone
from effrec_cli.models.encoders.reader import TapReader
from effrec_cli.models.encoders.sources import HostImages
from effrec_cli.schema.backbone import BackboneConfig

transformers = pytest.importorskip("transformers")

POOLINGS = {"clip": "eos", "siglip": "last"}
LEADING = {"bert", "deberta", "deberta-v2", "modernbert"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return Folders(tmp_path_factory.mktemp("models"))


def described(modality, given=None, cache=None, **settings):
    return describe_backbone(BackboneConfig(**settings), given or contents(), modality, cache, lambda _: None)


def taps_of(made, items, taps):
    """Returns taps [n, T, D] of items, read by hooks."""
    inputs, real = made.rows(torch.tensor(items), int(made.costs[items].max()))
    return TapReader(made.network, made.pooling, taps).read(inputs, real)


def whole_outputs(made, item):
    """Returns what transformers gives of one item without padding, with all hidden states."""
    inputs, real = made.rows(torch.tensor([item]), int(made.costs[item]))
    network = made.network
    if inputs.dim() == 4:
        values = inputs.movedim(-1, 1).double() / 255
        values = torch.nn.functional.interpolate(values, network.size, mode="bilinear", antialias=True)
        given = {"pixel_values": (values - network.mean) / network.std}
    else:
        given = {"input_ids": inputs, "attention_mask": real.long()}
    with torch.no_grad():
        return inputs, network.model.eval()(**given, output_hidden_states=True)


def row_of(made, states, inputs):
    """Returns the row that stands for the only item of states [1, w, D]."""
    kind = made.pooling.kind
    if kind == "eos":
        return states[:, int((inputs[0] == made.pooling.eos).int().argmax())]
    return states.mean(1) if kind == "mean" else states[:, {"cls": 0, "last": -1}[kind]]


@pytest.mark.parametrize("kind", TEXTS)
def test_hidden_states_of_texts_are_numbered_as_transformers_numbers_them(kind, folders):
    # transformers reads Qwen's tokenizers, and no others, where it sees Qwen's config.json.
    drawn = {"weights": "random", "tokenizer": "dataset"} if kind.startswith("qwen") else {}
    made = backbone("text", name=folders(kind), **drawn)
    check(made, [0, 5, 6])
    expected = POOLINGS.get(kind, "cls" if kind in LEADING else "mean")
    assert made.pooling.kind == expected


@pytest.mark.parametrize("kind", IMAGES)
def test_hidden_states_of_images_are_numbered_as_transformers_numbers_them(kind, folders):
    made = backbone("image", name=folders(kind))
    check(made, [0, 5, 6])
    assert made.pooling.kind == ("mean" if kind == "siglip" else "cls")


def check(made, items):
    """Asserts that taps read together are those that transformers gives of each item alone."""
    assert (made.dim, made.num_layers, len(made.network.layers())) == (16, LAYERS, LAYERS)
    found = taps_of(made, items, tuple(range(LAYERS + 1)))
    assert found.std(0).amax() > 1e-3, "items must differ for this to say anything"
    before = raw_last(made)
    for at, item in enumerate(items):
        inputs, whole = whole_outputs(made, item)
        # Where transformers norms what it calls the last hidden state, the last layer's own is asked for.
        states = [*whole.hidden_states[:-1], before.pop()]
        ours = [row_of(made, each, inputs) for each in states]
        close({"": torch.cat(ours)}, {"": found[at]}, within=1e-6)
        last = row_of(made, made.network(inputs, None if inputs.dim() == 4 else inputs >= 0), inputs)
        close({"": last[0]}, {"": taps_of(made, [item], (LAYERS + 1,))[0, 0]}, within=1e-6)


def raw_last(made):
    """Returns a list that receives what the last layer gives, a call at a time."""
    found = []
    made.network.layers()[-1].register_forward_hook(
        lambda _, __, out: found.append(out if torch.is_tensor(out) else out[0])
    )
    return found


@pytest.mark.parametrize(("modality", "kind"), [("text", "clip"), ("image", "clip"), ("text", "siglip")])
def test_the_last_row_is_what_the_model_itself_pools(modality, kind, folders):
    made = backbone(modality, name=folders(kind))
    with torch.no_grad():
        _, whole = whole_outputs(made, 5)
    ours = taps_of(made, [5], (LAYERS + 1,))[0]
    close({"": whole.pooler_output}, {"": ours}, within=1e-6)


def test_siglip_reads_texts_filled_up_as_it_was_trained(folders):
    made = backbone("text", name=folders("siglip"), max_tokens=7)
    assert made.costs.tolist() == [40] * len(LENGTHS)
    inputs, real = made.rows(torch.tensor([0]), 40)
    assert real.all()
    assert (inputs[0, LENGTHS[0] + 2 :] == 0).all()
    with torch.no_grad():
        own = transformers.SiglipTextModel.from_pretrained(folders("siglip")).double().eval()
        states = own(inputs).last_hidden_state
    close({"": states[:, -1]}, {"": taps_of(made, [0], (LAYERS + 1,))[0]}, within=1e-6)


@pytest.mark.parametrize(("modality", "kind"), [("text", "bert"), ("text", "llama"), ("image", "siglip")])
def test_a_description_needs_no_weights_and_says_what_the_backbone_is(modality, kind, tmp_path):
    bare = folder_of(tmp_path / "bare", kind, weights=False)
    about = described(modality, name=bare, weights="random")
    made = backbone(modality, name=bare, weights="random")
    assert about.identity == made.identity
    assert (about.dim, about.num_layers, about.pooling) == (made.dim, made.num_layers, made.pooling)
    json.dumps(about.identity)


def test_an_identity_changes_with_all_that_hidden_states_depend_on(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders("bert"), copy)
    same = described("text", name=str(copy), cache=tmp_path).identity
    assert same == described("text", name=folders("bert")).identity
    assert same == described("text", name=str(copy), dropout=0.3).identity
    others = [
        described("text", name=str(copy), max_tokens=9).identity,
        described("text", name=str(copy), weights="random").identity,
        described("text", name=str(copy), weights="random", tokenizer="dataset").identity,
        described("text", name=str(copy), weights="random", tokenizer="dataset", max_tokens=9).identity,
        described("text", contents(1), name=str(copy), weights="random", tokenizer="dataset").identity,
        described("text").identity,
        described("text", max_tokens=9).identity,
        described("text", tokenizer="own").identity,
        described("text", num_layers=5).identity,
        described("image").identity,
        described("image", name=folders("vit")).identity,
    ]
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace('"red"', '"crimson"'))
    others.append(described("text", name=str(copy)).identity)
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "left"}))
    others.append(described("text", name=str(copy)).identity)
    folder_of(copy, "bert", hidden_dropout_prob=0.2)
    others.append(described("text", name=str(copy), cache=tmp_path).identity)
    assert len({json.dumps(each, sort_keys=True) for each in (same, *others)}) == len(others) + 1
    changed = {name for name in same if same[name] != others[-1].get(name)}
    assert changed == {"model"}, "weights are drawn from one seed here"


def test_other_weights_are_another_identity(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders("vit"), copy)
    before = described("image", name=str(copy), cache=tmp_path).identity
    model = transformers.AutoModel.from_pretrained(copy)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(copy)
    after = described("image", name=str(copy), cache=tmp_path).identity
    assert {name for name in before if before[name] != after[name]} == {"weights"}


def test_a_hub_file_is_known_by_its_name_and_not_read(tmp_path, folders):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    shutil.copytree(folders("vit"), snapshot)
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / ("a" * 64))
    (snapshot / "model.safetensors").symlink_to(blobs / ("a" * 64))
    before = described("image", name=str(snapshot)).identity
    (blobs / ("a" * 64)).write_bytes(b"whatever")
    assert described("image", name=str(snapshot)).identity == before


def test_a_vision_model_that_reads_more_than_images_is_named(tmp_path):
    transformers.Siglip2VisionConfig(
        hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32
    ).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="also asks for pixel_attention_mask, spatial_shapes"):
        backbone("image", name=str(tmp_path), weights="random")


def test_a_config_that_sets_no_limit_of_places_has_none(folders):
    assert backbone("text", name=folders("xlnet"), max_tokens=18).costs.max() == 18


@pytest.mark.parametrize("settings", [{}, {"weights": "random"}])
def test_random_weights_are_the_same_in_every_run_and_leave_the_generator(settings, folders):
    name = {"name": folders("bert")} if settings else {}
    for modality in ("text", "image") if not settings else ("text",):
        torch.manual_seed(1)
        first = backbone(modality, **name, **settings)
        torch.manual_seed(2)
        state = torch.get_rng_state()
        second = backbone(modality, **name, **settings)
        assert torch.equal(state, torch.get_rng_state())
        pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_the_built_in_backbones_need_no_further_package(monkeypatch):
    for package in ("transformers", "peft", "huggingface_hub", "tokenizers"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    for modality in ("text", "image"):
        made = backbone(modality)
        assert (made.dim, made.num_layers, made.pooling.kind) == (32, 4, "mean")
        assert taps_of(made, [0, 5], (0, 2, 4, 5)).shape == (2, 4, 32)
        assert described(modality).identity == made.identity


def test_many_images_stay_on_the_host(monkeypatch, folders):
    near = backbone("image", name=folders("vit"))
    monkeypatch.setattr(networks, "MOST_IMAGE_BYTES", 100)
    far = backbone("image", name=folders("vit"))
    assert isinstance(far.rows, HostImages)
    assert torch.equal(taps_of(near, [3, 1], (2,)), taps_of(far, [3, 1], (2,)))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (None, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}, "last"),
    ],
)
def test_a_folder_of_sentence_transformers_says_how_it_pools(said, kind, folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders("bert"), copy)
    (copy / "modules.json").write_text("[]")
    if said is not None:
        (copy / "1_Pooling").mkdir()
        (copy / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8, **said}))
    assert described("text", name=str(copy)).pooling.kind == kind
    assert described("text", name=str(copy), pooling="mean").pooling.kind == "mean"


def test_an_end_token_is_looked_for_among_the_models_own_tokens_alone(folders):
    assert described("text", name=folders("clip")).pooling.eos == 3
    ready = described("text", name=folders("clip"), weights="random", tokenizer="dataset")
    assert (ready.pooling.kind, ready.pooling.eos) == ("eos", None)


@pytest.mark.parametrize(
    ("modality", "kind", "settings", "said"),
    [
        ("text", "vit", {}, "is no text model"),
        ("image", "bert", {}, "is no vision model"),
        ("image", "gpt2", {}, "is no vision model"),
        ("text", "albert", {}, "no Transformer with one list of layers"),
        ("image", "swin", {}, "no Transformer with one list of layers"),
        ("text", "llama", {"pooling": "cls"}, "reads from left to right"),
        ("image", "siglip", {"pooling": "cls"}, "has no class token"),
        ("text", "bert", {"max_tokens": 41}, "places for 40 tokens"),
    ],
)
def test_what_is_no_backbone_of_this_modality_is_named(modality, kind, settings, said, folders):
    with pytest.raises(ConfigError, match=said) as caught:
        backbone(modality, name=folders(kind), **settings)
    assert caught.value.where.startswith(f"method.{modality}.")
    assert "encoder." not in str(caught.value)


@pytest.mark.parametrize(("modality", "kind"), [("text", "vit"), ("image", "bert"), ("image", "gpt2")])
def test_a_model_of_the_other_modality_is_refused_before_anything_is_encoded(modality, kind, folders):
    with pytest.raises(ConfigError, match=f"is no {'vision' if modality == 'image' else 'text'} model"):
        described(modality, name=folders(kind))


@pytest.mark.parametrize("kind", ["vit", "siglip", "clip"])
def test_vision_models_are_described_as_such(kind, folders):
    assert described("image", name=folders(kind)).modality == "image"


def test_faults_of_folders_are_named_by_the_backbones_own_settings(folders, tmp_path):
    bare = folder_of(tmp_path / "bare", "bert", tokenizer=False)
    with pytest.raises(ConfigError, match=r"none of tokenizer\.json") as caught:
        backbone("text", name=bare)
    assert "method.text.tokenizer=dataset" in caught.value.fix
    shutil.copytree(folders("vit"), tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"model_type": "ownmade"}')
    with pytest.raises(ConfigError, match="no model of type 'ownmade'") as caught:
        backbone("image", name=str(tmp_path / "other"))
    assert caught.value.where.startswith("method.image.name")
    with pytest.raises(ConfigError, match="There is no folder") as caught:
        backbone("image", name="./nowhere")
    assert caught.value.where == "method.image.name"
    with pytest.raises(DataError, match="reads images of items") as caught:
        backbone("image", given=Contents(texts=contents().texts))
    assert caught.value.where == "method.image"
    with pytest.raises(DataError, match="reads texts of items"):
        backbone("text", given=Contents(images=contents().images))


def test_the_pooler_is_left_away_unless_it_is_asked_for(folders):
    assert backbone("text", name=folders("bert")).network.model.pooler is None
    kept = backbone("text", name=folders("bert"), pooler=True).network.model.pooler
    assert sum(each.numel() for each in kept.parameters()) == 16 * 17
    assert backbone("image", name=folders("vit"), pooler=True).network.model.pooler is None


def test_backbones_can_be_sized_without_their_weights(folders):
    whole = backbone("text", name=folders("bert"))
    with torch.device("meta"):
        shapes = backbone("text", name=folders("bert"))
    assert all(each.is_meta for each in shapes.network.parameters())
    assert [each.shape for each in shapes.network.parameters()] == [
        each.shape for each in whole.network.parameters()
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_keys_and_values_are_not_kept_for_words_to_come(kind, folders):
    """They would take the more memory the deeper the model is, and nothing writes a text here."""
    model = backbone("text", name=folders(kind)).network.model
    assert model(input_ids=torch.tensor([[4, 5, 6]])).past_key_values is None


def test_states_under_bf16_stay_near(folders):
    for modality, kind in (("text", "bert"), ("text", "llama"), ("image", "vit")):
        made = backbone(modality, name=folders(kind))
        made.network.float()
        exact = taps_of(made, [0, 5], (0, 2, 4))
        with torch.autocast("cpu", torch.bfloat16):
            half = taps_of(made, [0, 5], (0, 2, 4))
        assert half.dtype == torch.float32
        assert (half - exact).abs().max() < 0.05 * exact.abs().max()
        assert np.isfinite(half.numpy()).all()
