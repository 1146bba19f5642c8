"""Under `torch.compile` the losses are single operators: no graph break, dynamic sizes: case 27 in part."""

import pytest
import torch
from effrec_kernels import gbce, linear_cross_entropy, popularity, sampled_cross_entropy
from effrec_kernels.arguments import Form, Frame, Negatives, Stream, sampled_problem
from effrec_kernels.autograd import loss_rows, loss_sum
from kernel_cases import answer, make_case
from torch._dynamo.testing import CompileCounterWithBackend


@pytest.fixture(autouse=True)
def _forget_compilations():
    torch._dynamo.reset()


def training_loss(hidden, items, targets, step=0, row_offset=0):
    options = {"step": step, "row_offset": row_offset, "num_negatives": 6}
    rows, lse = sampled_cross_entropy(
        hidden * 1.5, items, targets, reduction="none", return_lse=True, **options
    )
    return (
        sampled_cross_entropy(hidden * 1.5, items, targets, **options)
        + linear_cross_entropy(hidden.tanh(), items, targets, row_weights=targets.clamp(min=0) * 0.01)
        + gbce(hidden, items, targets, **options)
        + (rows + lse).sum()
    )


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_no_graph_break_and_the_same_numbers(device, backend):
    compiled = torch.compile(training_loss, backend=backend, fullgraph=True)
    case = make_case(device=device)
    plain, same = answer(case, training_loss), answer(case, compiled)
    assert all(torch.equal(*pair) for pair in zip(plain, same, strict=True))


def test_rows_and_steps_change_without_compiling_again(device):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(training_loss, backend=counter, fullgraph=True)
    counts = []
    for step, rows in enumerate([33, 40, 27, 50, 21]):
        case = make_case(rows=rows, device=device)
        options = {"step": step, "row_offset": torch.arange(rows, device=device)}
        plain, same = answer(case, training_loss, **options), answer(case, compiled, **options)
        assert all(torch.equal(*pair) for pair in zip(plain, same, strict=True))
        counts.append(counter.frame_count)
    assert counts[2] == counts[-1], f"compiled again at each size or step: {counts}"


def test_sharing_samplers_and_a_state_in_a_compiled_function(device):
    """The state is a tensor, so that a step needs no new graph; tables and boundaries are tensors too."""
    counter = CompileCounterWithBackend("aot_eager")
    case = make_case(device=device)
    table = popularity(torch.arange(1001, device=device))
    bounds = torch.tensor([0, 10, 33], device=device)

    def loss(hidden, items, targets, state):
        options = {"num_negatives": 6, "rng_state": state, "reduction": "sum"}
        return (
            sampled_cross_entropy(hidden, items, targets, sharing=4, sharing_stride=3, **options)
            + sampled_cross_entropy(hidden, items, targets, sharing=bounds, temperature=0.5, **options)
            + sampled_cross_entropy(
                hidden,
                items,
                targets,
                sharing="batch",
                sampler=table,
                in_batch=2,
                correction="logq",
                **options,
            )
        )

    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    for step in range(3):
        state = torch.tensor([5, step], device=device)
        plain, same = answer(case, loss, state=state), answer(case, compiled, state=state)
        assert all(torch.equal(*pair) for pair in zip(plain, same, strict=True))
    assert counter.frame_count == 1


def test_autocast_inside_a_compiled_function(device):
    def loss(hidden, items, targets):
        with torch.autocast(device.type, torch.bfloat16):
            return sampled_cross_entropy(hidden, items, targets, num_negatives=6)

    case = make_case(device=device)
    plain = answer(case, loss)
    same = answer(case, torch.compile(loss, backend="aot_eager", fullgraph=True))
    assert all(torch.equal(*pair) for pair in zip(plain, same, strict=True))


@pytest.mark.slow
def test_inductor():
    compiled = torch.compile(training_loss, fullgraph=True)
    case = make_case()
    plain, same = answer(case, training_loss), answer(case, compiled)
    for one, other in zip(plain, same, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sharing", ["row", 4])
def test_operators_keep_pytorchs_contract(device, sharing):
    case = make_case(rows=9, dim=4, device=device)
    hidden, items = case.leaves()
    problem = sampled_problem(
        hidden,
        items,
        case.targets,
        Negatives(5, None, Stream(1, 2), sharing=sharing),
        Form("exact"),
        Frame(),
    )
    torch.library.opcheck(loss_rows, tuple(problem.flat()))
    torch.library.opcheck(loss_sum, (*problem.flat(), case.weights, True, True))
