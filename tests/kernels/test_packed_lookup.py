"""Looking rows of packed tables up: values and gradients of the masked dense one, growth scores, memory."""

import dataclasses
import gc
import importlib.util
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import PackedRows, RowAdam, RowSparse, coalesce, packed_embedding, row_adam, unpack
from packed_cases import dense_of, packed_case
from test_memory import allocations

KERNELS = ["torch", "triton"] if importlib.util.find_spec("triton") else ["torch"]
SHAPES = [(1, 17, 1), (23, 17, 3), (9, 64, 13), (5, 256, 64), (5, 257, 13), (3, 1000, 400), (7, 64, 64)]


def training(packed):
    """Returns the table with fresh values that take a gradient."""
    return dataclasses.replace(packed, values=packed.values.detach().clone().requires_grad_())


def ids_of(packed, *shape, seed=2):
    """Returns ids of which most repeat."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(packed.num_rows, shape, generator=draw).to(packed.values.device)


def upstream_of(ids, packed):
    draw = torch.Generator().manual_seed(3)
    flowing = torch.randn(*ids.shape, packed.dim, generator=draw)
    return flowing.to(packed.values.device, packed.values.dtype)


def masked_gradient(packed, table, ids, upstream):
    """Returns the dense table's gradient [N, d] in float64, and what it is at the slots, as values lie."""
    whole = table.detach().double().requires_grad_()
    F.embedding(ids, whole).backward(upstream.double())
    ones = dataclasses.replace(packed, values=torch.ones_like(packed.values))
    return whole.grad, whole.grad[unpack(ones).bool()].view_as(packed.values)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("rows", "dim", "slots"), SHAPES)
