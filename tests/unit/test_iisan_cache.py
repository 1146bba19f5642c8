"""A cache in the backbones' place: the same training, never a stale one, and no backbone to read it."""

import json
from pathlib import Path

import pytest
import torch
from iisan_helpers import LIVE, Course, built, config_of, relative

from effrec_cli.data.features import build
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.methods.iisan import IISAN
from effrec_cli.methods.multimodal import sources
from effrec_cli.models.encoders.sources import HostImages, ItemReader

SGD = ["optimizer=sgd", "optimizer.lr=0.1"]
DTYPES = ("fp32", "fp16", "bf16", "int8", "fp8")
WITHIN = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 1e-2, "int8": 2e-2, "fp8": 6e-2}


def of(dtype):
    return f"method.cache.dtype={dtype}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("iisan")


def a_step(method):
    """Returns vectors of all items, the loss of a step, and what an update made of the weights that train."""
    vectors, course = method.table(), Course(method)
    loss = torch.tensor(course.step())
    return vectors, loss, {name: each for name, each in course.weights().items() if "backbones" not in name}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["iisan", "frozen"])
def test_a_run_with_a_cache_is_the_run_without(root, mode, dtype):
    """Vectors, loss and one update, by a method that differs in nothing else."""
    live, cached = (a_step(built(root, *SGD, words, mode=mode)) for words in (*LIVE, of(dtype)))
    for found, true in zip(cached[:2], live[:2], strict=True):
        assert relative(found, true) <= WITHIN[dtype]
    assert dtype == "fp32" or not torch.equal(cached[0], live[0]), "or it was not read"
    assert cached[2].keys() == live[2].keys()
    for name, weight in cached[2].items():
        assert (weight - live[2][name]).abs().max() <= WITHIN[dtype], name


def test_a_tap_that_all_items_share_is_kept_once_and_trains_alike(root):
    words = ["method.text.pooling=cls", *SGD]
    live, cached = (built(root, *words, each) for each in (*LIVE, of("fp32")))
    taps = cached.encoder.source(torch.arange(5)).text
    assert [len(tap) for tap in taps] == [1, 5, 5, 5]
    for found, true in zip(a_step(cached)[:2], a_step(live)[:2], strict=True):
        assert relative(found, true) <= 1e-5


@pytest.mark.parametrize(("ranks", "place"), [(1, "device"), (2, "disk")])
def test_ranks_of_a_host_share_its_memory(root, monkeypatch, ranks, place):
    """Each holds a copy of its own; what the disk gives all of them share."""
    source = built(root, world=World(size=ranks)).encoder.source
    size = source.text.nbytes + source.image.nbytes
    monkeypatch.setattr(sources, "free_bytes", lambda device: 4 * size)
    source.prepare()
    assert source.resident == place


@pytest.mark.parametrize("residence", ["auto", "device", "ram", "disk"])
def test_where_a_cache_lies_changes_no_bit(root, residence):
    vectors, _, weights = a_step(built(root, of("int8"), f"method.cache.residence={residence}"))
    plain, _, others = a_step(built(root, of("int8"), "method.cache.residence=ram"))
    assert torch.equal(vectors, plain)
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def folders(root, modality="*"):
    return {path for path in Path(root, "features").glob(f"{modality}-*") if path.is_dir()}


OTHERS = [
    (of("fp32"), {"text", "image"}),
    ("method.num_taps=2", {"text", "image"}),
    ("method.text_taps=[1,3]", {"text"}),
    ("method.text.max_tokens=3", {"text"}),
    ("method.text.pooling=cls", {"text"}),
    ("method.image.num_layers=4", {"image"}),
    ("dataset.image_size=12", {"image"}),
    ("dataset.seed=9", {"text", "image"}),
    ("run.precision=bf16", {"text", "image"}),
]


@pytest.mark.parametrize(("words", "others"), OTHERS, ids=[row[0] for row in OTHERS])
def test_other_settings_never_read_what_was_kept_under_these(tmp_path, words, others):
    built(tmp_path)
    before = folders(tmp_path)
    built(tmp_path, words)
    made = {path.name.split("-")[0] for path in folders(tmp_path) - before}
    assert made == others


def test_training_settings_share_a_cache(tmp_path):
    built(tmp_path)
    before = folders(tmp_path)
    built(
        tmp_path, "method.rank=3", "seed=7", "method.towers=intra", "optimizer.lr=0.5", "model.max_length=4"
    )
    assert folders(tmp_path) == before


@pytest.fixture
def kept(tmp_path):
    """A root whose caches are filled, and the folder of the texts'."""
    built(tmp_path)
    (folder,) = folders(tmp_path, "text")
    return tmp_path, folder


