"""Rows that share negatives: who shares with whom, and the oracle's values on ids written out: case 33."""

from itertools import pairwise

import pytest
import torch
from effrec_kernels import chunks, compute, draw_negatives, sampled_cross_entropy, sampled_cross_entropy_dense
from kernel_cases import answer, check, make_case, oracle, relative, upstream_of

KEY = {"seed": 9, "step": 4}
LENGTHS = [4, 0, 1, 11, 2, 3, 12]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Groups of a few rows would be read row by row, which other files test."""
    monkeypatch.setattr(chunks, "FEW_SHARED_ROWS", 0)


def boundaries_of(lengths, device="cpu"):
    return torch.tensor([0, *lengths], device=device).cumsum(0)


# How the 33 rows of a case share, by name: options, and the group number of each global row.
MODES = {
    "tile 1": ({"sharing": 1}, lambda row: row),
    "tile 4": ({"sharing": 4}, lambda row: row // 4),
    "tile 4 apart 5": ({"sharing": 4, "sharing_stride": 5}, lambda row: row // 20 * 5 + row % 5),
    "tile 64 apart 3": ({"sharing": 64, "sharing_stride": 3}, lambda row: row // 192 * 3 + row % 3),
    "batch": ({"sharing": "batch"}, lambda row: 0),
}


def sequences(device, first=0):
    starts = [first + sum(LENGTHS[:index]) for index, length in enumerate(LENGTHS) for _ in range(length)]
    return {"sharing": boundaries_of(LENGTHS, device)}, lambda row: starts[row - first]


def mode(name, device, first=0):
    return sequences(device, first) if name == "sequence" else MODES[name]


ALL = [*MODES, "sequence"]


def shared_ids(case, group_of, number, first=0):
    """Returns the ids [M, N] that rows first, first + 1, .. draw when their groups draw."""
    device = case.targets.device
    keys = torch.tensor([group_of(first + row) for row in range(len(case.targets))], device=device)
    return draw_negatives(keys, number, len(case.items), **KEY)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("first", [0, 7, 300, (1 << 33) + 5])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_groups_draw_and_rows_score(device, name, first, reduction):
    """Loss and gradients are the oracle's on ids written out, gradients made in forward or backward."""
    case = make_case(device=device)
    options, group_of = mode(name, device, first)
    case.negatives = shared_ids(case, group_of, 15, first)
    count = int((case.targets != -100).sum())
    upstream = upstream_of(case) if reduction == "none" else torch.full((33,), 1 / count, device=device)
    found = answer(
        case,
        sampled_cross_entropy,
        upstream if reduction == "none" else None,
        num_negatives=15,
        row_offset=first,
        reduction=reduction,
        **options,
        **KEY,
    )
    loss, of_hidden, of_items = oracle(case, upstream)
    check(
        found, (loss if reduction == "none" else loss.mean() * 33 / count, of_hidden, of_items), torch.float32
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("correction", ["exact", "constant", "none", "logq"])
@pytest.mark.parametrize("items", [8, 40])
def test_hits_are_those_of_each_row(device, name, correction, items):
    """Few items: rows of a group hit and count different slots of the same negatives."""
    case = make_case(items=items, negatives=20, device=device)
    options, group_of = mode(name, device)
    case.negatives = shared_ids(case, group_of, 20)
    upstream = upstream_of(case)
    found = answer(
        case,
        sampled_cross_entropy,
        upstream,
        num_negatives=20,
        reduction="none",
        correction=correction,
        **options,
        **KEY,
    )
    hits = (case.negatives == case.targets[:, None]).sum(dim=1)
    assert len(hits.unique()) > 1
    check(found, oracle(case, upstream, correction=correction), torch.float32)


def test_tiles_of_one_row_are_rows(device):
    """T = 1 at any distance draws what no sharing draws."""
    case = make_case(rows=50, device=device)
    options = {"num_negatives": 12, "row_offset": 1000, "reduction": "none", **KEY}
    row = answer(case, sampled_cross_entropy, upstream_of(case), **options)
    for stride in (1, 7, 64):
        tile = answer(
            case, sampled_cross_entropy, upstream_of(case), sharing=1, sharing_stride=stride, **options
        )
        assert all(relative(*pair) < 1e-6 for pair in zip(tile, row, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_every_dtype(device, name, dtype):
    case = make_case(dtype=dtype, device=device)
    options, group_of = mode(name, device)
    case.negatives = shared_ids(case, group_of, 15)
    upstream = upstream_of(case).double() if dtype == torch.float64 else upstream_of(case)
    found = answer(
        case, sampled_cross_entropy, upstream, num_negatives=15, reduction="none", **options, **KEY
    )
    check(found, oracle(case, upstream), dtype)


@pytest.mark.parametrize("chunk_bytes", [1, 3_000, 40_000, None])
@pytest.mark.parametrize("name", ALL)
def test_any_chunk(device, name, chunk_bytes):
    """Also chunks that hold part of a group only."""
    case = make_case(device=device)
    options, group_of = mode(name, device)
    case.negatives = shared_ids(case, group_of, 15)
    upstream = upstream_of(case)
    options = {"num_negatives": 15, "reduction": "none", "chunk_bytes": chunk_bytes, **options, **KEY}
    check(answer(case, sampled_cross_entropy, upstream, **options), oracle(case, upstream), torch.float32)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 127, 129, 1000])
@pytest.mark.parametrize("sharing", [16, 64, "batch"])
def test_any_number_of_rows(device, rows, sharing):
    case = make_case(rows=rows, device=device)
    group_of = (lambda row: 0) if sharing == "batch" else (lambda row: row // sharing)
    compare_drawn(case, 15, group_of, sharing)


@pytest.mark.parametrize(
    ("negatives", "items", "dim"),
    [(1, 1001, 16), (16, 2, 16), (511, 65_537, 4), (4095, 100, 8), (70_000, 1001, 4), (31, 1_000_000, 2)]
    + [(7, 300, dim) for dim in (1, 50, 123, 257, 1024)],
)
@pytest.mark.parametrize("sharing", [5, "batch"])
def test_any_number_of_negatives_items_and_widths(device, negatives, items, dim, sharing):
    case = make_case(rows=17, items=items, dim=dim, device=device)
    compare_drawn(case, negatives, (lambda row: 0) if sharing == "batch" else (lambda row: row // 5), sharing)


def compare_drawn(case, number, group_of, sharing):
    case.negatives = shared_ids(case, group_of, number)
    upstream = upstream_of(case)
    options = {"num_negatives": number, "sharing": sharing, "reduction": "none", **KEY}
    check(answer(case, sampled_cross_entropy, upstream, **options), oracle(case, upstream), torch.float32)


def test_strides_and_slices(device):
    case = make_case(dim=16, device=device)
    upstream = upstream_of(case)
    case.negatives = shared_ids(case, lambda row: row // 8, 15)
    expected = oracle(case, upstream)
    columns = torch.cat([case.items, torch.full_like(case.items[:1], float("nan"))]).T.contiguous()
    columns.requires_grad_()
    states = torch.cat([case.hidden, case.hidden], dim=1).detach().requires_grad_()
    options = {"num_negatives": 15, "sharing": 8, "reduction": "none", **KEY}
    sampled_cross_entropy(states[:, 16:], columns.T[:-1], case.targets, **options).backward(upstream)
    assert relative(states.grad[:, 16:], expected[1]) < 5e-5
    assert relative(columns.grad.T[:-1], expected[2]) < 5e-5
    assert (columns.grad.T[-1] == 0).all()


@pytest.mark.parametrize("first", [0, 7, 23])
@pytest.mark.parametrize("name", ALL)
def test_given_sets_one_for_each_group(device, name, first):
    """Sets are counted from the first of the stretch around the first row; unused slots count as hits."""
    case = make_case(device=device)
    options, group_of = mode(name, device, first)
    groups = [group_of(first + row) for row in range(33)]
    if name == "sequence":
        starts = boundaries_of(LENGTHS).tolist()
        at, sets = [max(g for g in range(len(LENGTHS)) if starts[g] == group - first) for group in groups], 7
    else:
        tile, stride = options.get("sharing"), options.get("sharing_stride", 1)
        base = 0 if name == "batch" else first // (tile * stride) * stride
        at, sets = [group - base for group in groups], max(groups) - base + 1
    draw = torch.Generator().manual_seed(3)
    given = torch.randint(1001, (sets, 15), generator=draw).to(device)
    given[0, 2:5] = -100
    case.negatives = given[at]
    upstream = upstream_of(case)
    found = answer(
        case,
        sampled_cross_entropy,
        upstream,
        negatives=given,
        row_offset=first,
        reduction="none",
        **options,
    )
    check(found, oracle(case, upstream), torch.float32)
    with pytest.raises(ValueError, match=rf"negatives must be \[G, N\] with G = {sets}"):
        sampled_cross_entropy(*case.tensors, negatives=torch.cat([given, given]), row_offset=first, **options)


def test_rows_outside_all_sequences_have_no_loss(device):
    case = make_case(dtype=torch.float64, device=device)
    case.targets[:] = 3
    options = {"num_negatives": 9, "reduction": "none", **KEY}
    bounds = torch.tensor([2, 12, 30], device=device)
    loss, of_hidden, _ = answer(
        case, sampled_cross_entropy, torch.ones_like(case.hidden[:, 0]), sharing=bounds, **options
    )
    outside = torch.ones(33, dtype=torch.bool, device=device)
    outside[2:30] = False
    assert (loss[outside] == 0).all()
    assert (loss[~outside] > 0).all()
    assert (of_hidden[outside] == 0).all()
    mean = sampled_cross_entropy(*case.tensors, sharing=bounds, num_negatives=9, **KEY)
    assert mean.item() == pytest.approx(loss.sum().item() / 28)


@pytest.mark.parametrize("name", ALL)
def test_ranks_and_micro_batches_add_up_to_one_batch(device, name):
    """Parts that number their rows through draw what the whole draws, tiles cut in two included."""
    case = make_case(dtype=torch.float64, device=device)
    count = int((case.targets != -100).sum())
    options, _ = mode(name, device, 50)
    fixed = {"num_negatives": 9, **KEY}
    whole = answer(case, sampled_cross_entropy, row_offset=50, **fixed, **options)
    hidden, table = case.leaves()
    total, cuts = 0.0, [0, 5, 16, 33]
    for start, end in pairwise(cuts):
        if name == "sequence":
            bounds = boundaries_of(LENGTHS, device)
            options = {"sharing": bounds[(bounds >= start) & (bounds <= end)].unique() - start}
        loss = sampled_cross_entropy(
            hidden[start:end],
            table,
            case.targets[start:end],
            row_offset=50 + start,
            normalizer=count,
            **fixed,
            **options,
        )
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole[0].item(), rel=1e-12)
    assert relative(hidden.grad, whole[1]) < 1e-12
    assert relative(table.grad, whole[2]) < 1e-12


def test_rows_in_any_order_keep_their_tiles(device):
    case = make_case(dtype=torch.float64, device=device)
    options = {"num_negatives": 9, "sharing": 4, "sharing_stride": 3, **KEY}
    whole = answer(case, sampled_cross_entropy, row_offset=20, **options)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1)).to(device)
    mixed = make_case(dtype=torch.float64, device=device)
    mixed.hidden, mixed.targets = case.hidden[order], case.targets[order]
    found = answer(mixed, sampled_cross_entropy, row_offset=order + 20, **options)
    assert found[0].item() == pytest.approx(whole[0].item(), rel=1e-12)
    assert relative(found[1], whole[1][order]) < 1e-12
    assert relative(found[2], whole[2]) < 1e-12


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kernel", ["reference", "dense"])
def test_the_other_ways_to_compute_agree(device, name, kernel):
    case = make_case(items=60, dtype=torch.float64, device=device)
    options, _ = mode(name, device, 7)
    options = {"num_negatives": 9, "row_offset": 7, "temperature": 0.4, **options, **KEY}
    found = answer(case, sampled_cross_entropy, **options)
    if kernel == "dense":
        other = answer(case, sampled_cross_entropy_dense, **options)
    else:
        other = answer(case, sampled_cross_entropy, kernel=kernel, **options)
    assert all(relative(*pair) < 1e-11 for pair in zip(found, other, strict=True))


@pytest.mark.parametrize("items", [40, 1001])
@pytest.mark.parametrize("name", ALL)
def test_small_groups_read_row_by_row_have_the_same_values(device, monkeypatch, name, items):
    case = make_case(items=items, dtype=torch.float64, device=device)
    options, _ = mode(name, device, 7)
    options = {"num_negatives": 9, "row_offset": 7, **options, **KEY}
    together = answer(case, sampled_cross_entropy, **options)
    monkeypatch.setattr(chunks, "FEW_SHARED_ROWS", 100)
    monkeypatch.setattr(compute, "Shared", None)
    by_row = answer(case, sampled_cross_entropy, **options)
    assert all(relative(*pair) < 1e-12 for pair in zip(together, by_row, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_nothing_in_rows_without_a_target_leaks(device, name):
    case = make_case(device=device)
    options, _ = mode(name, device)
    options = {"num_negatives": 9, **options, **KEY}
    clean = answer(case, sampled_cross_entropy, **options)
    case.hidden[case.targets == -100] = float("nan")
    dirty = answer(case, sampled_cross_entropy, **options)
    assert all(torch.equal(*pair) for pair in zip(clean, dirty, strict=True))


@pytest.mark.parametrize("sharing", [4, "batch"])
def test_no_targets_and_no_rows(device, sharing):
    case = make_case(device=device)
    case.targets[:] = -100
    for part in (case.hidden, case.hidden[:0]):
        case.hidden, case.targets = part, case.targets[: len(part)]
        found = answer(case, sampled_cross_entropy, num_negatives=3, sharing=sharing)
        assert all((tensor == 0).all() for tensor in found)
    empty = torch.zeros(1, dtype=torch.int64, device=device)
    assert sampled_cross_entropy(*case.tensors, num_negatives=3, sharing=empty) == 0


def test_twenty_runs_give_the_same_bits(device):
    case = make_case(rows=200, device=device)
    case.targets[:] = 3
    options = {"num_negatives": 40, "sharing": 16, **KEY}
    first = answer(case, sampled_cross_entropy, **options)
    for _ in range(19):
        again = answer(case, sampled_cross_entropy, **options)
        assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sharing": "tile"}, ValueError, "sharing must be 'row', 'batch', a number of rows or a tensor"),
        ({"sharing": True}, ValueError, "sharing must be"),
        ({"sharing": 0}, ValueError, "sharing must be from 1 to .*, not 0"),
        ({"sharing": 4, "sharing_stride": 0}, ValueError, "sharing_stride must be from 1 to .*, not 0"),
        ({"sharing": "batch", "sharing_stride": 2}, ValueError, "distance of a tile's rows"),
        ({"sharing": torch.tensor([0.0, 33.0])}, ValueError, r"boundaries must be int \[G \+ 1\]"),
        ({"sharing": torch.tensor([0])}, ValueError, r"boundaries must be int \[G \+ 1\]"),
        ({"sharing": torch.tensor([0, 20, 10, 33])}, IndexError, "boundaries must rise"),
        ({"sharing": torch.tensor([0, 34])}, IndexError, "boundaries must rise"),
        (
            {"sharing": torch.tensor([0, 33]), "row_offset": torch.arange(33)},
            ValueError,
            "row_offset must be a number",
        ),
    ],
)
def test_sharing_that_does_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        sampled_cross_entropy(*make_case().tensors, num_negatives=3, **options)


def test_given_tiles_need_numbered_rows():
    negatives, rows = torch.zeros(9, 3, dtype=torch.int64), torch.arange(33)
    with pytest.raises(ValueError, match="row_offset must be a number"):
        sampled_cross_entropy(*make_case().tensors, negatives=negatives, sharing=4, row_offset=rows)
