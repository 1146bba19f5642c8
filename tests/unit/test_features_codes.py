"""Kept values: how much of them is lost in each type, and what tells their sources apart."""

import numpy as np
import pytest
import torch
from encoder_helpers import contents
from features_helpers import keep, spec

from effrec_cli.data.features.codes import DTYPES, STORED, coded
from effrec_cli.data.features.digests import array_digest, texts_digest, tokens_digest
from effrec_cli.data.tokens import table_of
from effrec_cli.models.encoders.kept_taps import KeptTaps

NONE = torch.zeros(0, 16)
# Half a step of the mantissa relative to a value; int8's step is relative to the largest of a row.
MOST = {"fp32": 0.0, "fp16": 2.0**-11, "bf16": 2.0**-8, "fp8": 2.0**-4}


def values():
    torch.manual_seed(0)
    made = torch.randn(20, 3, 16)
    made[:, 1] *= 50
    made[:, 1, 5] = 700 * torch.randn(20)  # an outlier channel, as ViT's residual stream has them
    made[3, 2] = 0
    return made


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_that_is_said_is_the_one_that_is_made(dtype):
    given = values()
    made = coded(given, dtype, NONE)
    kept = made.codes.view(DTYPES[dtype]).float()
    if made.scales is not None:
        kept = kept * made.scales[..., None]
    want = (given - kept).norm(dim=-1) / given.norm(dim=-1).clamp(min=1e-30)
    torch.testing.assert_close(made.error, want, rtol=1e-4, atol=1e-8)
    assert made.whole.all()
    assert made.fits.all()
    if dtype == "int8":
        step = given.abs().amax(-1, keepdim=True) / 127
        assert ((given - kept).abs() <= 0.5001 * step).all()
    else:
        assert (
            (given - kept).abs()
            <= 1.0001 * MOST[dtype] * given.abs()
            + 1e-7 * (dtype == "fp16")
            + 0.002 * (dtype == "fp8") * given.abs().amax(-1, keepdim=True)
        ).all()
    assert (kept[3, 2] == 0).all()


@pytest.mark.parametrize("dtype", ["int8", "fp8"])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e38])
def test_scales_hold_very_small_and_very_large_values(dtype, scale):
    made = coded(scale * torch.ones(1, 1, 16), dtype, NONE)
    assert made.fits.all()
    kept = made.codes.view(DTYPES[dtype]).float() * made.scales[..., None]
    assert ((kept - scale).abs() <= max(0.01 * scale, 1e-29)).all()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_of_a_backbone_loses_nothing_in_the_same_type(dtype):
    given = values().clamp(-100, 100).to(DTYPES[dtype])
    assert coded(given, dtype, NONE).error.max() == 0


def test_constant_taps_are_compared_and_not_kept():
    given = values()
    given[:, 0] = given[0, 0]
    made = coded(given, "fp32", given[0, :1])
    assert made.codes.shape == (20, 2, 16)
    assert (made.constant == 0).all()
    given[7, 0, 3] += given[0, 0].abs().max()
    assert coded(given, "fp32", given[0, :1]).constant[0].nonzero().tolist() == [[7]]


@pytest.mark.parametrize("dtype", STORED)
def test_what_is_kept_is_read_back_from_the_disk(tmp_path, dtype):
    kept = keep(tmp_path, dtype=dtype)
    full = keep(tmp_path)
    assert kept.rows.dtype == np.dtype(STORED[dtype])
    taps = torch.stack(KeptTaps(kept)(torch.arange(12))[1:], 1)
    away = (taps - torch.from_numpy(np.array(full.rows))).norm(dim=-1) / torch.from_numpy(
        np.array(full.rows)
    ).norm(dim=-1)
    said = [[kept.error[str(tap)][name] for tap in (2, 5)] for name in ("max", "mean")]
    torch.testing.assert_close(
        torch.tensor(said), torch.stack([away.amax(0), away.mean(0)]), rtol=1e-4, atol=1e-8
    )
    assert (kept.error["5"]["max"] > 0) == (dtype != "fp32")


def test_texts_are_told_apart_by_order_and_by_where_they_end():
    texts = np.array(["red house", "blue", ""])
    assert texts_digest(texts) == texts_digest(texts.astype("<U40")) == texts_digest(list(texts))
    others = [texts[::-1], ["red hous", "eblue", ""], ["red house", "blue"], [*texts, ""]]
    assert len({texts_digest(each) for each in [texts, *others]}) == 5


def test_tokens_are_told_apart():
    rows = [np.array(each, np.int32) for each in ([1, 2], [3], [])]
    tables = [table_of(rows, 9), table_of(rows[::-1], 9), table_of(rows, 10), table_of(rows, 9, pad=1)]
    tables.append(table_of([np.array(each, np.int32) for each in ([1], [2, 3], [])], 9))
    assert len({tokens_digest(each) for each in tables}) == 5


def test_an_array_has_the_digest_of_its_file(tmp_path):
    images = contents().images
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    digest = array_digest(images)
    assert array_digest(mapped, tmp_path) == array_digest(np.asarray(mapped), tmp_path) == digest
    assert (tmp_path / "digests.json").is_file()
    assert array_digest(images[:, ::-1]) != digest
    assert array_digest(mapped[1:], tmp_path) == array_digest(images[1:])
    assert array_digest(images.reshape(12, 14, 10, 3)) != digest


def test_facts_are_what_json_gives_back(tmp_path):
    assert spec().facts()["taps"] == [0, 2, 5]
    assert spec().folder(tmp_path) == spec(taps=[0, 2, 5]).folder(tmp_path)
