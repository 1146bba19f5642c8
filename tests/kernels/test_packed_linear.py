"""The full softmax over a packed table: loss and gradients of the masked dense one, growth scores, memory."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import PackedRows, linear_cross_entropy, packed_linear_cross_entropy, unpack
from packed_cases import dense_of, packed_case
from test_memory import allocations

SHAPES = [(1, 17, 1), (40, 17, 3), (300, 64, 13), (33, 257, 140), (40, 16, 16)]


def case(rows=40, dim=17, slots=3, ragged=False, states=29, dtype=torch.float64, device="cpu"):
    """Returns a packed table and hidden states that take gradients, and targets of which two are ignored."""
    packed, _ = packed_case(rows, dim, slots, ragged, dtype=dtype, device=device)
    draw = torch.Generator().manual_seed(7)
    hidden = torch.randn(states, dim, generator=draw, dtype=torch.float64).to(device, dtype).requires_grad_()
    targets = torch.randint(rows, (states,), generator=draw).to(device)
    targets[[0, 3]] = -100
    return dataclasses.replace(packed, values=packed.values.requires_grad_()), hidden, targets


def dense_twin(packed, hidden):
    """Returns the masked table and states in float64, for autograd, and which numbers are slots."""
    ones = dataclasses.replace(packed, values=torch.ones_like(packed.values))
    table = unpack(packed).detach().double().requires_grad_()
    return table, hidden.detach().double().requires_grad_(), unpack(ones).bool()


@pytest.mark.parametrize("chunk_bytes", [None, 6000, 1])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("rows", "dim", "slots"), SHAPES)
def test_loss_and_gradients_are_those_of_the_masked_dense_table(
    rows, dim, slots, ragged, chunk_bytes, device
):
    packed, hidden, targets = case(rows, dim, slots, ragged, device=device)
    weights = torch.rand(len(hidden), generator=torch.Generator().manual_seed(1)).double().to(device)
    told = []
    loss = packed_linear_cross_entropy(
        hidden,
        packed,
        targets,
        temperature=0.7,
        row_weights=weights,
        normalizer=50,
        scores=told.append,
        chunk_bytes=chunk_bytes,
    )
    table, states, mask = dense_twin(packed, hidden)
    each = F.cross_entropy(states @ table.T / 0.7, targets, reduction="none", ignore_index=-100)
    expected = (each * weights).sum() / 50
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-12)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(hidden.grad, states.grad, rtol=1e-6, atol=1e-12)
    assert packed.values.grad.layout == torch.strided
    of_slots = table.grad[mask].view_as(packed.values)
    torch.testing.assert_close(packed.values.grad, of_slots, rtol=1e-6, atol=1e-12)
    assert torch.cat([one.rows for one in told]).tolist() == list(range(rows))
    torch.testing.assert_close(sum(map(dense_of, told)), table.grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("ragged", [False, True])
def test_float32_is_as_good_as_the_loss_over_a_dense_table(ragged, device):
    packed, hidden, targets = case(2000, 64, 13, ragged, dtype=torch.float32, device=device)
    table, states, mask = dense_twin(packed, hidden)
    loss = packed_linear_cross_entropy(hidden, packed, targets, chunk_bytes=1 << 16)
    expected = linear_cross_entropy(states, table, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(hidden.grad.double(), states.grad, rtol=1e-4, atol=1e-7)
    at_slots = table.grad[mask].view_as(packed.values)
    torch.testing.assert_close(packed.values.grad.double(), at_slots, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_are_those_of_the_loss_over_a_dense_table(reduction):
    packed, hidden, targets = case()
    table, states, _ = dense_twin(packed, hidden)
    found = packed_linear_cross_entropy(hidden, packed, targets, reduction=reduction)
    torch.testing.assert_close(found, linear_cross_entropy(states, table, targets, reduction=reduction))


def test_under_autocast_operands_are_rounded_and_the_softmax_is_not(device):
    packed, hidden, targets = case(dtype=torch.float32, device=device)
    table, _, _ = dense_twin(packed, hidden)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        found = packed_linear_cross_entropy(hidden, packed, targets)
    rounded = hidden.detach().bfloat16().double(), table.detach().bfloat16().double()
    torch.testing.assert_close(found.double(), linear_cross_entropy(*rounded, targets), rtol=1e-5, atol=0)
    assert found.dtype == torch.float32
    found.backward()
    assert packed.values.grad.dtype == hidden.grad.dtype == torch.float32


def test_a_small_loss_keeps_its_digits():
    packed, hidden, targets = case(dtype=torch.float32)
    packed, hidden = dataclasses.replace(packed, values=packed.values.detach() * 0), hidden.detach() * 0
    packed.values[:, 0] = 30
    hidden[:] = unpack(packed)[targets.clamp(min=0)] / 30
    table, states, _ = dense_twin(packed, hidden)
    found = packed_linear_cross_entropy(hidden, packed, targets, reduction="none")
    expected = linear_cross_entropy(states, table, targets, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-16)


def test_what_an_ignored_row_holds_changes_nothing():
    packed, hidden, targets = case()
    kept = hidden.detach().clone()
    with torch.no_grad():
        hidden[0] = torch.nan
    loss = packed_linear_cross_entropy(hidden, packed, targets)
    assert loss == packed_linear_cross_entropy(kept, packed, targets)
    loss.backward()
    assert packed.values.grad.isfinite().all()
    assert not hidden.grad[0].any()


def test_no_rows_with_a_target_have_no_loss_and_no_gradient():
    packed, hidden, targets = case()
    packed_linear_cross_entropy(hidden, packed, torch.full_like(targets, -100)).backward()
    assert not packed.values.grad.any()
    assert not hidden.grad.any()
    assert packed_linear_cross_entropy(hidden[:0], packed, targets[:0]) == 0


def test_a_row_without_slots_is_an_item_of_zeros():
    offsets = torch.tensor([0, 0, 2, 2])
    values = torch.randn(2, 1, dtype=torch.float64)
    packed = PackedRows(values.requires_grad_(), torch.tensor([1, 3], dtype=torch.uint8), 5, offsets)
    hidden = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([0, 1, 2, 2])
    loss = packed_linear_cross_entropy(hidden, packed, targets, chunk_bytes=1)
    table, states, mask = dense_twin(packed, hidden)
    expected = F.cross_entropy(states @ table.T, targets)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(packed.values.grad[:, 0], table.grad[mask])


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_neither_pass_holds_the_table_or_its_logits(ragged, scored):
    items, dim, states, room = 20_000, 64, 300, 1 << 18
    packed, hidden, targets = case(items, dim, 3, ragged, states=states, dtype=torch.float32)

    def run():
        scores = (lambda rows: None) if scored else None
        packed_linear_cross_entropy(hidden, packed, targets, scores=scores, chunk_bytes=room).backward()

    run()
    hidden.grad = packed.values.grad = None
    largest, peak = allocations(run)
    gradient = packed.live * 4
    assert largest <= max(gradient, room) < items * dim * 4 / 10
    # Gradients, states as they are multiplied, and a block; ragged ones look their slots up.
    assert peak < gradient + 6 * states * dim * 4 + 2 * room < items * dim * 4 / 4


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"hidden": torch.zeros(29, 5)}, ValueError, r"hidden must be \[M, 17\]"),
        ({"hidden": torch.zeros(29, 17).long()}, TypeError, "floats"),
        ({"targets": torch.zeros(3).long()}, ValueError, r"targets must be \[M\] with M = 29"),
        ({"targets": torch.full((29,), 40)}, IndexError, r"outside \[0, 40\)"),
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"reduction": "none", "normalizer": 3}, ValueError, "normalizer"),
        ({"row_weights": torch.ones(2)}, ValueError, "row_weights"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(change, error, says):
    packed, hidden, targets = case()
    with pytest.raises(error, match=says):
        packed_linear_cross_entropy(**{"hidden": hidden, "packed": packed, "targets": targets, **change})
