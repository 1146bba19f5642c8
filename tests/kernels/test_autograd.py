"""Derivatives: by differences, in part, twice, later, under checkpointing: cases 21, 22, 25 of the list."""

import pytest
import torch
from effrec_kernels import (
    binary_cross_entropy_sampled,
    chunks,
    evaluate,
    gbce,
    linear_cross_entropy,
    sampled_cross_entropy,
    sampled_cross_entropy_dense,
)
from effrec_kernels import picked as picked_module
from effrec_kernels import shared as shared_module
from kernel_cases import answer, make_case, oracle, relative, upstream_of
from torch.autograd import forward_ad, grad, gradcheck
from torch.utils.checkpoint import checkpoint

# Loss, and its options beside tensors. Ten items a row go by products with the whole table, 200 by gathers.
KERNELS = {
    "sampled": (sampled_cross_entropy, {"num_negatives": 6}),
    "full": (linear_cross_entropy, {}),
    "binary": (binary_cross_entropy_sampled, {"num_negatives": 6}),
    "gbce": (gbce, {"num_negatives": 6}),
    "tile": (sampled_cross_entropy, {"num_negatives": 6, "sharing": 3, "temperature": 0.8}),
    "batch": (sampled_cross_entropy, {"num_negatives": 6, "sharing": "batch", "correction": "logq"}),
}
CATALOGUES = [10, 200]


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch):
    monkeypatch.setattr(chunks, "FEW_SHARED_ROWS", 0)
    return KERNELS[request.param]


@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("chunk_bytes", [100, None])
def test_gradcheck(device, kernel, items, reduction, chunk_bytes):
    loss, options = kernel
    case = make_case(rows=5, items=items, dim=3, dtype=torch.float64, device=device)

    def of(hidden, table):
        return loss(
            hidden,
            table,
            case.targets,
            row_weights=case.weights,
            reduction=reduction,
            chunk_bytes=chunk_bytes,
            **options,
        )

    assert gradcheck(of, case.leaves(), fast_mode=items > 10)


@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("loss", [sampled_cross_entropy, linear_cross_entropy])
def test_gradcheck_of_loss_and_log_sum_exp_together(device, loss, items):
    case = make_case(rows=5, items=items, dim=3, dtype=torch.float64, device=device)
    options = {"num_negatives": 6} if loss is sampled_cross_entropy else {}

    def of(hidden, table):
        return loss(hidden, table, case.targets, return_lse=True, **options)

    assert gradcheck(of, case.leaves(), fast_mode=items > 10)
    assert gradcheck(lambda *leaves: of(*leaves)[1].square().sum(), case.leaves(), fast_mode=items > 10)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("items", CATALOGUES)
def test_only_what_is_asked_for_is_computed(device, monkeypatch, kernel, items, reduction):
    loss, options = kernel
    case = make_case(rows=20, items=items, device=device)
    upstream = torch.ones(20, device=device) if reduction == "none" else None
    both = answer(case, loss, upstream, reduction=reduction, **options)

    def of_one(wants_hidden):
        hidden, table = case.leaves()
        (table if wants_hidden else hidden).requires_grad_(False)
        loss(hidden, table, case.targets, reduction=reduction, **options).backward(upstream)
        return hidden.grad, table.grad

    def never(*_, **__):
        raise AssertionError("work for a gradient that no one asked for")

    with monkeypatch.context() as patch:
        patch.setattr(picked_module, "add_by_item", never)
        patch.setattr(shared_module, "add_by_item", never)
        of_hidden, nothing = of_one(True)
        assert nothing is None
        assert torch.equal(of_hidden, both[1])
    with monkeypatch.context() as patch:
        patch.setattr(picked_module, "row_mixtures", never)
        nothing, of_items = of_one(False)
        assert nothing is None
        assert torch.equal(of_items, both[2])


