"""Taps from a cache are the taps that backbones give, wherever the cache is read from."""

import copy
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_helpers import contents
from features_helpers import kept_both, kept_of
from taps_helpers import image_reader, small_image, small_text, text_reader
from torch import nn

from effrec_cli.data.contents import Contents
from effrec_cli.data.features.digests import texts_digest, tokens_digest
from effrec_cli.data.tokens import table_of
from effrec_cli.models.encoders.reader import RowPooling, TapReader
from effrec_cli.models.encoders.rows import ImageRows
from effrec_cli.models.encoders.sources import BackboneTaps, CachedTaps, HostImages, ItemReader
from effrec_cli.models.taps import TapShape

ITEMS = torch.tensor([7, 0, 11, 7, 3])
WITHIN = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 1e-2, "int8": 2e-2, "fp8": 7e-2}


def cached(text, image, residence="auto", free=1 << 40, said=None):
    say = (lambda line: None) if said is None else said.append
    return CachedTaps(text, image, residence=residence, free_bytes=lambda _: free, say=say)


def pairs(first, second):
    return zip((*first.text, *first.image), (*second.text, *second.image), strict=True)


@pytest.mark.parametrize("kind", ["cls", "mean"])
@pytest.mark.parametrize("dtype", WITHIN)
def test_kept_taps_are_those_of_the_backbones(tmp_path, kind, dtype):
    readers, kept = kept_both(tmp_path, dtype, kind=kind)
    fresh, stored = BackboneTaps(*readers), cached(*kept)
    assert stored.shape == fresh.shape == TapShape(32, 3, 32, 3)
    for live, read in pairs(fresh(ITEMS), stored(ITEMS)):
        assert read.dtype == torch.float32
        away = (live - read).norm(dim=-1) / live.norm(dim=-1)
        assert away.max() <= WITHIN[dtype]
    assert all(
        tap.shape[0] == (1 if kind == "cls" else 5) for tap in (stored(ITEMS).text[0], stored(ITEMS).image[0])
    )


class Model(nn.Module):
    """Something that trains above a source of taps."""

    def __init__(self, source):
        super().__init__()
        torch.manual_seed(0)
        self.source, self.head = source, nn.Linear(32, 4)

    def forward(self, items):
        taps = self.source(items)
        return self.head(sum((*taps.text, *taps.image)))


