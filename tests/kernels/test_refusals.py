"""Whatever is passed for an argument is taken as meant, or refused by its name: no loss guesses or leaks."""

import copy

import numpy as np
import pytest
import torch
from effrec_kernels import (
    AdamRule,
    KernelUnavailable,
    Moments,
    RowAdam,
    adam_rows_,
    binary_cross_entropy_sampled,
    coalesce,
    draw_negatives,
    gbce,
    gbce_beta,
    linear_cross_entropy,
    mixed_log_q,
    popularity,
    sampled_cross_entropy,
    sampled_cross_entropy_dense,
    scalable_cross_entropy,
    which_kernel,
)
from effrec_kernels.looks import check_numbers
from kernel_cases import make_case

FLOAT, BOOL, NAME, TENSOR = 1.5, True, "3", torch.tensor(3)
WHOLE = [
    "num_negatives",
    "in_batch",
    "seed",
    "step",
    "row_offset",
    "sharing_stride",
    "ignore_index",
    "chunk_bytes",
]
FAR = {
    "chunk_bytes": 2**70,
    "row_offset": 2**63 - 33,
    "seed": 2**63,
    "ignore_index": -(2**63) - 1,
    "sharing": 2**31,
}


@pytest.mark.parametrize("value", [FLOAT, BOOL, NAME, TENSOR], ids=["float", "bool", "name", "tensor"])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_not_guessed(name, value):
    options = {"num_negatives": 4, "sharing": 2, name: value}
    kind = (
        "row_offset must be a number or int64" if (name, value) == ("row_offset", TENSOR) else "whole number"
    )
    with pytest.raises((TypeError, ValueError), match=f"{name} must be a whole number|{kind}"):
        sampled_cross_entropy(*make_case().tensors, **options)


@pytest.mark.parametrize("name", FAR)
def test_numbers_too_far_out(name):
    with pytest.raises(ValueError, match=f"{name} must (fit a signed 64-bit integer|be from)"):
        sampled_cross_entropy(*make_case().tensors, num_negatives=4, **{name: FAR[name]})


