"""Scores against packed items: those of the dense table, every way, in blocks, of int8 values, of a slice."""

import dataclasses
import importlib.util

import pytest
import torch
from effrec_kernels import PackedRows, packed_scores, unpack
from packed_cases import packed_case
from test_memory import allocations

KERNELS = ["torch", "triton"] if importlib.util.find_spec("triton") else ["torch"]
# Of few slots and of many: bags, and products of unpacked blocks.
SHAPES = [(1, 17, 1), (40, 17, 3), (70, 64, 13), (33, 256, 64), (9, 257, 140), (5, 1000, 40), (40, 16, 16)]


def users(packed, count=7, dtype=torch.float32):
    draw = torch.Generator().manual_seed(4)
    return torch.randn(count, packed.dim, generator=draw).to(packed.values.device, dtype)


def check(found, hidden, table):
    true = hidden.double() @ table.double().t()
    bound = 1e-6 * hidden.double().abs() @ table.double().abs().t() + 1e-12
    assert found.shape == true.shape
    assert ((found.double() - true).abs() <= bound).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("rows", "dim", "slots"), SHAPES)
def test_scores_are_those_of_the_dense_table(rows, dim, slots, ragged, kernel, device):
    packed, table = packed_case(rows, dim, slots, ragged, device=device)
    hidden = users(packed, 70)
    found = packed_scores(hidden, packed, kernel=kernel)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    check(found, hidden, table)
    some = packed_scores(hidden, packed, rows=slice(rows // 3, -1), kernel=kernel)
    check(some, hidden, table[rows // 3 : -1])


@pytest.mark.parametrize("slots", [3, 30])
@pytest.mark.parametrize("ragged", [False, True])
def test_more_items_than_a_block(ragged, slots):
    packed, table = packed_case(9_000, 40, slots, ragged)
    hidden = users(packed, 130)
    check(packed_scores(hidden, packed), hidden, table)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("slots", [3, 40])
@pytest.mark.parametrize("ragged", [False, True])
def test_scaled_integers_and_16_bit_numbers(ragged, slots, kernel, device):
    packed, _ = packed_case(30, 64, slots, ragged, device=device)
    hidden = users(packed)
    whole = (packed.values * 40).clamp(-127, 127).to(torch.int8)
    scaled = dataclasses.replace(packed, values=whole, scale=torch.rand(30).to(device))
    check(packed_scores(hidden, scaled, kernel=kernel), hidden, unpack(scaled))
    some = packed_scores(hidden, scaled, rows=slice(7, 20), kernel=kernel)
    check(some, hidden, unpack(scaled)[7:20])
    halves = dataclasses.replace(packed, values=packed.values.bfloat16())
    small = hidden.bfloat16()
    found = packed_scores(small, halves, kernel=kernel)
    assert found.dtype == torch.float32
    check(found, small, unpack(halves))


@pytest.mark.parametrize("slots", [3, 16])
def test_float64_stays_and_autocast_changes_nothing(slots):
    packed, table = packed_case(9, 17, slots, dtype=torch.float64)
    hidden = users(packed).double()
    found = packed_scores(hidden, packed)
    torch.testing.assert_close(found, hidden @ table.t(), rtol=1e-13, atol=1e-13)
    single, _ = packed_case(9, 17, slots)
    with torch.autocast("cpu", torch.bfloat16):
        under = packed_scores(hidden.float(), single)
    assert torch.equal(under, packed_scores(hidden.float(), single))


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_users_no_items_and_rows_without_slots(kernel):
    packed, _ = packed_case(9, 17, 3)
    assert packed_scores(users(packed, 0), packed, kernel=kernel).shape == (0, 9)
    assert packed_scores(users(packed), packed, rows=slice(5, 2), kernel=kernel).shape == (7, 0)
    empty = torch.zeros(0, 1), torch.zeros(0, dtype=torch.uint8)
    slotless = PackedRows(*empty, 17, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(packed_scores(users(packed), slotless, kernel=kernel), torch.zeros(7, 3))


def test_what_cannot_be_scored_is_refused():
    packed, _ = packed_case(9, 17, 3)
    with pytest.raises(ValueError, match="step 1, not of 2"):
        packed_scores(users(packed), packed, rows=slice(0, 9, 2))
    with pytest.raises(ValueError, match=r"\[b, 17\]"):
        packed_scores(torch.zeros(3, 16), packed)
    with pytest.raises(TypeError, match="floats"):
        packed_scores(torch.zeros(3, 17, dtype=torch.int64), packed)


@pytest.mark.parametrize("slots", [6, 40])
def test_scores_cost_themselves_and_a_block(slots):
    rows, dim = 20_000, 64
    packed, _ = packed_case(rows, dim, slots)
    hidden = users(packed, 4)
    largest, peak = allocations(lambda: packed_scores(hidden, packed))
    assert largest <= max(4 * rows * 4, 1 << 20)
    assert peak <= 4 * rows * 4 + (2 << 20) < rows * dim * 4
