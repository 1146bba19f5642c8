"""What trains inside backbones: where adapters stand, what changes nothing at first, and what is counted."""

import sys

import pytest
import torch
from backbone_helpers import LAYERS, Folders, backbone, folder_of
from encoder_helpers import close, contents, gradients, layouts

from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.methods.multimodal.adapters import MODES, Bottleneck
from effrec_cli.methods.multimodal.finetuned import PooledItemEncoder
from effrec_cli.models.taps import Taps, TapShape

pytest.importorskip("transformers")

USER_ENCODER = 100_224
"""Weights of the published user encoder (papers/iisan section 1.7)."""
COUNTS = {"fft": 194_897_216, "adapter": 4_965_440, "lora": 796_736, "bitfit": 412_736, "frozen": 206_912}
BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
TEXTS = (
    *("bert", "deberta", "deberta-v2", "llama", "gpt2", "t5", "bart", "modernbert", "gpt_neox", "phi3"),
    *("falcon", "clip", "siglip"),
)
IMAGES = ("vit", "dinov2", "clip", "siglip")
PLACES = [*(("text", kind) for kind in (None, *TEXTS)), *(("image", kind) for kind in (None, *IMAGES))]
FUSED = {"deberta", "gpt2", "modernbert", "gpt_neox", "phi3", "falcon", None}
WITHOUT_BIASES = {"llama", "t5", "modernbert", "phi3"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return Folders(tmp_path_factory.mktemp("models"))


def named(folders, kind):
    return {} if kind is None else {"name": folders(kind)}


def encoder(folders, mode, text="bert", image="vit", dropout=0.0, **settings):
    """Returns an encoder in float64 over twelve items; a modality that is False is left out."""
    parts = [
        None if kind is False else backbone(modality, dropout=dropout, **named(folders, kind))
        for modality, kind in (("text", text), ("image", image))
    ]
    torch.manual_seed(5)
    sizes = {"dim": 8, "adapter_rank": 3, "lora_rank": 2, "say": lambda _: None, **settings}
    return PooledItemEncoder(*parts, mode=mode, **sizes).double()


def alone(folders, modality, kind, mode, **settings):
    """Returns an encoder of one modality."""
    other = "image" if modality == "text" else "text"
    return encoder(folders, mode, **{modality: kind, other: False}, **settings)


def everything(made):
    return made(torch.arange(len(made.costs)), int(made.costs.max()))


def trained(made):
    return {name: each for name, each in made.named_parameters() if each.requires_grad}


@pytest.fixture
def published(tmp_path):
    """Returns folders with BERT-base's and ViT-base's config.json, and one-word vocabularies left out."""
    text = folder_of(tmp_path / "text", "bert", weights=False, vocab_size=30_522, max_position_embeddings=512)
    import transformers

    transformers.BertConfig().save_pretrained(tmp_path / "text")
    transformers.ViTConfig(**BASE).save_pretrained(tmp_path / "image")
    return text, str(tmp_path / "image")


@pytest.mark.parametrize("mode", MODES)
def test_trainable_weights_are_as_many_as_published(mode, published):
    text, image = published
    with torch.device("meta"):
        parts = [
            backbone("text", name=text, weights="random", pooler=mode == "bitfit"),
            backbone("image", name=image, weights="random"),
        ]
        made = PooledItemEncoder(*parts, mode=mode)
    assert sum(each.numel() for each in trained(made).values()) + USER_ENCODER == COUNTS[mode]
    grouped = [each for part in made.groups().values() for each in part]
    assert {id(each) for each in grouped} == {id(each) for each in trained(made).values()}
    assert len(grouped) == len(trained(made))


def test_a_bottleneck_is_the_identity_at_first_and_has_the_published_size():
    torch.manual_seed(0)
    made = Bottleneck(768, 64)
    x = torch.randn(5, 768)
    assert torch.equal(made(x), x)
    assert sum(each.numel() for each in made.parameters()) == 99_136
    assert made.down.weight.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(("modality", "kind"), PLACES)
@pytest.mark.parametrize("mode", ["adapter", "lora", "bitfit", "fft"])
def test_each_way_of_training_starts_at_the_frozen_backbones_vectors(mode, modality, kind, folders):
    if mode == "bitfit" and kind in WITHOUT_BIASES:
        with pytest.raises(ConfigError, match="has no biases"):
            alone(folders, modality, kind, mode)
        return
    plain, made = (alone(folders, modality, kind, each).eval() for each in ("frozen", mode))
    # The heads are drawn after what stands beside the backbone.
    made.head.load_state_dict(plain.head.state_dict())
    frozen, ours = everything(plain), everything(made)
    assert frozen.std(0).min() > 1e-6
    close({"": frozen}, {"": ours}, within=1e-13)  # sums differ in the last digit by where they lie in memory


@pytest.mark.parametrize(("modality", "kind"), PLACES)
@pytest.mark.parametrize("mode", ["adapter", "lora", "fft"])
def test_all_that_trains_has_a_gradient_and_moves_the_vectors(mode, modality, kind, folders):
    made = alone(folders, modality, kind, mode, adapter_rank=16)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, each in trained(made).items():
            if "adapter" in name or "lora_" in name:
                each.add_(0.1 * torch.randn_like(each))
    weights = torch.randn(len(made.costs), made.dim, dtype=torch.float64)
    before, found = gradients(made, layouts(made.costs)["at once"], weights)
    idle = {name for name, each in trained(made).items() if name not in found or not each.grad.any()}
    assert not idle
    with torch.no_grad():
        for name, each in trained(made).items():
            if name.startswith("backbones"):
                each.sub_(0.05 * each.grad.sign())
    assert not torch.allclose(everything(made), before)


@pytest.mark.parametrize(("modality", "kind"), PLACES)
def test_adapters_stand_behind_attention_and_feed_forward_of_every_layer(modality, kind, folders):
    made = alone(folders, modality, kind, "adapter")
    width = made.head.heads[modality].in_features
    layers = made.backbones[modality].network.layers()
    found = [name for name, part in layers.named_modules() if isinstance(part, Bottleneck)]
    assert len(found) == 2 * len(layers)
    for number in range(len(layers)):
        inside, behind = (name for name in found if name.startswith(f"{number}."))
        assert "att" in inside.lower()
        assert "att" not in behind.lower()
        assert not any(part in inside for part in ("query", "q_proj", "c_attn", "qkv"))
    count = sum(each.numel() for each in made.groups()["side"])
    assert count == 2 * len(layers) * (2 * 3 * width + 3 + width)
    assert {name for name in trained(made) if ".adapter." not in name} == {
        name for name in trained(made) if name.startswith("head")
    }


def test_an_adapter_stands_inside_the_residual(folders):
    made = alone(folders, "text", "bert", "adapter").eval()
    layer = made.backbones["text"].network.layers()[0]
    place = layer.attention.output.dense
    torch.nn.init.normal_(place.adapter.up.weight)
    x, residual = torch.randn(2, 3, 16, dtype=torch.float64), torch.randn(2, 3, 16, dtype=torch.float64)
    plain = torch.nn.functional.linear(x, place.weight, place.bias)
    wanted = layer.attention.output.LayerNorm(place.adapter(plain) + residual)
    close({"": layer.attention.output(x, residual)}, {"": wanted})


@pytest.mark.parametrize(("modality", "kind"), PLACES)
def test_low_rank_updates_stand_beside_queries_and_values_alone(modality, kind, folders):
    said = []
    made = alone(folders, modality, kind, "lora", say=said.append)
    layers = made.backbones[modality].network.layers()
    places = {name.split(".lora_")[0] for name in trained(made) if "lora_" in name}
    leaves = {name.rpartition(".")[2] for name in places}
    if kind in FUSED:
        assert len(leaves) == 1
        assert said == ["One map of this backbone makes queries, keys and values: LoRA adapts all three."]
        assert len(places) == len(layers)
    else:
        assert not said
        assert {leaf[0] for leaf in leaves} == {"q", "v"}
        assert len(places) == 2 * len(layers)
    assert all("lora_" in name or name.startswith("head") for name in trained(made))


def test_the_scale_of_low_rank_updates_is_alpha_over_rank(folders):
    made = alone(folders, "text", "bert", "lora", lora_rank=4, lora_alpha=2.0)
    place = made.backbones["text"].network.layers()[0].attention.self.query
    torch.manual_seed(0)
    torch.nn.init.normal_(place.lora_B["default"].weight)
    x = torch.randn(3, 16, dtype=torch.float64)
    lower, upper = place.lora_A["default"].weight, place.lora_B["default"].weight
    base = place.base_layer
    wanted = torch.nn.functional.linear(x, base.weight, base.bias) + 0.5 * x @ lower.T @ upper.T
    close({"": place(x)}, {"": wanted})
    published = alone(folders, "text", "bert", "lora", lora_rank=8)
    assert published.backbones["text"].network.layers()[0].attention.self.query.scaling == {"default": 1 / 8}


def test_bitfit_trains_biases_under_all_their_names_and_the_poolers(folders):
    found = trained(alone(folders, "text", "deberta", "bitfit"))
    assert any(name.endswith("q_bias") for name in found)
    assert all(name.endswith("bias") for name in found if name.startswith("backbones"))
    part = backbone("text", name=folders("bert"), pooler=True)
    made = PooledItemEncoder(part, None, mode="bitfit").double()
    pooler = part.network.model.pooler.dense
    assert pooler.bias.requires_grad
    assert not pooler.weight.requires_grad
    everything(made).sum().backward()
    idle = {name for name, each in trained(made).items() if each.grad is None}
    assert idle == {"backbones.text.network.model.pooler.dense.bias"}, "as published: counted, never trained"


def test_a_frozen_backbone_has_no_gradient_and_stays_in_evaluation(folders):
    made = encoder(folders, "frozen", dropout=0.5)
    made.train()
    assert made.training
    assert not any(each.training for part in made.backbones.values() for each in part.network.modules())
    kept = {name: each.clone() for name, each in made.state_dict().items()}
    assert torch.equal(everything(made), everything(made))
    everything(made).square().sum().backward()
    frozen = list(made.backbones.parameters())
    assert not any(each.requires_grad for each in frozen)
    assert all(each.grad is None for each in frozen)
    torch.optim.SGD(made.groups()["head"], lr=1.0).step()
    changed = {name for name, each in made.state_dict().items() if not torch.equal(each, kept[name])}
    assert changed == {f"head.{name}" for name, _ in made.head.named_parameters()}
    assert made.groups()["text"] == made.groups()["image"] == made.groups()["side"] == []


def test_what_is_saved_for_backward_of_a_frozen_backbone_does_not_grow_with_it(folders):
    def saved(made):
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.nbytes) or x, lambda x: x):
            everything(made)
        return sum(held)

    deep = encoder(folders, "frozen", text=None, image=None)
    shallow = encoder(folders, "frozen", text=None, image=None)
    for part in shallow.backbones.values():
        del part.network.blocks[1:]
    assert saved(deep) == saved(shallow) > 0
    assert saved(encoder(folders, "fft", text=None, image=None)) > 10 * saved(deep)