def test_values_and_gradients_are_those_of_the_masked_dense_table(
    rows, dim, slots, ragged, scored, kernel, device
):
    packed, table = packed_case(rows, dim, slots, ragged, device=device)
    packed, told = training(packed), []
    ids = ids_of(packed, 4, 7)
    found = packed_embedding(ids, packed, scores=told.append if scored else None, kernel=kernel)
    assert torch.equal(found, F.embedding(ids, table))
    upstream = upstream_of(ids, packed)
    found.backward(upstream)
    gradient, at_slots = masked_gradient(packed, table, ids, upstream)
    assert packed.values.grad.layout == torch.sparse_coo
    assert packed.values.grad.shape == packed.values.shape
    torch.testing.assert_close(dense_of(packed.values.grad).double(), at_slots, rtol=1e-6, atol=1e-6)
    assert len(told) == scored
    for one in told:
        assert one.rows.tolist() == ids.unique().tolist(), "each row once, rising"
        torch.testing.assert_close(dense_of(one).double(), gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ragged", [False, True])
def test_bfloat16_values_and_upstream(ragged, kernel, device):
    packed, table = packed_case(9, 64, 13, ragged, dtype=torch.bfloat16, device=device)
    packed = training(packed)
    ids = torch.arange(9, device=device)
    found = packed_embedding(ids, packed, kernel=kernel)
    assert torch.equal(found, table)
    upstream = upstream_of(ids, packed)
    found.backward(upstream)
    _, at_slots = masked_gradient(packed, table, ids, upstream)
    assert torch.equal(dense_of(packed.values.grad).double(), at_slots), "each row once: nothing is rounded"


@pytest.mark.parametrize("ragged", [False, True])
def test_under_autocast_values_get_float32_gradients(ragged):
    packed, table = packed_case(9, 64, 13, ragged)
    packed, whole = training(packed), table.clone().requires_grad_()
    ids, layer = ids_of(packed, 12), torch.randn(64, 5, generator=torch.Generator().manual_seed(5))
    with torch.autocast("cpu", torch.bfloat16):
        (packed_embedding(ids, packed) @ layer).float().square().sum().backward()
        (F.embedding(ids, whole) @ layer).float().square().sum().backward()
    assert packed.values.grad.dtype == torch.float32
    expected = whole.grad[table != 0].view_as(packed.values)
    torch.testing.assert_close(dense_of(packed.values.grad), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("ragged", [False, True])
def test_gradcheck(ragged):
    packed, _ = packed_case(6, 5, 2, ragged, dtype=torch.float64)
    ids = torch.tensor([[0, 5, 5], [2, 0, 1]])

    class Densely(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient.to_dense()

    def looked_up(values):
        return packed_embedding(ids, dataclasses.replace(packed, values=Densely.apply(values)))

    assert torch.autograd.gradcheck(looked_up, packed.values.requires_grad_())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ragged", [False, True])
def test_no_ids_and_rows_without_slots(ragged, kernel, device):
    packed, _ = packed_case(9, 17, 3, ragged, device=device)
    packed = training(packed)
    none = torch.empty(0, 3, dtype=torch.int64, device=device)
    found = packed_embedding(none, packed, scores=lambda rows: None, kernel=kernel)
    assert found.shape == (0, 3, 17)
    found.sum().backward()
    assert not dense_of(packed.values.grad).any()
    slotless = PackedRows(
        torch.zeros(0, 1, device=device, requires_grad=True),
        torch.zeros(0, dtype=torch.uint8, device=device),
        17,
        torch.zeros(4, dtype=torch.int64, device=device),
    )
    found = packed_embedding(torch.tensor([2, 2, 0], device=device), slotless, kernel=kernel)
    assert torch.equal(found, torch.zeros(3, 17, device=device))
    found.sum().backward()
    assert slotless.values.grad.shape == (0, 1)


def test_the_example_of_the_docs_runs():
    page = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
    example = re.search(r"^```python\n([^`]*packed_embedding.*?)^```", page, re.M | re.S).group(1)
    found = {}
    exec(example, found)
    assert found["top"].shape == (32, 20)
    assert sorted(found["touched"]) == found["ids"].unique().tolist()


@pytest.mark.parametrize("ids", [[0, 9], [-1, 3]])
def test_ids_that_are_no_rows(ids):
    packed, _ = packed_case(9, 17, 3)
    with pytest.raises(IndexError, match=r"ids holds 1 ids outside \[0, 9\), the first is (9|-1)"):
        packed_embedding(torch.tensor(ids), packed)
    with pytest.raises(TypeError, match="int32 or int64"):
        packed_embedding(torch.tensor([0.0]), packed)


def test_what_is_no_row_is_nan_where_it_is_not_looked_for():
    pytest.importorskip("triton")
    packed, table = packed_case(9, 17, 3)
    found = unpack(packed, torch.tensor([3, 9, -1, 0]), kernel="triton")
    assert torch.equal(found[[0, 3]], table[[3, 0]])
    assert found[1:3].isnan().all()


def test_int32_ids_equal_int64_ids():
    packed, table = packed_case(9, 17, 3)
    ids = ids_of(packed, 5)
    assert torch.equal(packed_embedding(ids.int(), packed), table[ids])


@pytest.mark.parametrize("ragged", [False, True])
def test_telling_scores_changes_no_bit_of_training(ragged):
    packed, _ = packed_case(30, 40, 7, ragged)
    ids, ends = ids_of(packed, 200), []
    for scores in (None, lambda rows: None):
        mine = training(packed)
        optimizer = RowAdam([mine.values], lr=0.1)
        for step in range(3):
            found = packed_embedding(ids.roll(step)[:50], mine, scores=scores)
            (found.square() * torch.linspace(-1, 2, 40)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(mine.values.detach())
    assert torch.equal(*ends)


def test_what_stands_once_is_not_sorted_again(monkeypatch):
    """A ragged gradient holds each slot once: RowAdam takes it as it is, and sorts what does not rise."""
    seen = []
    monkeypatch.setattr(row_adam, "coalesce", lambda given: seen.append(given) or coalesce(given))
    packed, ids = training(packed_case(30, 40, 7, ragged=True)[0]), torch.tensor([4, 9, 4])
    optimizer = RowAdam([packed.values], lr=0.1)
    packed_embedding(ids, packed).sum().backward()
    optimizer.step()
    assert not seen
    packed_embedding(ids, packed).sum().backward()
    given = RowSparse.of(packed.values.grad)
    packed.values.grad = RowSparse(given.rows.flip(0), given.values.flip(0), given.num_rows).gradient()
    optimizer.step()
    assert seen


@pytest.mark.parametrize("ragged", [False, True])
def test_two_uses_of_a_table_add_up(ragged):
    packed, table = packed_case(9, 17, 3, ragged)
    packed, whole = training(packed), table.clone().requires_grad_()
    one, other = ids_of(packed, 6), ids_of(packed, 4, seed=8)
    (packed_embedding(one, packed).sum() + packed_embedding(other, packed).square().sum()).backward()
    (F.embedding(one, whole).sum() + F.embedding(other, whole).square().sum()).backward()
    expected = whole.grad[table != 0].view_as(packed.values)
    torch.testing.assert_close(dense_of(packed.values.grad), expected)


@pytest.mark.parametrize("ragged", [False, True])
def test_training_ends_where_the_masked_dense_table_ends(ragged):
    """Thirty steps of Adam on rows that were read; the dense table's gradient is masked (case 5)."""
    packed, table = packed_case(40, 20, 6, ragged)
    packed, whole = training(packed), torch.nn.Parameter(table.clone())
    packed_adam, dense_adam = (RowAdam([one], lr=0.05, weight_decay=0.1) for one in (packed.values, whole))
    target = torch.randn(40, 20, generator=torch.Generator().manual_seed(1))
    for step in range(30):
        ids = ids_of(packed, 25, seed=step)
        (packed_embedding(ids, packed) - target[ids]).square().sum().backward()
        (F.embedding(ids, whole, sparse=True) - target[ids]).square().sum().backward()
        rows = coalesce(whole.grad)
        rows.values.mul_(table[rows.rows] != 0)
        whole.grad = rows.gradient(coalesced=True)
        for optimizer in (packed_adam, dense_adam):
            optimizer.step()
            optimizer.zero_grad()
    assert not torch.equal(unpack(packed), table)
    torch.testing.assert_close(unpack(packed), whole.detach(), rtol=1e-5, atol=1e-5)


def repeated(packed, times):
    """Returns a table of so many times the rows."""
    shifts = torch.arange(times)[:, None] * packed.live
    ends = None if packed.offsets is None else (packed.offsets[1:] + shifts).flatten()
    offsets = None if ends is None else torch.cat([packed.offsets[:1], ends])
    columns = torch.cat([packed.columns] * times)
    return PackedRows(torch.cat([packed.values] * times), columns, packed.dim, offsets)


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_look_up_holds_rows_and_no_table(ragged, scored):
    rows, dim, slots, read = 200_000, 128, 6, 8000
    packed = training(repeated(packed_case(1000, dim, slots, ragged)[0], rows // 1000))
    ids = ids_of(packed, read)
    scores = (lambda gradient: None) if scored else None

    def run():
        packed_embedding(ids, packed, scores=scores).backward(torch.ones(1).expand(read, dim))

    run()
    packed.values.grad = None
    gc.collect()
    largest, peak = allocations(run)
    rows_read = read * dim * 4
    assert largest <= rows_read, "what forward returns"
    # Beside it indices and copies of slots, sums of a few rows; with scores the dense gradient of all once.
    assert peak <= (1.8 + scored) * rows_read < rows * dim * 4 / 5
