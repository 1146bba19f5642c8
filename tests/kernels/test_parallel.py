"""A catalogue spread over ranks: two and three processes with uneven slices equal one with the table."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from effrec_kernels import (
    sampled_cross_entropy,
    vocab_parallel_cross_entropy,
    vocab_parallel_embedding,
    vocab_parallel_range,
)
from effrec_kernels.arguments import Form, Frame, Negatives, Stream, full_problem, sampled_problem
from effrec_kernels.candidates import Packing
from effrec_kernels.compute import compute
from effrec_kernels.meeting import Slice, check_slices
from effrec_kernels.objectives import Upstream
from effrec_kernels.parts import Sums
from effrec_kernels.slices import slice_of
from kernel_cases import make_case, relative
from parallel_cases import CASES, data_of, one_process, options_of, parts, run
from parallel_faults import FAULTS, LOOK_UP_FAULTS
from parallel_model import Whole, toy_batch, train
from torch.nn.functional import embedding

HERE = Path(__file__).parent


def start(folder, size, task):
    """Returns what each of `size` ranks has found."""
    paths = [str(HERE), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, HERE / "parallel_rank.py", folder]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(size), task], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    try:
        for rank, process in enumerate(ranks):
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, f"rank {rank}: {said[-3000:]}"
    finally:
        for process in ranks:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, tmp_path_factory):
    return start(tmp_path_factory.mktemp("ranks"), request.param, "quick")


@pytest.mark.parametrize("name", CASES)
def test_equals_one_process(ranks, name):
    setup, size = CASES[name], len(ranks)
    loss, lse, of_hidden, of_items = one_process(setup, size)
    found = [rank["values"][name] for rank in ranks]
    for (start, end), (own_loss, own_lse, own_of_hidden, _) in zip(parts(setup, size), found, strict=True):
        close(own_loss, loss if loss.dim() == 0 else loss[start:end], setup.bound)
        close(own_of_hidden, of_hidden[start:end], setup.bound)
        assert (lse is None) == (own_lse is None)
        if lse is not None:
            close(own_lse, lse[start:end], setup.bound)
    close(torch.cat([own[3] for own in found]), of_items, setup.bound)


def close(found, true, bound):
    assert found.shape == true.shape
    assert found.dtype == true.dtype
    assert torch.isfinite(found).all()
    assert relative(found, true) <= bound if true.any() else not found.any()


def test_cases_have_what_they_are_named_for():
    """Rows of hits alone, and ranks without rows."""
    data = data_of(CASES["all hits"])
    loss = sampled_cross_entropy(data.hidden, data.items, data.targets, num_negatives=1, reduction="none")
    assert ((loss == 0) & (data.targets != -100)).sum() > 3
    assert parts(CASES["no rows on one"], 2) == [(0, 0), (0, 40)]
    counts = [(data.targets[start:end] != -100).sum() for start, end in parts(CASES["row"], 2)]
    assert counts[0] != counts[1]


def test_a_tied_model_trains_as_with_the_whole_table(ranks):
    table, weights, losses = train(
        torch.clone, toy_batch, embedding, sampled_cross_entropy, lambda gradient: None
    )
    found = [rank["training"] for rank in ranks]
    torch.testing.assert_close(torch.cat([own[0] for own in found]), table, rtol=1e-9, atol=1e-10)
    for own in found:
        torch.testing.assert_close(own[1], weights, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(own[2], losses, rtol=1e-9, atol=1e-10)
    assert losses[-1] < losses[0]


def test_no_more_is_sent_than_documented(ranks):
    """M_r = 8 rows of width 4 in float32, on each rank."""
    rows = 8 * len(ranks)
    head = ("all_gather_single", 48)
    loss = [("all_gather_single", 8 * 8), ("all_gather_single", 8 * 4 * 4)]
    sums = [("all_reduce", 4 * rows), ("all_reduce", 12 * rows)]
    back = [("all_gather_single", 8 * 8), ("reduce_scatter_single", 4 * rows * 4)]
    look_up = [head, ("all_gather_single", 8 * 8), ("reduce_scatter_single", 4 * rows * 4)]
    look_up_back = [("all_gather_single", 8 * 4 * 4)]
    for rank in ranks:
        sent = [(name.replace("_tensor", "_single"), size) for name, size in rank["counted"][False]]
        assert sorted(sent) == sorted([head, *loss, *sums, ("all_reduce", 4), *back, *look_up, *look_up_back])
        assert rank["counted"][True] == [
            head, ("all_reduce", 4 * 8), ("all_reduce", 12 * 8), ("all_reduce", 4 * 8 * 4),
            head, ("all_reduce", 4 * 8 * 4),
        ]  # fmt: skip


WRONG = {
    "overlap": "ValueError: items .* are on rank .* and on another one",
    "gap": "ValueError: items .* are on no rank",
    "too few": "ValueError: items 20 to 21 are on no rank",
    "too many": "ValueError: items 19 to 19 are beyond the catalogue of 19",
    "seed": "ValueError: ranks 0 and 1 were given different options",
    "ids": "ValueError: ranks 0 and 1 were given different options",
    "gradient": "ValueError: ranks 0 and 1 were given different options",
    "triton": "KernelUnavailable: .*know no slices",
    "reference": "ValueError: .*no parallel form",
    "useless": "ValueError: .*give num_negatives",
    "tiles given": "ValueError: .*replicated=True",
    "replicated": "ValueError: .*rank 0 brings 3 and rank 1 brings 4",
    "id": "IndexError: targets holds 3 ids outside",
    "look-up gap": "ValueError: item",
    "dtensor": "TypeError: items is a DTensor.*vocab_parallel_cross_entropy",
    "dtensor full": "TypeError: items is a DTensor",
    "dtensor slice": "TypeError: local_items is a DTensor",
    "dtensor look-up": "TypeError: local_items is a DTensor",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_an_error_on_every_rank(ranks, name):
    for rank in ranks:
        assert rank["errors"]["right"] == "no error"
        with pytest.raises(AssertionError, match=WRONG[name]):
            raise AssertionError(rank["errors"][name])


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("one rank", "ValueError: hidden must be"),
        ("one rank's rows", "ValueError: row_offset must be"),
        ("one rank's ids", "ValueError: negatives must be [M, N] with M = 3"),
        ("look-up id", "IndexError: ids holds 3"),
    ],
)
def test_one_ranks_fault_reaches_the_others(ranks, name, own):
    """They would wait for it until their time is up."""
    told = [rank["errors"][name] for rank in ranks]
    assert told[1].startswith(own)
    for other in (*told[:1], *told[2:]):
        assert other.startswith("ValueError: rank 1 was given arguments that it refuses")


def test_a_look_up_offers_no_number_for_no_item(ranks):
    assert "ignore_index" not in ranks[1]["errors"]["look-up id"]


WRONG_ON_ONE = [(True, name, own) for name, (_, own) in FAULTS.items()]
WRONG_ON_ONE += [(False, name, own) for name, (_, own) in LOOK_UP_FAULTS.items()]


@pytest.mark.parametrize(("of_loss", "name", "own"), WRONG_ON_ONE)
def test_no_argument_of_one_rank_leaves_others_waiting(ranks, of_loss, name, own):
    on_one, on_all = zip(*(rank["faults"][of_loss, name] for rank in ranks), strict=True)
    assert on_one[1].startswith(own)
    for other in (*on_one[:1], *on_one[2:]):
        assert other.startswith("ValueError: rank 1 was given arguments that it refuses")
    assert all(told.startswith(own) for told in on_all)


def test_tensors_that_all_must_share_are_compared_by_value(ranks):
    for rank in ranks:
        for name, told in rank["different"].items():
            assert told.startswith(f"ValueError: ranks 0 and {len(ranks) - 1} were given different values"), (
                name
            )
            assert name in told


def test_what_is_of_own_rows_or_equal_is_no_difference(ranks):
    for rank in ranks:
        assert set(rank["equal"].values()) == {"no error"}, rank["equal"]


@pytest.mark.slow
def test_under_fsdp_a_loss_in_the_forward_equals_one_process(tmp_path):
    model, (ids, targets) = Whole(), toy_batch(0)
    model(ids, targets, 0).backward()
    for found in start(tmp_path, 2, "fsdp"):
        for name, value in model.named_parameters():
            # FSDP averages over its two ranks.
            torch.testing.assert_close(found[name] * 2, value.grad)


@pytest.mark.parametrize(
    "name", ["row", "gathered", "batch", "in batch", "full", "rows and lse", "bfloat16 states"]
)
def test_a_process_alone_is_the_whole_group(name):
    setup, data = CASES[name], data_of(CASES[name])
    loss = partial(vocab_parallel_cross_entropy, num_items=setup.items, first_item=0)
    options = options_of(setup, 0, setup.rows)
    found = run(loss, data.hidden, data.items, data.targets, options, data.upstream)
    for one, other in zip(found, one_process(setup, 1), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            close(one, other, setup.bound)
    ids = torch.tensor([[3, 0], [5, 3]])
    rows = vocab_parallel_embedding(ids, data.items, num_items=setup.items, first_item=0)
    assert torch.equal(rows, data.items[ids])
    assert vocab_parallel_range(7) == range(7)


@pytest.mark.parametrize("name", ["row", "full"])
def test_autocast_rounds_operands_and_nothing_else(name):
    setup = CASES[name]
    data = data_of(setup)
    rows, options = data.hidden[data.targets != -100].float(), options_of(setup, 0, setup.rows)
    rounded, targets = rows.bfloat16().float(), data.targets[data.targets != -100]
    place = {"num_items": setup.items, "first_item": 0, **options}
    loss = vocab_parallel_cross_entropy(rounded, data.items.bfloat16().float(), targets, **place)
    with torch.autocast("cpu", torch.bfloat16):
        cast = vocab_parallel_cross_entropy(rows, data.items.float(), targets, **place)
    torch.testing.assert_close(cast, loss)
    assert cast.dtype == torch.float32


def test_there_is_no_second_derivative():
    hidden, items = torch.randn(3, 2).requires_grad_(), torch.randn(5, 2)
    loss = vocab_parallel_cross_entropy(hidden, items, torch.arange(3), num_items=5, first_item=0)
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{}, {"sharing": 16}, {"items": 50}, {"sampler": "block"}, {"full": True}]
)
def test_slices_one_after_the_other_make_up_the_whole(device, dtype, options):
    """What ranks do, without sending anything: so it can be tried on one GPU."""
    options = {"full": False, "items": 1001, **options}
    full, items = options.pop("full"), options.pop("items")
    case, frame = make_case(rows=64, items=items, dtype=dtype, device=device), Frame(kernel="torch")
    if full:
        whole = full_problem(*case.tensors, Form("none"), frame)
    else:
        drawn = Negatives(128, None, Stream(), **options)
        whole = sampled_problem(*case.tensors, drawn, Form("none"), frame)
    live, ones = case.targets != -100, torch.ones(64, device=device)
    sums = [torch.zeros(one.shape, device=device) for one in (case.hidden, case.items)]
    cuts = [(0, 7), (7, items - 20), (items - 20, items)]
    parts_of = [slice_of(whole, case.items[start:end], start) for start, end in cuts]
    found = [compute(part, None, Sums(None, None)) for part in parts_of]
    others = torch.stack([one[1] for one in found]).logsumexp(0)
    here = [(case.targets >= start) & (case.targets < end) for start, end in cuts]
    positive = sum(torch.where(mine, one[0], 0) for mine, one in zip(here, found, strict=True))
    slope = torch.sigmoid(others - positive).masked_fill(~live, 0)
    for part, one, mine, (start, end) in zip(parts_of, found, here, cuts, strict=True):
        flows = Upstream(-slope * mine, slope * (one[1] - others).exp())
        own = Sums(torch.zeros_like(sums[0]), sums[1][start:end])
        compute(part, flows, own)
        sums[0] += own.hidden
    true = [torch.zeros(one.shape, device=device) for one in sums]
    loss, _ = compute(whole, Upstream(ones, None), Sums(*true))
    bound = 2e-2 if dtype == torch.bfloat16 and device.type == "cuda" else 1e-4
    assert relative((others - positive).exp().log1p()[live], loss[live]) <= bound
    for one, other in zip(sums, true, strict=True):
        assert relative(one, other) <= bound


def test_only_what_is_kept_is_scored():
    """Rows of a slice become as narrow as the one that keeps the most."""
    keep = torch.tensor([[True, False, True, False], [False, False, False, True], [False] * 4])
    pack = Packing.of(keep)
    found = pack(torch.arange(12).view(3, 4), torch.tensor([[-1], [-2], [-3]]))
    assert found.tolist() == [[0, 2], [7, -2], [-3, -3]]
    assert Packing.of(keep, least=3).width == 3


def test_slices_in_any_order_make_up_a_catalogue():
    check_slices([Slice(5, 2), Slice(0, 5), Slice(7, 1)], 8)
    with pytest.raises(ValueError, match="items 5 to 6 are on no rank"):
        check_slices([Slice(7, 1), Slice(0, 5)], 8)
    with pytest.raises(ValueError, match="items 4 to 4 are on rank 0"):
        check_slices([Slice(4, 4), Slice(0, 5)], 8)
    with pytest.raises(ValueError, match="too few"):
        vocab_parallel_range(0)
