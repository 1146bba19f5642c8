import numpy as np
import pytest
import torch
from ranking_helpers import make_data

from effrec_cli.evaluation import blocks, metrics
from effrec_cli.evaluation.blocks import block_rows, flat_ranges, free_bytes, make_block

CPU = torch.device("cpu")


def test_flat_ranges_lists_every_position_and_its_range():
    positions, owner = flat_ranges(np.array([4, 0, 9, 2]), np.array([7, 0, 10, 4]))
    assert positions.tolist() == [4, 5, 6, 9, 2, 3]
    assert owner.tolist() == [0, 0, 0, 2, 3, 3]


def test_a_block_holds_histories_and_distinct_targets():
    data = make_data([[5, 5], [], [1]], [[2, 2, 0], [3], [4]], 6)
    block = make_block(data, data.test, slice(0, 2), CPU)
    assert block.users.tolist() == [0, 1]
    assert block.histories.items.tolist() == [5, 5]
    assert block.histories.offsets.tolist() == [0, 2, 2]
    assert block.targets.tolist() == [0, 2, 6 + 3]
    assert block.relevant.tolist() == [2, 1]


def test_free_memory_is_read_from_the_kernel_or_guessed(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:      64 kB\n")
    assert blocks._free_host_bytes(meminfo) == 64 * 1024
    assert blocks._free_host_bytes(tmp_path / "absent") > 1 << 20
    meminfo.write_text("MemTotal:  100 kB\n")
    assert blocks._free_host_bytes(meminfo) > 1 << 20
    assert free_bytes(CPU) > 1 << 20


@pytest.mark.parametrize("num_items", [1, 100, 27_000, 10_000_000])
def test_on_a_cpu_the_block_depends_on_the_catalogue_alone(num_items, monkeypatch):
    sizes = set()
    for free in (1 << 40, 1 << 42):
        monkeypatch.setattr(blocks, "free_bytes", lambda device, free=free: free)
        sizes.add(block_rows(num_items, CPU))
    assert len(sizes) == 1
    assert 64 <= sizes.pop() <= 4096


def test_short_memory_makes_blocks_small_and_never_empty(monkeypatch):
    monkeypatch.setattr(blocks, "free_bytes", lambda device: 4 * 16 * 1000 * 10)
    assert block_rows(1000, CPU) == 10
    assert block_rows(10_000_000, CPU) == 1


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_item_information_is_the_same_however_it_is_counted(rows, monkeypatch):
    data = make_data([[0, 0, 1], [], [1], [2, 1]], [[3], [3], [3], [3]], 5)
    counting = metrics._users_by_item
    monkeypatch.setattr(metrics, "_users_by_item", lambda data: counting(data, rows))
    thirds = np.log2([3, 1, 3, 3, 3]) / np.log2(3)
    assert metrics.item_information(data) == pytest.approx(thirds)


def test_information_of_a_single_user_is_defined():
    assert metrics.item_information(make_data([[0]], [[1]], 2)).tolist() == [1, 1]
