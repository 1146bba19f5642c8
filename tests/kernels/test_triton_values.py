"""The Triton kernels against the oracle: in the interpreter on a CPU, compiled on a GPU, in one file."""

import dataclasses
from functools import partial

import pytest
import torch
from effrec_kernels import linear_cross_entropy, popularity, reference, sampled_cross_entropy
from effrec_kernels.binary import binary_cross_entropy_sampled, gbce
from kernel_cases import answer, check, make_case, relative, upstream_of

pytest.importorskip("triton")

KEY = {"seed": -9, "step": 4}
HALF = (torch.float16, torch.bfloat16)


def both(case, loss_function, **options):
    """Returns (loss, gradients) of the Triton kernel and of the oracle, for uneven upstream gradients."""
    answers = []
    for kernel, double in (("triton", False), ("reference", True)):
        leaves = [tensor.detach().clone() for tensor in (case.hidden, case.items)]
        leaves = [(leaf.double() if double else leaf).requires_grad_() for leaf in leaves]
        loss = loss_function(*leaves, case.targets, reduction="none", kernel=kernel, **options)
        loss.backward(upstream_of(case).to(loss.dtype))
        answers.append((loss.detach(), leaves[0].grad, leaves[1].grad))
    return answers


def check_both(case, loss_function=sampled_cross_entropy, **options):
    ours, true = both(case, loss_function, **options)
    dtype = case.hidden.dtype
    if dtype in HALF and not ours[0].is_cuda:
        # Triton's interpreter cuts digits off where a GPU rounds.
        assert relative(ours[0], true[0]) <= 1e-5
        assert max(relative(one, other) for one, other in zip(ours[1:], true[1:], strict=True)) <= 1e-2
    else:
        check(ours, true, dtype)


def spread_boundaries(device):
    return torch.tensor([3, 5, 5, 30], device=device)


# How rows get their negatives, by name.
DRAWS = {
    "row": {},
    "numbered rows": {"row_offset": "scattered"},
    "tile": {"sharing": 4, "sharing_stride": 3, "row_offset": 5},
    "tile before row 0": {"sharing": 4, "sharing_stride": 3, "row_offset": -7},
    "tile of rows far apart": {"sharing": 64, "sharing_stride": 1 << 26, "row_offset": (1 << 33) + 5},
    "large tile": {"sharing": 64},
    "sequence": {"sharing": "boundaries", "row_offset": 7},
    "batch": {"sharing": "batch"},
}
SAMPLERS = {
    "uniform": {},
    "block": {"sampler": "block"},
    "popularity": {"sampler": "popularity", "correction": "logq"},
    "in batch": {"in_batch": 6},
    "in batch, popularity": {"in_batch": 6, "sampler": "popularity", "correction": "logq"},
}


def options_of(*groups, device, items):
    """Returns the options with what stands for tensors replaced by tensors."""
    options = {key: value for group in groups for key, value in group.items()}
    if options.get("row_offset") == "scattered":
        options["row_offset"] = (torch.arange(33, device=device) * 7919) + (1 << 40)
    if options.get("sharing") == "boundaries":
        options["sharing"] = spread_boundaries(device)
    if options.get("sampler") == "popularity":
        options["sampler"] = popularity(torch.arange(items, device=device) % 17)
    return options


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("draw", DRAWS)
def test_every_way_to_share_and_to_draw(device, draw, sampler):
    case = make_case(dim=24, device=device)
    options = options_of(DRAWS[draw], SAMPLERS[sampler], device=device, items=len(case.items))
    check_both(case, num_negatives=21, **KEY, **options)


