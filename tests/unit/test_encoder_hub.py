"""Named encoders: what is read of a folder, and that what holds for the built-in one holds for them."""

import json
import shutil
import sys

import pytest
import torch
from encoder_helpers import LENGTHS, built, close, contents, gradients, layouts
from hub_helpers import LAYERS, text_folder

from effrec_cli.errors import ConfigError, DataError, EnvironmentFault
from effrec_cli.methods.content import pretrained
from effrec_cli.models.encoders.hub import HubText

transformers = pytest.importorskip("transformers")

KINDS = ["bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "electra", "modernbert"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns what makes the folder of a kind of text model, each once."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = text_folder(tmp_path_factory.mktemp("models") / kind, kind)
        return made[kind]

    return folder


def some_weights(encoder):
    torch.manual_seed(3)
    return torch.randn(len(encoder.costs), encoder.dim, dtype=torch.float64)


def changed(folder, tmp_path, **settings):
    """Returns a copy of a folder whose config.json says something else."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**said, **settings}))
    return copy


@pytest.mark.parametrize("kind", [*KINDS, "t5", "gpt2"])
def test_width_order_and_company_change_neither_vectors_nor_gradients(kind, folders):
    encoder = built(name=folders(kind), dropout=0.0, pooling="mean" if kind == "gpt2" else "attention")
    weights = some_weights(encoder)
    ways = {name: gradients(encoder, way, weights) for name, way in layouts(encoder.costs).items()}
    vectors, found = ways.pop("at once")
    assert vectors.std(dim=0).min() > 1e-3
    exact = 1e-11 if kind != "t5" else 1e-6  # whose norms are in float32 in some versions
    for other, others in ways.values():
        close({"vectors": vectors}, {"vectors": other}, within=exact)
        close(found, others, within=exact)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_model_as_transformers_runs_it(kind, folders):
    folder = folders(kind)
    encoder = built(name=folder, pooling="cls").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    texts = contents().texts
    for item in (0, 5):
        with torch.no_grad():
            tokens = tokenizer(str(texts[item]), return_tensors="pt", return_token_type_ids=False)
            states = model(**tokens).last_hidden_state
        ours = encoder(torch.tensor([item]), int(encoder.costs[item]))
        close({"": states[:, 0]}, {"": ours}, within=1e-6)
    assert encoder.costs.tolist() == [length + 2 for length in LENGTHS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_kept_lower_states_give_what_the_whole_network_gives(kind, dropout, folders):
    frozen = {"name": folders(kind), "dropout": dropout, "train": "top", "top_layers": 1}
    whole, kept = (built(**frozen, cache_lower=choice) for choice in (False, True))
    weights = some_weights(whole)
    results = []
    for encoder in (whole, kept):
        torch.manual_seed(5)
        results.append(gradients(encoder, layouts(encoder.costs)["by length"], weights))
    assert whole.kept is None
    assert kept.kept is not None
    close({"vectors": results[0][0]}, {"vectors": results[1][0]})
    close(results[0][1], results[1][1], within=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_top_alone_trains(kind, folders):
    encoder = built(name=folders(kind), train="top", top_layers=2, pooling="attention", dropout=0.2)
    _, found = gradients(encoder, layouts(encoder.costs)["at once"], some_weights(encoder))
    assert found.keys() == {name for name, each in encoder.named_parameters() if each.requires_grad}
    assert {"pooling.project.weight", "pooling.query.weight"} <= found.keys()
    for name in found:
        assert "embeddings" not in name
        assert not any(f".{lower}." in name for lower in range(LAYERS - 2)), name
    assert any(".1." in name for name in found)
    assert any(".2." in name for name in found)


@pytest.mark.parametrize("top_layers", [None, 1])
def test_adapters_alone_train_and_start_by_changing_nothing(top_layers, folders):
    pytest.importorskip("peft")
    plain = built(name=folders("bert"), dropout=0.0)
    encoder = built(name=folders("bert"), dropout=0.0, train="lora", lora_rank=2, top_layers=top_layers)
    items = torch.tensor([0, 5])
    close({"": plain(items, 20)}, {"": encoder(items, 20)})
    for name, each in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each, std=0.1)
    weights = some_weights(encoder)
    every, by_length = (
        gradients(encoder, layouts(encoder.costs)[way], weights) for way in ("at once", "by length")
    )
    close(every[1], by_length[1], within=1e-11)
    assert every[1].keys() == {name for name, each in encoder.named_parameters() if each.requires_grad}
    assert all("lora_" in name for name in every[1])
    layers = {int(name.split("encoder.layer.")[1][0]) for name in every[1]}
    assert layers == set(range(LAYERS)) if top_layers is None else layers == {LAYERS - 1}
    close(
        merged_gradients(encoder, weights), {k: v for k, v in every[1].items() if "lora_A" in k}, within=1e-10
    )
    assert (encoder.kept is not None) == (top_layers is not None)


def merged_gradients(encoder, weights):
    """Returns the gradients of the adapters' A, by autograd through W + 2 B A in a model without adapters."""
    plain = built(name=encoder.network.model.name_or_path, dropout=0.0)
    adapters = {name: each for name, each in encoder.named_parameters() if "lora_" in name}
    merged = {}
    for name, lower in adapters.items():
        if "lora_A" in name:
            upper = adapters[name.replace("lora_A", "lora_B")]
            target = name.split(".lora_A")[0] + ".weight"
            merged[target] = plain.get_parameter(target).detach() + 2 * upper @ lower
    rows = torch.arange(len(encoder.costs))
    vectors = torch.func.functional_call(plain, merged, (rows, int(encoder.costs.max())))
    lowers = {name: each for name, each in adapters.items() if "lora_A" in name}
    return dict(zip(lowers, torch.autograd.grad((weights * vectors).sum(), lowers.values()), strict=True))


def test_gradients_under_bf16_point_where_exact_ones_do(folders):
    encoder = built(name=folders("bert"), dropout=0.0).float()
    weights, way = some_weights(encoder).float(), layouts(encoder.costs)["by length"]
    _, exact = gradients(encoder, way, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.tensor([0]), 5).dtype == torch.float32
        _, half = gradients(encoder, way, weights)
    flat = [torch.cat([found[name].flatten() for name in exact]) for found in (exact, half)]
    assert not torch.equal(*flat)
    assert torch.cosine_similarity(*flat, dim=0) >= 0.999


def test_dropout_is_set_everywhere(folders):
    encoder = built(name=folders("bert"), dropout=0.25)
    shares = {each.p for each in encoder.modules() if isinstance(each, torch.nn.Dropout)}
    assert shares == {0.25}
    config = encoder.network.model.config
    assert config.attention_probs_dropout_prob == config.hidden_dropout_prob == 0.25
    swin = transformers.SwinConfig(drop_path_rate=0.1)
    pretrained.set_dropout(swin, 0.0)
    assert swin.drop_path_rate == 0


def test_texts_are_split_once(folders, tmp_path):
    said = []
    name = folders("bert")
    first = built(cache=tmp_path, said=said, name=name)
    assert any("Splitting 12 texts" in line for line in said)
    said.clear()
    again = built(cache=tmp_path, said=said, name=name)
    assert not said
    assert torch.equal(first.rows.tokens, again.rows.tokens)
    assert not torch.equal(first.rows.tokens, built(cache=tmp_path, name=name, given=contents(1)).rows.tokens)
    cut = built(cache=tmp_path, said=said, name=name, max_tokens=4)
    assert said
    assert cut.costs.tolist() == [min(length + 2, 4) for length in LENGTHS]
    assert cut.rows.tokens[cut.rows.offsets[1:] - 1].tolist() == [3] * 12, "each still ends by [SEP]"
    damaged = next(folder for folder in tmp_path.glob("tokens-*") if folder.is_dir())
    (damaged / "tokens.npy").write_bytes(b"half")
    for tokens in (None, 4):
        assert built(cache=tmp_path, name=name, max_tokens=tokens).costs.sum() > 0


def test_another_tokenizer_splits_again(tmp_path):
    folder = text_folder(tmp_path / "model")
    built(cache=tmp_path / "kept", name=folder)
    path = tmp_path / "model" / "tokenizer.json"
    path.write_text(path.read_text().replace('"red"', '"crimson"'))
    said = []
    built(cache=tmp_path / "kept", said=said, name=folder)
    assert any("Splitting" in line for line in said)


def test_a_text_of_which_a_tokenizer_makes_nothing_is_one_pad():
    def tokenizer(texts, **_):
        return {"input_ids": [[4] * len(text) for text in texts]}

    assert pretrained.splitter(tokenizer, 5, 7)(["", "xy"]) == [[7], [4, 4]]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_random_weights_read_the_config_alone_and_a_datasets_tokens(kind, tmp_path):
    folder = text_folder(tmp_path / "model", kind, tokenizer=False, weights=False, vocab_size=6)
    encoder = built(name=folder, weights="random", dropout=0.0)
    assert encoder.costs.tolist() == [length + 1 for length in LENGTHS]
    pad = encoder.network.model.config.pad_token_id
    assert encoder.network.model.config.vocab_size == 11 + pad + 2
    assert encoder.rows.tokens.min() > pad
    assert encoder.rows.tokens[0] == 11 + pad + 1
    weights = some_weights(encoder)
    ways = [gradients(encoder, layouts(encoder.costs)[way], weights) for way in ("at once", "one by one")]
    close(ways[0][1], ways[1][1], within=1e-11)
    own = text_folder(tmp_path / "own", kind, weights=False)
    assert built(name=own, weights="random").costs.tolist() == [length + 2 for length in LENGTHS]


def vision_folder(path, kind):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        )
    elif kind == "clip":
        vision = {**sizes, "image_size": 16, "patch_size": 8, "projection_dim": 8}
        config = transformers.CLIPConfig(text_config={**sizes, "vocab_size": 30}, vision_config=vision)
    else:
        config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8)
    transformers.AutoModel.from_config(config).save_pretrained(path)
    values = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "size": {"height": 32, "width": 32},
    }
    (path / "preprocessor_config.json").write_text(json.dumps(values))
    return str(path)