@pytest.mark.parametrize("mode", ["fft", "adapter", "lora", "bitfit"])
def test_a_backbone_that_trains_drops_out_in_training_alone(mode, folders):
    made = encoder(folders, mode, dropout=0.5)
    assert not torch.equal(everything(made), everything(made))
    made.eval()
    assert torch.equal(everything(made), everything(made))


@pytest.mark.parametrize("mode", ["fft", "frozen"])
def test_width_order_and_company_change_neither_vectors_nor_gradients(mode, folders):
    made = encoder(folders, mode, image=None)
    weights = torch.randn(len(made.costs), made.dim, dtype=torch.float64)
    ways = {name: gradients(made, way, weights) for name, way in layouts(made.costs).items()}
    vectors, found = ways.pop("at once")
    assert vectors.std(0).min() > 1e-3
    for other, others in ways.values():
        close({"": vectors}, {"": other})
        close(found, others, within=1e-10)


@pytest.mark.parametrize(("text", "image"), [(None, None), (None, False), (False, None)])
def test_either_modality_is_enough(text, image, folders):
    made = encoder(folders, "frozen", text=text, image=image)
    assert everything(made).shape == (12, 8)
    parts = [part.rows for part in made.backbones.values()]
    assert made.head.fusion.in_features == 8 * len(parts)
    costs = sum(backbone(name).costs for name in made.backbones)
    assert made.costs.tolist() == costs.tolist()