@pytest.mark.parametrize("how", ["no_grad", "inference", "constants"])
def test_without_gradients_there_is_a_loss_only(device, kernel, monkeypatch, how):
    loss, options = kernel
    case = make_case(device=device)
    expected = answer(case, loss, **options)[0]
    hidden, table = case.leaves() if how != "constants" else (case.hidden, case.items)
    for name in ("add_by_item", "row_mixtures", "push"):
        monkeypatch.delattr(picked_module, name)
    monkeypatch.delattr(shared_module, "add_by_item")
    mode = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(how, torch.enable_grad)
    with mode():
        value = loss(hidden, table, case.targets, **options)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_backward_twice_over_one_graph(device, kernel, reduction):
    loss, options = kernel
    case = make_case(device=device)
    hidden, table = case.leaves()
    value = loss(hidden, table, case.targets, reduction=reduction, **options).sum()
    value.backward(retain_graph=True)
    first = hidden.grad.clone(), table.grad.clone()
    hidden.grad.zero_()
    table.grad.zero_()
    value.backward()
    assert torch.equal(hidden.grad, first[0])
    assert torch.equal(table.grad, first[1])
    with pytest.raises(RuntimeError, match="second time"):
        value.backward()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivatives_are_refused(device, kernel, reduction):
    loss, options = kernel
    case = make_case(device=device)
    hidden, table = case.leaves()
    value = loss(hidden, table, case.targets, reduction=reduction, **options).square().sum()
    of_hidden, of_items = grad(value, (hidden, table), create_graph=True)
    for first in (of_hidden, of_items):
        with pytest.raises(RuntimeError, match="no second derivative"):
            grad(first.sum(), hidden, retain_graph=True)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_cross_derivatives_are_refused_too(device, kernel, reduction):
    """The gradient by one operand depends on the other: no silent zero there."""
    loss, options = kernel
    case = make_case(device=device)
    hidden, table = case.leaves()
    value = loss(hidden, table, case.targets, reduction=reduction, **options).sum()
    of_hidden, of_items = grad(value, (hidden, table), create_graph=True)
    for first, other in ((of_hidden, table), (of_items, hidden)):
        with pytest.raises(RuntimeError, match="no second derivative"):
            grad(first.sum(), other, retain_graph=True, allow_unused=True)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_forward_mode_is_refused_and_not_zero(device, kernel, reduction):
    loss, options = kernel
    case = make_case(device=device)

    def of(hidden, **more):
        return loss(hidden, case.items, case.targets, reduction=reduction, **options, **more)

    tangent = torch.ones_like(case.hidden)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(of, (case.hidden,), (tangent,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        of(forward_ad.make_dual(case.hidden, tangent))
    _, slope = torch.func.jvp(lambda hidden: of(hidden, kernel="reference"), (case.hidden,), (tangent,))
    hidden = case.hidden.clone().requires_grad_()
    of(hidden).sum().backward()
    assert slope.sum().item() == pytest.approx(hidden.grad.sum().item(), rel=1e-3)


def test_the_ways_out_have_second_derivatives(device):
    case = make_case(rows=5, dim=3, dtype=torch.float64, device=device)
    ways = [
        lambda *leaves: sampled_cross_entropy_dense(*leaves, case.targets, num_negatives=4),
        lambda *leaves: sampled_cross_entropy(*leaves, case.targets, num_negatives=4, kernel="reference"),
    ]
    found = []
    for way in ways:
        hidden, table = case.leaves()
        (first,) = grad(way(hidden, table), hidden, create_graph=True)
        found.append(grad(first.square().sum(), hidden)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_under_activation_checkpointing(device, kernel, reduction):
    loss, options = kernel
    case = make_case(device=device)
    plain = answer(
        case, loss, upstream_of(case) if reduction == "none" else None, reduction=reduction, **options
    )

    def checkpointed(hidden, table, targets):
        return checkpoint(
            lambda *leaves: loss(*leaves, targets, reduction=reduction, **options),
            hidden,
            table,
            use_reentrant=False,
        )

    again = answer(case, checkpointed, upstream_of(case) if reduction == "none" else None)
    assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))


def test_large_tables_take_gradients_in_backward(device, monkeypatch):
    case = make_case(device=device)
    held = answer(case, sampled_cross_entropy, num_negatives=6)
    monkeypatch.setattr(evaluate, "HELD_TABLE_BYTES", 0)
    monkeypatch.setattr(evaluate, "loss_sum", None)
    later = answer(case, sampled_cross_entropy, num_negatives=6)
    assert all(relative(*pair) < 1e-6 for pair in zip(later, held, strict=True))


def test_row_weights_take_gradients_too(device):
    case = make_case(device=device)
    weights = case.weights.requires_grad_()
    sampled_cross_entropy(
        *case.tensors, negatives=case.negatives, row_weights=weights, reduction="sum"
    ).backward()
    rows, _, _ = oracle(case, torch.ones(33, device=device))
    torch.testing.assert_close(weights.grad.double(), rows, rtol=1e-5, atol=1e-6)


def test_the_log_sum_exp_is_that_of_the_oracle(device):
    case = make_case(device=device)
    for full in (False, True):
        loss = linear_cross_entropy if full else sampled_cross_entropy
        options = {} if full else {"negatives": case.negatives}
        value, lse = loss(*case.tensors, return_lse=True, **options)
        expected, true = loss(*case.tensors, return_lse=True, kernel="reference", **options)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(lse, true)
        assert (lse[case.targets == -100] == 0).all()


@pytest.mark.parametrize("items", [30, 400])
def test_a_hundred_steps_with_a_tied_table_end_where_plain_pytorch_ends(device, items):
    """Input embedding and head share the table: both gradients meet, step after step (float64)."""
    case = make_case(rows=30, items=items, dim=6, dtype=torch.float64, device=device)
    inputs = case.negatives[:, 0]
    ends = []
    for loss in (sampled_cross_entropy, sampled_cross_entropy_dense):
        table = (case.items * 0.3).requires_grad_()
        optimizer = torch.optim.Adam([table], lr=0.01)
        for step in range(100):
            optimizer.zero_grad()
            loss(table[inputs].tanh(), table, case.targets, num_negatives=5, step=step).backward()
            optimizer.step()
        ends.append(table.detach())
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("items", CATALOGUES)
def test_twenty_runs_give_the_same_bits(device, kernel, items):
    """All rows share one id, so the order of sums would show."""
    if device.type == "cuda" and items == 10:
        pytest.skip("scatter-add of a row's duplicates is unordered on CUDA")
    loss, options = kernel
    case = make_case(rows=200, items=items, device=device)
    case.targets[:] = 3
    first = answer(case, loss, **options)
    for _ in range(19):
        again = answer(case, loss, **options)
        assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