@pytest.mark.parametrize("kind", ["vit", "clip", "resnet"])
def test_any_vision_model_encodes_images(kind, tmp_path):
    encoder = built(name=vision_folder(tmp_path, kind), modality="image", dropout=0.0)
    assert encoder.dim == 16
    assert encoder.network.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.network.size == (32, 32), "as its image processor says, and not as its config"
    encoder.eval()  # batch norm looks at its company otherwise
    weights = some_weights(encoder)
    ways = [gradients(encoder, layouts(encoder.costs)[way], weights) for way in ("at once", "one by one")]
    assert ways[0][0].std(dim=0).mean() > 1e-3
    close({"": ways[0][0]}, {"": ways[1][0]}, within=1e-10)
    close(ways[0][1], ways[1][1], within=1e-8)


def test_the_top_of_a_vision_model_trains_without_kept_states(tmp_path):
    name = vision_folder(tmp_path, "vit")
    encoder = built(name=name, modality="image", train="top", top_layers=1)
    _, found = gradients(encoder, layouts(encoder.costs)["at once"], some_weights(encoder))
    assert found.keys() == {name for name, each in encoder.named_parameters() if each.requires_grad}
    assert encoder.kept is None
    wanted = built(name=name, modality="image", train="top", top_layers=1, cache_lower=True)
    with pytest.raises(ConfigError, match="cannot be kept"):
        wanted.prepare()