@pytest.mark.parametrize(("dtype", "within"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_a_step_on_kept_taps_is_a_step_on_the_backbones(tmp_path, dtype, within):
    readers, kept = kept_both(tmp_path, dtype)
    found = []
    for source in (BackboneTaps(*readers), cached(*kept)):
        model = Model(source).train()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        loss = model(ITEMS).square().mean()
        loss.backward()
        optimiser.step()
        found.append((loss.detach(), model.head.weight.detach(), model.eval()(ITEMS).detach()))
    for live, read in zip(*found, strict=True):
        assert (live - read).norm() <= within * live.norm()


def test_keeping_the_first_tap_once_changes_no_bit(tmp_path):
    readers, kept = kept_both(tmp_path)
    each = kept_of(text_reader(kind="cls"), tmp_path / "again", "text")
    assert kept[0].constant_taps == each.constant_taps == (0,)
    live = readers[0](torch.arange(12))[:, 0]
    assert torch.equal(cached(*kept)(torch.arange(12)).text[0].expand_as(live), live)


@pytest.mark.parametrize("dtype", WITHIN)
def test_taps_are_equal_wherever_they_are_read_from(tmp_path, dtype):
    _, kept = kept_both(tmp_path, dtype)
    found = {place: cached(*kept, place)(ITEMS) for place in ("device", "ram", "disk")}
    for place in ("ram", "disk"):
        assert all(torch.equal(*pair) for pair in pairs(found["device"], found[place]))
    doubled = cached(*kept, "device").double()
    doubled.prepare()
    for put_later in (doubled, cached(*kept, "device")):
        put_later.prepare()
        for one, other in pairs(found["disk"], put_later.double()(ITEMS)):
            assert other.dtype == torch.float64
            torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=1e-9)


def test_a_cache_goes_where_there_is_memory_for_four(tmp_path):
    _, kept = kept_both(tmp_path)
    size = sum(each.rows.nbytes for each in kept)
    said = []
    for free, place in ((4 * size, "device"), (4 * size - 1, "disk")):
        source = cached(*kept, free=free, said=said)
        assert source.resident is None
        source(ITEMS)
        assert source.resident == place
        assert ("on the device" in said[-1]) == (place == "device")
    assert len(said) == 2


def test_memory_of_the_host_stands_in_where_the_device_has_too_little(tmp_path):
    _, kept = kept_both(tmp_path)
    source = cached(*kept)
    source._free_bytes = lambda device: 0 if device.type == "meta" else 1 << 40
    assert source._fitting(100, torch.device("meta")) == "ram"


def test_nothing_of_a_cache_is_saved_or_trains(tmp_path):
    _, kept = kept_both(tmp_path, "int8")
    model = Model(cached(*kept)).train()
    model(ITEMS).sum().backward()
    assert set(model.state_dict()) == {"head.weight", "head.bias"}
    assert len(list(model.parameters())) == 2
    taps = model.source(ITEMS)
    assert all(not tap.requires_grad and tap.grad_fn is None for tap in (*taps.text, *taps.image))


@pytest.mark.parametrize("place", ["device", "disk"])
def test_a_copy_of_a_cache_gives_the_same(tmp_path, place):
    _, kept = kept_both(tmp_path)
    source = cached(*kept, place)
    first = source(ITEMS)
    assert all(torch.equal(*pair) for pair in pairs(first, copy.deepcopy(source)(ITEMS)))


@pytest.mark.parametrize("place", ["device", "ram", "disk"])
def test_no_items_and_items_that_are_not_there(tmp_path, place):
    _, kept = kept_both(tmp_path)
    source = cached(*kept, place)
    taps = source(torch.zeros(0, dtype=torch.long))
    assert [tap.shape[0] for tap in taps.text] == [1, 0, 0]
    with pytest.raises(IndexError):
        source(torch.tensor([12]))


def test_one_modality_alone(tmp_path):
    kept = kept_of(image_reader(), tmp_path, "image")
    source = cached(None, kept)
    assert source(ITEMS).text == ()
    assert source.shape == TapShape(0, 0, 32, 3)


def test_rows_follow_items_that_are_shuffled(tmp_path):
    given = contents()
    order = np.random.default_rng(3).permutation(12)
    rows = [given.tokens.of(int(item)) for item in order]
    mixed = Contents(given.texts[order], table_of(rows, given.tokens.num_words), given.images[order])
    assert texts_digest(given.texts) != texts_digest(mixed.texts)
    assert tokens_digest(given.tokens) != tokens_digest(mixed.tokens)
    first = cached(
        kept_of(text_reader(given=given), tmp_path / "a", "text"),
        kept_of(image_reader(given=given), tmp_path / "a", "image"),
    )
    second = cached(
        kept_of(text_reader(given=mixed), tmp_path / "b", "text"),
        kept_of(image_reader(given=mixed), tmp_path / "b", "image"),
    )
    for one, other in pairs(first(torch.from_numpy(order)), second(torch.arange(12))):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("budget", [1, 40, 4000])
def test_chunks_do_not_change_what_is_kept(tmp_path, budget):
    one = kept_of(text_reader(small_text(), batch_tokens=budget), tmp_path / "a", "text")
    other = kept_of(text_reader(small_text(), batch_tokens=100), tmp_path / "b", "text")
    np.testing.assert_allclose(one.rows, other.rows, rtol=1e-5, atol=1e-6)


def test_images_that_stay_on_the_disk_are_read_as_others_are(tmp_path):
    images = contents().images
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    costs = np.full(12, 10)
    reader = TapReader(small_image(), RowPooling("mean"), (0, 3))
    held, stays = (
        ItemReader(rows, costs, reader, 40)
        for rows in (ImageRows(torch.from_numpy(images)), HostImages(mapped))
    )
    assert torch.equal(held(ITEMS), stays(ITEMS))
    pixels, real = HostImages(mapped)(ITEMS, 10)
    assert torch.equal(pixels, torch.from_numpy(images)[ITEMS])
    assert real is None
    np.testing.assert_array_equal(
        kept_of(held, tmp_path / "a", "image").rows, kept_of(stays, tmp_path / "b", "image").rows
    )


OPENED = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from pathlib import Path
    import torch
    from effrec_cli.data.features.build import kept_features
    from effrec_cli.models.encoders.sources import CachedTaps
    from features_helpers import spec
    wanted = spec(num_items=12, dim=32, taps=(0, 2, 3))
    kept = kept_features(wanted, Path(sys.argv[1]), None, rebuild=False, say=print)
    source = CachedTaps(kept, None, residence="auto", free_bytes=lambda _: 1 << 40, say=lambda line: None)
    assert source(torch.arange(3)).text[1].shape == (3, 32)
    assert "transformers" not in sys.modules
"""


def test_no_backbone_is_loaded_to_read_a_cache(tmp_path):
    kept_of(text_reader(), tmp_path, "text")
    code = textwrap.dedent(OPENED)
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)], check=True)
