"""Rates of devices, and where the full softmax is cheaper by them."""

from types import SimpleNamespace

import pytest
import torch
from effrec_kernels import rates
from effrec_kernels.rates import CPU, rates_of_device
from effrec_kernels.work import Logits, Rates, break_even_negatives, full_work, sampled_work

KIB, MIB = 1 << 10, 1 << 20
H200 = {
    "major": 9,
    "minor": 0,
    "multi_processor_count": 132,
    "clock_rate": 1_980_000,
    "memory_clock_rate": 3_201_000,
    "memory_bus_width": 6144,
    "L2_cache_size": 50 * MIB,
}

# M, D, V, rows that share (0: each its own), and the N at which a measured step of sampling costs as much as
# one of the full softmax: one core, float32, interpolated between N = 127 and 511 or extended beyond.
MEASURED = [
    (1600, 64, 1000, 1, 115),
    (1600, 64, 4000, 1, 508),
    (1600, 64, 20_000, 1, 2150),
    (1600, 256, 4000, 1, 610),
    (1600, 256, 20_000, 1, 2130),
    (1600, 32, 2000, 1, 210),
    (4000, 32, 20_000, 1, 2150),
    (1600, 64, 4000, 64, 2080),
    (1600, 64, 20_000, 64, 9800),
    (1600, 256, 4000, 64, 2030),
    (1600, 256, 20_000, 64, 10_700),
    (4000, 32, 20_000, 64, 10_400),
    (1600, 64, 20_000, 1600, 14_400),
    (1600, 256, 20_000, 1600, 17_300),
]


def gpu(monkeypatch, **changes):
    """Returns a CUDA device with the properties of an H200, some of them changed."""
    properties = SimpleNamespace(**H200 | changes)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return torch.device("cuda")


@pytest.mark.parametrize(("rows", "dim", "items", "group_rows", "measured"), MEASURED)
def test_a_cpus_break_even_is_near_the_measured_one(rows, dim, items, group_rows, measured):
    found = break_even_negatives(rows, items, dim, CPU, group_rows=group_rows, item_bytes=4)
    assert measured / 1.5 < found < measured * 1.5


def test_break_even_is_where_the_costs_cross():
    sizes = {"group_rows": 1, "item_bytes": 4}
    found = break_even_negatives(500, 3000, 64, CPU, **sizes)
    full = full_work(500, 3000, 64, item_bytes=4).seconds(CPU)
    below, above = (
        sampled_work(500, n, 64, **sizes, hidden_bytes=4).seconds(CPU) for n in (found, found + 1)
    )
    assert below < full <= above


def test_time_for_logits_comes_on_top():
    bare, laden = Rates(1.0, 1.0, 1.0), Rates(1.0, 1.0, 1.0, Logits(full=3.0, row=5.0, shared=7.0))
    for work, extra in (
        (full_work(2, 11, 4), 3 * 2 * 11),
        (sampled_work(2, 6, 4), 5 * 2 * 6),
        (sampled_work(4, 6, 4, group_rows=2), 7 * 4 * 6),
    ):
        assert work.seconds(laden) == work.seconds(bare) + extra


def test_a_cpu_has_constants():
    assert rates_of_device(torch.device("cpu"), torch.float32, 10, 10) is CPU
    assert rates_of_device(torch.device("cpu"), torch.bfloat16, 10**6, 512) is CPU


def test_a_gpus_rates_are_its_data_sheets(monkeypatch):
    found = rates_of_device(gpu(monkeypatch), torch.bfloat16, 10**6, 256)
    assert found.gather == pytest.approx(4.9e12, rel=0.02)
    assert found.add == pytest.approx(found.gather / 2)
    # 989 TFLOP/s at 1.83 GHz, of which a large product reaches seven tenths.
    assert found.products == pytest.approx(0.7 * 989e12 * 1.98 / 1.83, rel=0.01)
    single = rates_of_device(gpu(monkeypatch), torch.float32, 10**6, 256)
    assert single.products == pytest.approx(0.7 * 67e12, rel=0.02)


def test_tf32_is_faster_than_float32_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    single = rates_of_device(gpu(monkeypatch), torch.float32, 10**6, 256)
    half = rates_of_device(gpu(monkeypatch), torch.float16, 10**6, 256)
    assert single.products == half.products / 2


def test_a_table_within_the_cache_is_read_faster(monkeypatch):
    device = gpu(monkeypatch, L2_cache_size=MIB)
    outside = rates_of_device(device, torch.bfloat16, 2 * KIB + 1, 256)
    read_inside = rates_of_device(device, torch.bfloat16, 2 * KIB, 256)
    inside = rates_of_device(device, torch.bfloat16, KIB, 256)
    assert outside.gather < read_inside.gather == inside.gather
    assert outside.add == read_inside.add < inside.add


@pytest.mark.parametrize(
    ("capability", "per_clock"),
    [((7, 5), 2048), ((8, 7), 1024), ((9, 0), 4096), ((10, 3), 8192), ((13, 0), 1024)],
)
def test_capabilities_without_a_figure_take_that_of_the_one_before(monkeypatch, capability, per_clock):
    device = gpu(monkeypatch, major=capability[0], minor=capability[1])
    found = rates_of_device(device, torch.float16, 10**6, 256)
    assert found.products == pytest.approx(132 * 1.98e9 * per_clock * 0.7)


def test_a_device_that_hides_its_clocks_still_has_rates(monkeypatch):
    device = gpu(monkeypatch, memory_clock_rate=0)
    assert rates_of_device(device, torch.float16, 10**6, 256).gather == rates._BANDWIDTH


def test_on_a_gpu_negatives_of_ones_own_pay_for_few_of_them_and_shared_ones_for_most(monkeypatch):
    device, items, dim = gpu(monkeypatch), 893_022, 256
    found = rates_of_device(device, torch.bfloat16, items, dim)
    alone = break_even_negatives(131_072, items, dim, found)
    shared = break_even_negatives(131_072, items, dim, found, group_rows=64)
    assert items / 200 < alone < items / 20
    assert shared > 10 * alone
