"""What the Triton kernels load and add, counted in the interpreter: the bytes that `work` says they do."""

from collections import Counter

import numpy as np
import pytest
import torch
from effrec_kernels import sampled_cross_entropy
from effrec_kernels.work import Rates, break_even_negatives, full_work, sampled_work

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts are made in Triton's interpreter")

ROWS, NEGATIVES, ITEMS, DIM = 64, 64, 1000, 16


@pytest.fixture
def traffic(monkeypatch):
    """Counts bytes loaded from tensors that are named in `where`, and bytes added anywhere."""
    from triton.runtime.interpreter import InterpreterBuilder

    where, bytes_of = {}, Counter()
    load, add = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_atomic_rmw

    def counted_load(self, ptrs, mask, *rest):
        size = ptrs.get_element_ty().primitive_bitwidth // 8
        for name, tensor in where.items():
            start = tensor.data_ptr()
            inside = (ptrs.data >= start) & (ptrs.data < start + tensor.numel() * tensor.element_size())
            bytes_of[name] += int(np.sum(inside & mask.data.astype(bool))) * size
        return load(self, ptrs, mask, *rest)

    def counted_add(self, operation, ptr, value, mask, *rest):
        bytes_of["added"] += int(np.sum(mask.data.astype(bool))) * value.data.itemsize
        return add(self, operation, ptr, value, mask, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", counted_load)
    monkeypatch.setattr(InterpreterBuilder, "create_atomic_rmw", counted_add)
    return where, bytes_of


@pytest.mark.parametrize("group_rows", [1, 16])
def test_bytes_read_and_added_are_those_of_the_roofline(traffic, group_rows):
    from effrec_kernels.triton_kernels.blocks import tile_blocks

    where, bytes_of = traffic
    draw = torch.Generator().manual_seed(0)
    hidden, items = torch.randn(ROWS, DIM, generator=draw), torch.randn(ITEMS, DIM, generator=draw)
    hidden, items = hidden.requires_grad_(), items.requires_grad_()
    where |= {"hidden": hidden, "items": items}
    # No negative is a target: all are read and added.
    targets = torch.randint(500, (ROWS,), generator=draw)
    negatives = 500 + torch.randint(500, (ROWS // group_rows, NEGATIVES), generator=draw)
    sharing = "row" if group_rows == 1 else group_rows
    loss = sampled_cross_entropy(
        hidden, items, targets, negatives=negatives, correction="constant", sharing=sharing, kernel="triton"
    )
    loss.backward()
    block = tile_blocks(DIM, torch.float32, torch.float32, group_rows).negatives
    sizes = {"item_bytes": 4, "hidden_bytes": 4, "block_negatives": block}
    work = sampled_work(ROWS, NEGATIVES, DIM, group_rows=group_rows, **sizes)
    assert bytes_of["hidden"] + bytes_of["items"] == work.read
    assert bytes_of["added"] == work.added


def test_sharing_divides_what_is_read_and_added():
    alone, shared = (sampled_work(65_536, 511, 256, group_rows=size) for size in (1, 64))
    assert alone.added / shared.added > 50
    assert alone.read / shared.read > 10


def test_where_the_full_softmax_is_cheaper():
    """At 4.8 TB/s and 650 TFLOP/s, about V / 130 independent negatives cost as much in one pass."""
    rates = Rates(gather=4.8e12, add=4.8e12, products=650e12)
    items = 893_022
    alone = break_even_negatives(131_072, items, 256, rates)
    assert items / 400 < alone < items / 100
    assert break_even_negatives(131_072, items, 256, rates, group_rows=64) > 10 * alone
    assert full_work(1, items, 256).seconds(rates) > sampled_work(1, alone, 256).seconds(rates)
