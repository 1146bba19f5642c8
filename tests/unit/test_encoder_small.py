"""The built-in encoder, and what holds for every encoder however items are put together."""

import sys

import numpy as np
import pytest
import torch
from encoder_helpers import LENGTHS, built, close, contents, gradients, layouts

from effrec_cli.data.contents import Contents
from effrec_cli.data.words import NUM_WORDS, splitter, words_of
from effrec_cli.errors import DataError, EnvironmentFault
from effrec_cli.models.encoders.pooling import Pooling

KINDS = [
    pytest.param({"tokenizer": "dataset"}, id="tokens"),
    pytest.param({"tokenizer": "own", "pooling": "cls"}, id="texts-cls"),
    pytest.param({"pooling": "attention"}, id="attention"),
    pytest.param({"modality": "image"}, id="images"),
    pytest.param({"train": "top", "top_layers": 1, "cache_lower": True}, id="kept"),
]


def some_weights(encoder):
    return torch.randn(len(encoder.costs), encoder.dim, dtype=torch.float64)


@pytest.mark.parametrize("settings", KINDS)
def test_width_order_and_company_change_neither_vectors_nor_gradients(settings):
    encoder = built(**settings)
    weights = some_weights(encoder)
    ways = {name: gradients(encoder, way, weights) for name, way in layouts(encoder.costs).items()}
    vectors, found = ways.pop("at once")
    assert vectors.std(dim=0).min() > 1e-3, "items must differ for this to say anything"
    for other, others in ways.values():
        close({"vectors": vectors}, {"vectors": other})
        close(found, others)


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_more_padding_changes_nothing(pooling):
    encoder = built(pooling=pooling)
    items = torch.tensor([1, 6, 0])
    close({"": encoder(items, 4)}, {"": encoder(items, 18)})


def test_costs_count_the_leading_token_and_stop_at_the_most():
    assert built().costs.tolist() == [length + 1 for length in LENGTHS]
    cut = built(max_tokens=6)
    assert cut.costs.tolist() == [min(length + 1, 6) for length in LENGTHS]


def test_a_token_beyond_the_most_is_not_read_and_one_below_is():
    short, long = (Contents(texts=np.array([text])) for text in ("a b c d", "a b c e"))
    row = torch.tensor([0])
    assert torch.equal(built(given=short, max_tokens=4)(row, 4), built(given=long, max_tokens=4)(row, 4))
    assert not torch.equal(built(given=short, max_tokens=5)(row, 5), built(given=long, max_tokens=5)(row, 5))


def test_an_item_without_a_word_has_a_vector_of_its_leading_token():
    encoder = built(given=Contents(texts=np.array(["", "some words"])))
    assert encoder.costs.tolist() == [1, 3]
    assert encoder(torch.tensor([0, 1]), 3).isfinite().all()


def test_the_built_in_encoder_needs_no_further_package(monkeypatch):
    for package in ("transformers", "peft", "huggingface_hub", "tokenizers"):
        monkeypatch.setitem(sys.modules, package, None)
    for settings in ({}, {"tokenizer": "own"}, {"modality": "image"}, {"train": "top", "top_layers": 1}):
        assert built(**settings)(torch.tensor([1]), 100 if "modality" in settings else 4).isfinite().all()


def test_no_items_make_no_vectors():
    assert built()(torch.zeros(0, dtype=torch.int64), 4).shape == (0, 8)


def test_vectors_are_float32_under_autocast_and_gradients_point_where_exact_ones_do():
    encoder = built(pooling="attention").float()
    weights = some_weights(encoder).float()
    way = layouts(encoder.costs)["at once"]
    _, exact = gradients(encoder, way, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.tensor([0]), 4).dtype == torch.float32
        _, half = gradients(encoder, way, weights)
    flat = [torch.cat([found[name].flatten() for name in exact]) for found in (exact, half)]
    assert not torch.equal(*flat)
    assert torch.cosine_similarity(*flat, dim=0) >= 0.999


@pytest.mark.parametrize("kind", ["mean", "cls", "attention"])
def test_half_precision_ends_where_states_are_pooled(kind):
    pooling = Pooling(8, kind)
    states = torch.randn(3, 5, 8).bfloat16()
    real = torch.arange(5) < torch.tensor([[5], [1], [3]])
    exact = pooling(states.float(), real)
    assert exact.dtype == torch.float32
    assert torch.equal(pooling(states, real), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pooling(states, real), exact)
    assert torch.equal(pooling(states, torch.ones_like(real)), pooling(states, None))