def test_a_hub_name_that_cannot_be_had_names_the_folder_to_give(monkeypatch):
    def fail(name, revision, **_):
        raise OSError(f"no network for {name} at {revision}\nmany lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(EnvironmentFault) as caught:
        built(name="someone/some-model", revision="abc")
    assert "cannot be had from Hugging Face's hub" in str(caught.value)
    assert "no network for someone/some-model at abc\n" in str(caught.value)
    assert "method.encoder.name=FOLDER with config.json, model.safetensors" in caught.value.fix


def test_a_hub_name_is_read_from_where_it_was_fetched_to_and_its_commit_is_told(folders, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: folders("bert"))
    said = []
    encoder = built(said=said, name="someone/some-model")
    assert any("method.encoder.revision=bert pins it" in line for line in said)
    assert encoder.dim == 16
    said.clear()
    built(said=said, name="someone/some-model", revision="abc")
    assert not any("pins" in line for line in said)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_pretrained_encoder_can_be_sized_without_its_weights(folders, pooling):
    whole = built(name=folders("bert"), pooling=pooling)
    with torch.device("meta"):
        shapes = built(name=folders("bert"), pooling=pooling)
    assert all(each.is_meta for each in shapes.parameters())
    assert {name: each.shape for name, each in shapes.named_parameters()} == {
        name: each.shape for name, each in whole.named_parameters()
    }


def test_weights_are_float32_whatever_they_are_published_in(folders, tmp_path):
    folder = changed(folders("bert"), tmp_path, dtype="float16")
    for loaded in (True, False):
        config = pretrained.read_config(folder, text=True, dropout=None)
        model = pretrained.read_model(folder, config, pretrained=loaded)
        assert {each.dtype for each in model.parameters()} == {torch.float32}


def test_faults_of_folders_are_named(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"There is no folder './nowhere'"):
        built(name="./nowhere")
    with pytest.raises(ConfigError, match=r"would do nothing: .* is a folder"):
        built(name=folders("bert"), revision="v1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"config.json is missing"):
        built(name=str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="no model of type 'ownmade', and effrec never runs code"):
        built(name=str(changed(folders("bert"), tmp_path, model_type="ownmade")))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.json").write_text('{"model_type": "bert",')
    with pytest.raises(ConfigError, match=r"config.json is no JSON that names a model_type") as caught:
        built(name=str(tmp_path / "cut"))
    assert "cut/config.json" in caught.value.where


def test_faults_of_weights_are_named(folders, tmp_path):
    path = tmp_path / "model"
    folder = text_folder(path, weights=False)
    (path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ConfigError, match="no weights in safetensors"):
        built(name=folder)
    (path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        built(name=folder)
    more = changed(folders("bert"), tmp_path, num_hidden_layers=LAYERS + 1)
    with pytest.raises(DataError, match=r"not those of its config.json: 16 are missing"):
        built(name=str(more))


def test_faults_of_tokenizers_are_named(folders, tmp_path):
    folder = text_folder(tmp_path / "model", tokenizer=False)
    with pytest.raises(ConfigError, match=r"none of tokenizer.json, vocab.txt"):
        built(name=folder)
    small = text_folder(tmp_path / "small", vocab_size=9)
    with pytest.raises(DataError, match="The tokenizer knows 15 words, the weights 9"):
        built(name=small)
    with pytest.raises(ConfigError, match="max_tokens=41, but this encoder has places for 40 tokens"):
        built(name=folders("bert"), max_tokens=41)
    with pytest.raises(ConfigError, match="places for 38 tokens"):
        built(name=folders("roberta"), max_tokens=39)
    assert built(name=folders("roberta"), max_tokens=38)(torch.tensor([5]), 38).isfinite().all()


def test_what_an_encoder_cannot_do_is_named(folders, tmp_path):
    with pytest.raises(ConfigError, match="has 3 layers: top_layers=3 leaves none to freeze"):
        built(name=folders("bert"), train="top", top_layers=3)
    with pytest.raises(ConfigError, match="reads from left to right"):
        built(name=folders("gpt2"), pooling="cls")
    with pytest.raises(ConfigError, match="is no vision model"):
        built(name=folders("bert"), modality="image")
    wanted = built(name=folders("gpt2"), train="top", top_layers=1, cache_lower=True)
    with pytest.raises(ConfigError, match="cannot be kept"):
        wanted(torch.tensor([0]), 9)
    assert built(name=folders("gpt2"), train="top", top_layers=1)(torch.tensor([0]), 9).isfinite().all()


def test_a_missing_package_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EnvironmentFault, match="needs peft, which cannot be imported"):
        built(name=folders("bert"), train="lora")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EnvironmentFault, match="needs transformers"):
        built(name=folders("bert"))


def test_a_cache_that_would_not_fit_is_not_made(folders, monkeypatch):
    encoder = built(name=folders("bert"), train="top", top_layers=1)
    size = int(encoder.costs.sum()) * 16 * 8
    encoder._free_bytes = lambda device: 4 * size - 4
    encoder.prepare()
    assert encoder.kept is None
    encoder = built(name=folders("bert"), train="top", top_layers=1)
    encoder._free_bytes = lambda device: 4 * size
    encoder.prepare()
    assert encoder.kept is not None


def test_kept_states_that_are_wrong_are_noticed(folders, monkeypatch):
    monkeypatch.setattr(HubText, "upper", lambda self, states, real: states + 1)
    said = []
    encoder = built(said=said, name=folders("bert"), train="top", top_layers=1)
    assert encoder(torch.tensor([0]), 9).isfinite().all()
    assert encoder.kept is None
    assert any("Going on without them" in line for line in said)
    with pytest.raises(ConfigError, match="do not give the vectors"):
        built(name=folders("bert"), train="top", top_layers=1, cache_lower=True).prepare()