def test_rows_of_a_source_give_the_vectors_that_the_backbones_give(folders):
    live = encoder(folders, "frozen").eval()
    rows = {name: part(torch.arange(12), 40).detach() for name, part in live.backbones.items()}

    class Source(torch.nn.Module):
        shape = TapShape(16, 1, 16, 1)
        ready = False

        def prepare(self):
            self.ready = True

        def forward(self, items):
            return Taps(*((rows[name][items].float(),) for name in ("text", "image")))

    made = PooledItemEncoder(None, None, mode="frozen", dim=8, source=Source(), costs=live.costs)
    made.head.load_state_dict(live.head.state_dict())
    made.prepare()
    assert made.source.ready
    assert not made.may_keep()
    close({"": everything(live)}, {"": everything(made).double()}, within=1e-5)
    assert everything(made).dtype == torch.float32
    assert {name.split(".")[0] for name in made.state_dict()} == {"head"}


def test_vectors_are_float32_under_bf16_and_near_the_exact_ones(folders):
    for mode in MODES:
        made = encoder(folders, mode).float()
        exact = everything(made)
        with torch.autocast("cpu", torch.bfloat16):
            half = everything(made)
        assert half.dtype == torch.float32
        assert not torch.equal(half, exact)
        assert (half - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("mode", "kind", "said"), [("adapter", "mixtral", "no two maps"), ("lora", "mamba", "no maps")]
)
def test_a_backbone_without_such_maps_is_named(mode, kind, said, folders):
    with pytest.raises(ConfigError, match=said) as caught:
        alone(folders, "text", kind, mode)
    assert caught.value.where == f"method.mode={mode}"


def test_a_missing_package_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EnvironmentFault, match="need peft"):
        alone(folders, "text", None, "lora")


def test_contents_are_no_part_of_what_is_saved(folders):
    assert not [name for name in encoder(folders, "fft").state_dict() if "rows" in name]
    assert contents().images is not None
    assert LAYERS == 3