def test_contents_are_no_part_of_what_is_saved():
    encoder = built(train="top", top_layers=1, cache_lower=True)
    encoder.prepare()
    assert not [name for name in encoder.state_dict() if "rows" in name or "kept" in name]
    built(given=contents(1)).load_state_dict(encoder.state_dict())


def test_other_weights_have_other_lower_states():
    encoder, other = (built(train="top", top_layers=1, cache_lower=True) for _ in range(2))
    with torch.no_grad():
        for each in other.parameters():
            each.add_(0.1 * torch.randn_like(each))
    items = torch.tensor([0, 5])
    before = encoder(items, 18)
    torch.nn.Sequential(encoder).load_state_dict(torch.nn.Sequential(other).state_dict())
    close({"": encoder(items, 18)}, {"": other(items, 18)})
    assert not torch.equal(before, other(items, 18))


def test_weights_come_from_the_generator():
    first, second = built(pooling="attention"), built(pooling="attention")
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))


def test_dropout_is_what_the_settings_say_and_off_in_evaluation():
    items = torch.tensor([0, 5])
    encoder = built(dropout=0.5)
    assert not torch.equal(encoder(items, 18), encoder(items, 18))
    encoder.eval()
    assert torch.equal(encoder(items, 18), encoder(items, 18))
    assert torch.equal(built(dropout=0.0)(items, 18), encoder(items, 18))


@pytest.mark.parametrize(
    ("settings", "lacks", "said"),
    [
        ({"modality": "image"}, {"images": None}, "reads images of items"),
        ({"tokenizer": "dataset"}, {"tokens": None}, "reads ready-made tokens of items"),
        ({"tokenizer": "own"}, {"texts": None}, "reads texts of items"),
        ({"tokenizer": "own"}, {"texts": np.array([""] * 11 + [" "])}, "reads texts of items"),
    ],
)
def test_contents_that_are_missing_are_named(settings, lacks, said):
    whole = contents()
    with pytest.raises(DataError, match=said):
        built(given=Contents(**{**vars(whole), **lacks}), **settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Toy Story (1995)", ["toy", "story", "(", "1995", ")"]),
        ("Amélie", ["amélie"]),
        ("大話 west", ["大", "話", "west"]),
        ("ガンダム", ["ガ", "ン", "ダ", "ム"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("Ｆｕｌｌ＿width", ["full_width"]),
        (" \n", []),
    ],
)
def test_words_of_any_script_are_told_apart(text, words):
    assert words_of(text) == words


def test_words_fall_into_the_same_buckets_everywhere():
    first, second = splitter(3)(["Moon moon MOON 月", "x y z \ud800"])
    assert first == [18_408] * 3
    assert len(second) == 3
    assert max(first + second) < NUM_WORDS


@pytest.mark.parametrize("dtype", [np.str_, object])
def test_items_without_a_text_are_counted(dtype):
    said, texts = [], contents().texts.astype(dtype)
    texts[3], texts[7] = "", "  "
    encoder = built(said=said, given=Contents(texts), tokenizer="own")
    assert said == ["2 of 12 items have no text; one vector stands for them all."]
    vectors = encoder(torch.arange(12), 18)
    assert torch.equal(vectors[3], vectors[7])


def test_words_are_split_once(tmp_path):
    said = []
    tables = [built(cache=tmp_path, said=said, tokenizer="own").rows.tokens for _ in range(2)]
    assert said == ["Splitting 12 texts into tokens, once."]
    assert torch.equal(*tables)


def test_a_folder_that_cannot_be_written_costs_splitting_again(tmp_path, monkeypatch):
    def closed(path, value):
        raise EnvironmentFault("Cannot write there: Read-only file system.")

    monkeypatch.setattr("effrec_cli.data.tokenise.write_manifest", closed)
    said = []
    encoder = built(cache=tmp_path, said=said, tokenizer="own")
    assert torch.equal(encoder.rows.tokens, built(tokenizer="own").rows.tokens)
    assert said[1] == "The tokens are not kept. Cannot write there: Read-only file system."
    assert not list(tmp_path.glob("tokens-*/*"))
