"""The Triton kernels as operators: compiled without a break, and asked for no more than is wanted."""

import dataclasses

import pytest
import torch
from effrec_kernels import linear_cross_entropy, sampled_cross_entropy
from kernel_cases import make_case, relative

pytest.importorskip("triton")

SHARINGS = [{}, {"sharing": 8}, {"sharing": "batch"}]
NAMES = ["row", "tile", "batch"]


@pytest.mark.parametrize("sharing", SHARINGS, ids=NAMES)
def test_compiled_without_a_break_and_for_any_number_of_rows(device, sharing):
    options = {"num_negatives": 9, "kernel": "triton", **sharing}

    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def compiled(hidden, items, targets):
        return sampled_cross_entropy(hidden, items, targets, **options)

    for rows in (17, 33):
        case = make_case(rows=rows, device=device)
        one, other = case.leaves(), case.leaves()
        compiled(*one, case.targets).backward()
        sampled_cross_entropy(*other, case.targets, **options).backward()
        for compiled_leaf, leaf in zip(one, other, strict=True):
            assert relative(compiled_leaf.grad, leaf.grad) <= 1e-5


def test_only_what_is_wanted_is_computed(device, monkeypatch):
    """Without gradients no kernel writes any; with one of them only its kernels run."""
    from effrec_kernels.triton_kernels import items as items_module
    from effrec_kernels.triton_kernels import launch as launch_module

    launched = []
    for module in (launch_module, items_module):
        real = module.launch

        def noted(kernel, grid, blocks, arguments, real=real):
            launched.append((kernel.__name__, arguments.get("unit") is not None))
            real(kernel, grid, blocks, arguments)

        monkeypatch.setattr(module, "launch", noted)
    case = make_case(rows=9, dim=8, device=device)
    expected = {
        (False, False): [("rows_forward", False)],
        (True, False): [("rows_forward", True), ("hidden_backward", True)],
        (False, True): [("rows_forward", False), ("rows_backward", False)],
    }
    for wanted, kernels in expected.items():
        launched.clear()
        hidden, items = (leaf.requires_grad_(want) for leaf, want in zip(case.leaves(), wanted, strict=True))
        loss = sampled_cross_entropy(hidden, items, case.targets, num_negatives=5, kernel="triton")
        if any(wanted):
            loss.backward()
        assert launched == kernels


def test_backward_twice_later_and_never_by_itself(device):
    case = make_case(rows=9, dim=8, device=device)
    hidden, items = case.leaves()
    loss = sampled_cross_entropy(hidden, items, case.targets, num_negatives=5, kernel="triton")
    loss.backward(retain_graph=True)
    once = hidden.grad.clone(), items.grad.clone()
    loss.backward()
    torch.testing.assert_close((hidden.grad, items.grad), (2 * once[0], 2 * once[1]))
    loss = sampled_cross_entropy(hidden, items, case.targets, num_negatives=5, kernel="triton")
    (of_hidden,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        of_hidden.sum().backward()


def test_reductions_weights_and_autocast(device):
    case = make_case(rows=17, dim=16, device=device)
    for options in ({"reduction": "sum"}, {"row_weights": case.weights}, {"normalizer": 5.0}):
        found = []
        for kernel in ("triton", "torch"):
            hidden, items = case.leaves()
            sampled_cross_entropy(
                hidden, items, case.targets, num_negatives=7, kernel=kernel, **options
            ).backward()
            found.append((hidden.grad, items.grad))
        assert all(relative(*pair) <= 1e-5 for pair in zip(*found, strict=True))
    with torch.autocast(device.type, torch.float16):
        hidden, items = case.leaves()
        loss = linear_cross_entropy(hidden, items, case.targets, kernel="triton")
        loss.backward()
    assert loss.dtype == hidden.grad.dtype == items.grad.dtype == torch.float32


def test_a_problem_comes_through_an_operators_arguments():
    """Operators take problems apart by position, and each attribute is put back in its place."""
    from effrec_kernels.problem import PROBLEM_SCHEMA, PROBLEM_SIZE, Problem

    values = {
        field.name: VALUES[str(field.type)](place) for place, field in enumerate(dataclasses.fields(Problem))
    }
    problem = Problem(**values)
    flat = problem.flat()
    assert len(flat) == PROBLEM_SIZE == PROBLEM_SCHEMA.count(", ") + 1
    assert vars(Problem.of([*flat, "behind it"])) == values
    assert flat[:2] == [values["hidden"], values["items"]], "derivatives are by these"


VALUES = {
    "Tensor": lambda place: f"tensor {place}",
    "Tensor | None": lambda place: None if place % 2 else f"tensor {place}",
    "torch.dtype": lambda place: torch.float16,
    "int": int,
    "str": str,
    "float": float,
    "bool": lambda place: place % 2 == 0,
}