@pytest.mark.parametrize("draw", ["row", "tile"])
@pytest.mark.parametrize(
    ("correction", "dtype"),
    [
        *((correction, torch.float32) for correction in ("exact", "constant", "none", "logq")),
        ("exact", torch.float16),
        ("logq", torch.bfloat16),
        pytest.param("constant", torch.float16, marks=pytest.mark.slow),
        pytest.param("exact", torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_every_dtype_and_correction(device, draw, correction, dtype):
    case = make_case(items=40, dim=20, dtype=dtype, device=device)
    check_both(case, num_negatives=30, correction=correction, temperature=0.7, **KEY, **DRAWS[draw])


@pytest.mark.parametrize(
    ("rows", "negatives"),
    [
        *[(1, 17), (2, 1), (31, 65), (65, 2)],
        *(pytest.param(m, n, marks=pytest.mark.slow) for m in (1, 32, 33, 127) for n in (1, 15, 64, 511)),
    ],
)
@pytest.mark.parametrize("sharing", ["row", 16])
def test_any_number_of_rows_and_negatives(device, rows, negatives, sharing):
    case = make_case(rows=rows, items=101, dim=16, device=device)
    check_both(case, num_negatives=negatives, sharing=sharing, **KEY)


@pytest.mark.parametrize("dim", [1, 15, 50, 100, 128, 257, 300, 1030])
@pytest.mark.parametrize("sharing", ["row", 16])
def test_any_width(device, dim, sharing):
    case = make_case(rows=9, items=50, dim=dim, device=device)
    check_both(case, num_negatives=9, sharing=sharing, **KEY)


@pytest.mark.parametrize("items", [1, 2, 3, 65_537, (1 << 20) + 1])
@pytest.mark.parametrize("sharing", ["row", 16])
def test_any_catalogue(device, items, sharing):
    case = make_case(rows=9, items=items, dim=4, device=device)
    check_both(case, num_negatives=20, sharing=sharing, **KEY)


@pytest.mark.parametrize("sharing", ["row", 8])
def test_given_ids_with_unused_slots(device, sharing):
    case = make_case(rows=33, items=11, dim=16, device=device)
    sets = case.negatives if sharing == "row" else case.negatives[: -(-33 // 8)]
    sets = sets.clone()
    sets[:, ::4] = -100
    for ids in (sets, sets.int(), sets.t().contiguous().t()):
        check_both(case, negatives=ids, sharing=sharing)


@pytest.mark.parametrize("sharing", ["row", 8])
def test_rows_of_nothing_but_hits(device, sharing):
    """A catalogue of one item has no other: loss and gradients are exactly zero."""
    case = make_case(rows=9, items=1, dim=16, device=device)
    hidden, items = case.leaves()
    loss = sampled_cross_entropy(
        hidden, items, case.targets, num_negatives=5, sharing=sharing, kernel="triton", reduction="none"
    )
    loss.sum().backward()
    assert not loss.any()
    assert not hidden.grad.any()
    assert not items.grad.any()


@pytest.mark.parametrize("sharing", ["row", 8])
def test_strides_slices_and_padding(device, sharing):
    """States and table need not be contiguous, and nothing that rows without a target hold leaks."""
    case = make_case(rows=33, dim=24, device=device)
    wide = torch.full((33, 50), float("nan"), device=device)
    wide[:, 1:49:2] = case.hidden
    padded = torch.cat([case.items, torch.full((1, 24), float("nan"), device=device)]).t().contiguous().t()
    wide[case.targets == -100] = float("nan")
    plain, strided = case.leaves(), (wide.requires_grad_(), padded.requires_grad_())
    options = {"num_negatives": 9, "sharing": sharing, "kernel": "triton", **KEY}
    one = sampled_cross_entropy(*plain, case.targets, **options)
    other = sampled_cross_entropy(strided[0][:, 1:49:2], strided[1][:-1], case.targets, **options)
    one.backward()
    other.backward()
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(strided[0].grad[:, 1:49:2], plain[0].grad)
    torch.testing.assert_close(strided[1].grad[:-1], plain[1].grad)
    assert not strided[1].grad[-1].any()


@pytest.mark.parametrize("draw", ["numbered rows", "tile", "sequence"])
def test_vectors_with_strides(device, draw):
    """Targets, row numbers, boundaries and log q may be columns of matrices."""
    case = make_case(items=40, dim=8, device=device)
    options = options_of(DRAWS[draw], device=device, items=40)
    options |= {"log_q": -torch.rand(40, device=device), "correction": "logq", "num_negatives": 9, **KEY}
    apart = {
        name: torch.stack([value, value + 1], dim=1)[:, 0] if isinstance(value, torch.Tensor) else value
        for name, value in options.items()
    }
    column = dataclasses.replace(case, targets=torch.stack([case.targets, case.targets + 1], dim=1)[:, 0])
    whole = answer(case, sampled_cross_entropy, kernel="triton", **options)
    strided = answer(column, sampled_cross_entropy, kernel="triton", **apart)
    torch.testing.assert_close(strided, whole)


@pytest.mark.parametrize("sharing", ["row", 4])
def test_rows_without_a_target_are_not_drawn_whatever_marks_them(device, sharing):
    """A mark in [0, V) is the number of an item, which `in_batch` must not draw for it."""
    case = make_case(items=40, dim=8, device=device)
    case.targets[case.targets == 5] = 6
    case.targets[case.targets == -100] = 5
    check_both(case, num_negatives=12, in_batch=12, sharing=sharing, ignore_index=5, **KEY)


def test_no_rows_and_no_targets(device):
    case = make_case(rows=5, dim=8, device=device)
    for rows in (0, 5):
        hidden, items = case.leaves()
        targets = torch.full((rows,), -100, device=device)
        loss = sampled_cross_entropy(hidden[:rows], items, targets, num_negatives=3, kernel="triton")
        loss.backward()
        assert loss == 0
        assert not items.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("items", [2, 101])
def test_the_full_softmax(device, items, dtype):
    case = make_case(rows=70, items=items, dim=24, dtype=dtype, device=device)
    check_both(case, linear_cross_entropy)


BINARY = [("row", "uniform"), ("tile", "uniform"), ("sequence", "popularity"), ("batch", "in batch")]


@pytest.mark.parametrize(
    ("draw", "sampler"), [*BINARY, *(pytest.param("tile", kind, marks=pytest.mark.slow) for kind in SAMPLERS)]
)
def test_binary_losses(device, draw, sampler):
    """A sigmoid for each candidate, whoever shares negatives and whatever draws them; no correction."""
    case = make_case(items=40, dim=24, device=device)
    options = options_of(DRAWS[draw], SAMPLERS[sampler], device=device, items=len(case.items))
    options.pop("correction", None)
    for loss_function in (binary_cross_entropy_sampled, partial(gbce, t=0.75)):
        check_both(case, loss_function, num_negatives=21, temperature=0.7, **KEY, **options)


def test_the_log_sum_exp_is_differentiable(device):
    case = make_case(device=device)
    grads = []
    for kernel in ("triton", "reference"):
        hidden, items = case.leaves()
        loss, lse = sampled_cross_entropy(
            hidden,
            items,
            case.targets,
            num_negatives=9,
            reduction="none",
            return_lse=True,
            kernel=kernel,
            **KEY,
        )
        (loss.sum() + (lse * upstream_of(case)).sum()).backward()
        grads.append((hidden.grad, items.grad))
    for one, other in zip(*grads, strict=True):
        assert relative(one, other) <= 5e-5


@pytest.mark.parametrize("draw", ["row", "tile"])
def test_a_float32_table_under_16_bit_states_gets_a_fine_gradient(device, draw):
    # The interpreter cuts digits of bfloat16 off.
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float16
    case = make_case(dim=32, device=device)
    hidden = case.hidden.to(dtype)
    table = case.items.clone().requires_grad_()
    options = {"num_negatives": 20, **KEY, **DRAWS[draw]}
    sampled_cross_entropy(hidden, table, case.targets, kernel="triton", **options).backward()
    exact = case.items.to(dtype).double().requires_grad_()
    sampled_cross_entropy(hidden.double(), exact, case.targets, kernel="reference", **options).backward()
    assert table.grad.dtype == torch.float32
    assert relative(table.grad, exact.grad) <= 1e-4


@pytest.mark.parametrize("sharing", ["row", 16])
def test_large_logits_and_small_losses(device, sharing):
    for scale in (1e-3, 30.0, 200.0):
        case = make_case(rows=17, items=30, dim=16, device=device)
        case.hidden = case.hidden * scale
        check_both(case, num_negatives=12, sharing=sharing, **KEY)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_fixed_order_gives_the_same_values(device, draw):
    """Also where the workspace holds only a few rows at a time."""
    case = make_case(dim=24, device=device)
    options = options_of(DRAWS[draw], device=device, items=len(case.items))
    for room in (None, 4000):
        check_both(case, num_negatives=21, deterministic=True, chunk_bytes=room, **KEY, **options)


def test_ranks_and_micro_batches_add_up(device):
    """Rows draw by their global number: two halves give what the whole gives, for each way to share."""
    case = make_case(rows=32, dim=16, device=device)
    for sharing in ({}, {"sharing": 4, "sharing_stride": 3}):
        whole, parts = case.leaves(), case.leaves()
        options = {"num_negatives": 9, "reduction": "sum", "kernel": "triton", **KEY, **sharing}
        sampled_cross_entropy(*whole, case.targets, **options).backward()
        for low, high in ((0, 13), (13, 32)):
            rows = parts[0][low:high], parts[1], case.targets[low:high]
            sampled_cross_entropy(*rows, row_offset=low, **options).backward()
        torch.testing.assert_close(parts[0].grad, whole[0].grad)
        torch.testing.assert_close(parts[1].grad, whole[1].grad)


def test_the_oracle_is_not_ours():
    """The tests above compare with functions that share no code with the kernels."""
    assert "triton" not in vars(reference)