@pytest.mark.parametrize("kernel", ["torch", "reference"])
def test_integers_of_numpy_are_integers(kernel):
    case = make_case()
    options = {"num_negatives": 4, "seed": 5, "step": 2, "sharing": 4, "sharing_stride": 3, "in_batch": 1}
    options |= {"row_offset": 7, "ignore_index": -100, "chunk_bytes": 1 << 20}
    plain = sampled_cross_entropy(*case.tensors, kernel=kernel, **options)
    numpys = {name: np.int64(value) for name, value in options.items()}
    numpys["temperature"] = np.float32(1)
    assert torch.equal(sampled_cross_entropy(*case.tensors, kernel=kernel, **numpys), plain)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel": "tritn"}, ValueError, "kernel must be one of .*; did you mean 'triton'"),
        ({"sampler": "popularty"}, ValueError, "sampler must be one of .*; did you mean 'popularity'"),
        ({"correction": "exakt"}, ValueError, "did you mean 'exact'"),
        ({"sharing": "rows"}, ValueError, "number of rows or a tensor of boundaries.*did you mean 'row'"),
        ({"sharing": True}, ValueError, "sharing must be 'row', 'batch', a number of rows"),
        ({"temperature": "1"}, TypeError, "temperature must be a number, not '1'"),
        ({"temperature": np.ones(2)}, TypeError, "temperature must be a number"),
        ({"sharing": np.array([0, 33])}, ValueError, "sharing must be 'row', 'batch', a number of rows or a"),
        ({"seed": np.array([1])}, TypeError, "seed must be a whole number"),
        ({"deterministic": "no"}, TypeError, "deterministic must be True or False, not 'no'"),
        ({"sparse": 1, "sharing": 2}, TypeError, "sparse must be True or False, not 1"),
        ({"return_lse": "no"}, TypeError, "return_lse must be True or False, not 'no'"),
        ({"temperature": torch.tensor(1.0, requires_grad=True)}, TypeError, "divide hidden by it"),
        ({"rng_state": [1, 2]}, TypeError, "rng_state must be a tensor, not list"),
        ({"row_weights": [1.0] * 33}, TypeError, "row_weights must be a tensor, not list"),
        ({"row_weights": torch.ones(33) * 1j}, TypeError, "row_weights must be real"),
        ({"row_weights": torch.ones(33, device="meta")}, ValueError, "row_weights is on meta, hidden on cpu"),
        ({"row_offset": torch.arange(33, device="meta")}, ValueError, "row_offset is on meta, hidden on cpu"),
        ({"num_negatives": None, "negatives": [[1]] * 33}, TypeError, "negatives must be a tensor, not list"),
        (
            {"num_negatives": None, "negatives": torch.ones(33, 2, device="meta").long()},
            ValueError,
            "negatives is on meta, hidden on cpu",
        ),
        ({"normalizer": torch.ones(2)}, ValueError, r"tensor of no dimensions, not torch.float32 \[2\]"),
        ({"normalizer": -1}, ValueError, "normalizer must be finite and not negative, not -1"),
        ({"normalizer": float("nan")}, ValueError, "normalizer must be finite"),
        ({"normalizer": "5"}, TypeError, "normalizer must be a number"),
        ({"correction": "logq", "log_q": [0.0] * 1001}, TypeError, "log_q must be a tensor, not list"),
        (
            {"correction": "logq", "log_q": torch.zeros(1001, requires_grad=True)},
            TypeError,
            r"log_q is a constant and would not be trained: give log_q.detach\(\)",
        ),
    ],
)
def test_options_of_a_wrong_kind(options, error, message):
    with pytest.raises(error, match=message):
        sampled_cross_entropy(*make_case().tensors, **{"num_negatives": 4, **options})


LOSSES = {
    "sampled": lambda *tensors: sampled_cross_entropy(*tensors, num_negatives=3),
    "dense": lambda *tensors: sampled_cross_entropy_dense(*tensors, num_negatives=3),
    "linear": linear_cross_entropy,
    "binary": lambda *tensors: binary_cross_entropy_sampled(*tensors, num_negatives=3),
    "gbce": lambda *tensors: gbce(*tensors, num_negatives=3),
    "sce": scalable_cross_entropy,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden": None}, TypeError, "hidden must be a tensor, not NoneType"),
        ({"items": torch.nn.Embedding(9, 16)}, TypeError, "not Embedding; give its weight"),
        (
            {"items": torch.eye(16).to_sparse()},
            TypeError,
            "items must be a dense tensor, not torch.sparse_coo",
        ),
        ({"targets": np.zeros(33, dtype=np.int64)}, TypeError, "targets must be a tensor, not ndarray"),
        ({"hidden": torch.zeros(33, 0), "items": torch.zeros(9, 0)}, ValueError, "same D of 1 or more"),
    ],
)
def test_what_is_no_tensor_of_that_kind(loss, change, error, message):
    case = make_case()
    given = {"hidden": case.hidden, "items": case.items, "targets": case.targets, **change}
    with pytest.raises(error, match=message):
        loss(*given.values())


def test_an_id_outside_is_not_excused_where_nothing_excuses_it():
    with pytest.raises(IndexError, match=r"ids holds 2 ids outside \[0, 9\), the first is 9$"):
        check_numbers("ids", torch.tensor([3, 9, -100]), 9)


def test_sparse_gradients_want_a_leaf_and_sparse_tensors():
    case = make_case()
    table = case.items.clone().requires_grad_()
    with pytest.raises(ValueError, match="items to be a parameter itself"):
        sampled_cross_entropy(
            case.hidden, table[:500], case.targets % 500, num_negatives=3, sharing=4, sparse=True
        )
    with pytest.raises(TypeError, match="gradient must be a torch"):
        coalesce(torch.zeros(3, 2))