def test_a_stale_cache_is_refused_and_named_and_made_anew_when_asked(kept, monkeypatch):
    root, folder = kept
    expected = built(root).table()
    manifest = json.loads((folder / "manifest.json").read_text())
    text = json.dumps(manifest).replace("random 20240403", "random 1")
    assert "random 1" in text
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError) as caught:
        built(root)
    assert "weights" in str(caught.value) + str(caught.value.where)
    assert str(folder) in str(caught.value) + str(caught.value.where)
    assert "method.cache.rebuild=true" in caught.value.fix
    made = []
    read = ItemReader.read
    monkeypatch.setattr(ItemReader, "read", lambda self, loaded: made.append(1) or read(self, loaded))
    assert torch.equal(built(root, "method.cache.rebuild=true").table(), expected)
    assert made
    made.clear()
    assert torch.equal(built(root).table(), expected)
    assert not made


def test_a_damaged_cache_is_refused(kept):
    root, folder = kept
    rows = folder / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-7])
    with pytest.raises(DataError) as caught:
        built(root)
    assert "method.cache.rebuild=true" in caught.value.fix
    assert f"remove {folder}" in caught.value.fix  # resume and evaluate take no settings


@pytest.mark.parametrize(("state", "rebuilds"), [({}, True), ({"keeps_lower": False}, False)])
def test_a_run_that_goes_on_keeps_the_cache_that_it_filled_anew(tmp_path, state, rebuilds):
    method = IISAN(config_of(tmp_path, "method.cache.rebuild=true"), World())
    method.recall(state)
    assert method.own.cache.rebuild is rebuilds


def test_items_in_another_order_are_other_features(tmp_path):
    first, second = (built(tmp_path, of("fp32")) for _ in range(2))
    before, order = folders(tmp_path), torch.arange(39, -1, -1)
    contents = second.content.contents
    object.__setattr__(contents, "images", contents.images[order.numpy()].copy())
    second.model = second.build(second.data)
    assert {path.name.split("-")[0] for path in folders(tmp_path) - before} == {"image"}
    plain, shuffled = (each.encoder.source(torch.arange(40)).image for each in (first, second))
    for tap, other in zip(plain, shuffled, strict=True):
        assert torch.allclose(tap[order], other, atol=1e-6)
        assert not torch.allclose(tap, other, atol=1e-3)


class Broken(BaseException):
    """Ends a build at once."""


def test_a_build_that_broke_off_goes_on_in_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MARK_SECONDS", 0.0)
    words = ["method.batch_tokens=16"]
    whole = built(tmp_path / "whole", *words).table()
    read, texts = sources.UnderAutocast.read, []

    def breaking(self, loaded):
        if len(texts) == 6:
            raise Broken
        if not isinstance(self.rows, HostImages):
            texts.append(loaded[0].tolist())
        return read(self, loaded)

    with monkeypatch.context() as patch:
        patch.setattr(sources.UnderAutocast, "read", breaking)
        with pytest.raises(Broken):
            built(tmp_path, *words)
    kept = {item for chunk in texts[:5] for item in chunk}  # the last one was still on its way
    texts.clear()
    texts.extend([[]] * 7)
    monkeypatch.setattr(sources.UnderAutocast, "read", breaking)
    assert torch.equal(built(tmp_path, *words).table(), whole)
    assert {item for chunk in texts for item in chunk} == set(range(40)) - kept


def never(*_args, **_named):
    raise AssertionError("a backbone was built")


@pytest.mark.parametrize("mode", ["iisan", "frozen"])
def test_no_backbone_is_built_where_a_cache_is_filled(tmp_path, monkeypatch, mode):
    built(tmp_path, mode=mode)
    monkeypatch.setattr(sources, "build_backbone", never)
    course = Course(built(tmp_path, mode=mode))
    course.step()
    assert course.method.judge("valid")["ndcg@10"] >= 0
    with pytest.raises(AssertionError, match="a backbone was built"):
        built(tmp_path, "method.text.num_layers=5", mode=mode)


def test_the_seconds_of_filling_are_told_in_every_run_that_reads(tmp_path):
    first = built(tmp_path)
    assert first.seconds_cache > 0
    assert built(tmp_path).seconds_cache == first.seconds_cache
    assert built(tmp_path, *LIVE).seconds_cache is None
    assert built(tmp_path, mode="fft").seconds_cache is None


@pytest.mark.parametrize("mode", ["iisan", "frozen"])
@pytest.mark.parametrize(
    "words", [["method.dim=9"], ["model.num_heads=3", "method.next_item.projection=true"]]
)
def test_a_width_that_heads_cannot_share_is_refused_before_a_cache_is_filled(tmp_path, mode, words):
    with pytest.raises(ConfigError, match="does not divide into"):
        built(tmp_path, *words, mode=mode)
    assert not folders(tmp_path)