def test_a_cuda_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert which_kernel("auto", "cuda") == "torch"
    with pytest.raises(KernelUnavailable, match="no CUDA device"):
        which_kernel("triton", "cuda")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 10, 0.5), ValueError, "num_negatives must be at least 1"),
        ((5, 0, 0.5), ValueError, "num_items must be at least 1"),
        ((5.0, 10, 0.5), TypeError, "num_negatives must be a whole number"),
        ((5, 10, 3), ValueError, r"t must be in \[0, 1\], not 3"),
    ],
)
def test_a_beta_of_nothing(arguments, error, message):
    with pytest.raises(error, match=message):
        gbce_beta(*arguments)


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        (torch.arange(3.0), {}, TypeError, r"rows must be int64 \[M\], not torch.float32"),
        ([1, 2], {}, TypeError, "rows must be a tensor"),
        (torch.arange(3), {"seed": 1.9}, TypeError, "seed must be a whole number, not 1.9"),
        (torch.arange(3), {"step": 1.9}, TypeError, "step must be a whole number, not 1.9"),
    ],
)
def test_draws_of_nothing(rows, options, error, message):
    with pytest.raises(error, match=message):
        draw_negatives(rows, 4, 10, **{"seed": 0, "step": 0, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_buckets": 2.5}, TypeError, "num_buckets must be a whole number"),
        ({"row_offset": 1.5}, TypeError, "row_offset must be a whole number"),
        ({"row_offset": torch.zeros(33)}, ValueError, r"row_offset must be a number or int64 \[M\]"),
        ({"row_offset": torch.arange(32)}, ValueError, r"row_offset must be a number or int64 \[M\]"),
        ({"seed": 1.9}, TypeError, "seed must be a whole number"),
        ({"mix": None}, TypeError, "mix must be True or False"),
    ],
)
def test_buckets_of_nothing(options, error, message):
    with pytest.raises(error, match=message):
        scalable_cross_entropy(*make_case().tensors, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": float("nan")}, "lr must be finite"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"betas": (0.9, 0.99, 0.999)}, "betas must be two numbers"),
    ],
)
def test_an_optimizer_out_of_range(options, message):
    table = torch.nn.Parameter(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=message):
        RowAdam([table], **options)
    with pytest.raises(ValueError, match=message):
        RowAdam([{"params": [table], **options}])


def test_moving_rows_by_a_dense_gradient():
    table = torch.zeros(3, 2)
    rule = AdamRule(1.0, (0.9, 0.999), 1e-8, 0.0, False)
    with pytest.raises(TypeError, match="gradient must be a RowSparse"):
        adam_rows_(table, Moments.of(table), torch.ones(3, 2), rule)


def test_a_group_that_is_refused_is_not_added():
    moving = RowAdam([torch.nn.Parameter(torch.zeros(3, 2))])
    with pytest.raises(ValueError, match=r"tables \[V, D\]"):
        moving.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))]})
    with pytest.raises(ValueError, match="lr must be finite and not negative, not -5"):
        moving.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3, 2))], "lr": -5})
    assert len(moving.param_groups) == 1
    assert copy.deepcopy(moving)._kernel == "auto"


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match=r"in_batch must be a share of the slots in \[0, 1\]"):
        mixed_log_q(-3.0, torch.zeros(4), share)


@pytest.mark.parametrize(
    ("counts", "options", "error", "message"),
    [
        (torch.ones(3), {"power": float("nan")}, ValueError, "power must be finite, not nan"),
        (torch.ones(3), {"power": "1"}, TypeError, "power must be a number"),
        (torch.ones(3) * 1j, {}, TypeError, "counts must be real"),
        ([1, 2], {}, TypeError, "counts must be a tensor, not list"),
    ],
)
def test_counts_of_a_wrong_kind(counts, options, error, message):
    with pytest.raises(error, match=message):
        popularity(counts, **options)
