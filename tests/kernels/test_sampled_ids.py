"""Ids that repeat, hit, are missing, or lie outside the table: cases 5 to 11 of the list, and 24's."""

import pytest
import torch
from effrec_kernels import draw_negatives, sampled_cross_entropy
from kernel_cases import answer, check, make_case, oracle, relative, upstream_of

CATALOGUES = [40, 1001]


def compare(case, **options):
    upstream = upstream_of(case)
    found = answer(
        case, sampled_cross_entropy, upstream, negatives=case.negatives, reduction="none", **options
    )
    check(found, oracle(case, upstream, **options), torch.float32)
    return found


@pytest.mark.parametrize("items", CATALOGUES)
def test_an_id_drawn_twice_counts_twice(device, items):
    case = make_case(items=items, device=device)
    case.negatives[1, :7] = 5
    case.negatives[2:5] = 9
    compare(case)
    case.negatives[:] = 3
    compare(case)


@pytest.mark.parametrize("correction", ["exact", "constant", "none"])
@pytest.mark.parametrize("negatives", [64, 3])
def test_hits_are_masked_and_counted(device, correction, negatives):
    """Eight items: every row of 64 negatives hits its positive about eight times."""
    case = make_case(rows=50, negatives=negatives, items=8, device=device)
    hits = (case.negatives == case.targets[:, None]).sum(dim=1)
    assert hits.max() > 1
    compare(case, correction=correction)


@pytest.mark.parametrize("items", [8, 500])
def test_hits_of_drawn_ids_are_masked_and_counted(device, items):
    case = make_case(rows=50, negatives=64, items=items, device=device)
    upstream = upstream_of(case)
    options = {"num_negatives": 64, "seed": 4, "step": 9}
    case.negatives = draw_negatives(torch.arange(50, device=device), 64, items, seed=4, step=9)
    found = answer(case, sampled_cross_entropy, upstream, reduction="none", **options)
    check(found, oracle(case, upstream), torch.float32)


@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("correction", ["exact", "constant", "none"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_row_of_nothing_but_hits_has_no_loss_and_no_gradient(device, items, correction, reduction):
    case = make_case(items=items, device=device)
    case.targets[:] = 6
    case.negatives[:] = 6
    upstream = torch.ones(33, device=device) if reduction == "none" else None
    loss, of_hidden, of_items = answer(
        case,
        sampled_cross_entropy,
        upstream,
        negatives=case.negatives,
        correction=correction,
        reduction=reduction,
    )
    assert (loss == 0).all()
    assert (of_hidden == 0).all()
    assert (of_items == 0).all()


def test_a_catalogue_of_one_item_has_no_loss(device):
    case = make_case(items=1, device=device)
    loss, of_hidden, of_items = answer(case, sampled_cross_entropy, num_negatives=5)
    assert loss == 0
    assert (of_hidden == 0).all()
    assert (of_items == 0).all()


@pytest.mark.parametrize("items", CATALOGUES)
def test_unused_slots_are_left_out_and_counted(device, items):
    case = make_case(items=items, device=device)
    case.negatives[1, 3:] = -100
    case.negatives[2] = -100
    case.negatives[3, ::2] = -100
    case.negatives[4, :2] = case.targets[4]
    found = compare(case)
    assert found[0][2] == 0
    for correction in ("constant", "none"):
        compare(case, correction=correction)


@pytest.mark.parametrize("items", CATALOGUES)
def test_first_and_last_item(device, items):
    case = make_case(items=items, device=device)
    case.targets[1], case.targets[2] = 0, items - 1
    case.negatives[1, :2], case.negatives[2, :2] = items - 1, 0
    case.negatives[3, 0], case.negatives[3, 1] = 0, items - 1
    compare(case)


def test_one_rows_positive_is_anothers_negative_and_stands_in_its_history(device):
    case = make_case(rows=12, negatives=11, items=400, device=device)
    case.targets[:] = torch.arange(12, device=device)
    for row in range(12):
        case.negatives[row] = torch.tensor([item for item in range(12) if item != row], device=device)
    compare(case)


@pytest.mark.parametrize("items", CATALOGUES)
def test_int32_ids_equal_int64_ids(device, items):
    case = make_case(items=items, device=device)
    wide = answer(case, sampled_cross_entropy, negatives=case.negatives)
    narrow = answer(case, sampled_cross_entropy, negatives=case.negatives.int())
    case.targets = case.targets.int()
    narrowest = answer(case, sampled_cross_entropy, negatives=case.negatives.int())
    for other in (narrow, narrowest):
        assert all(torch.equal(*pair) for pair in zip(wide, other, strict=True))


@pytest.mark.parametrize("name", ["targets", "negatives"])
@pytest.mark.parametrize("wrong", [-1, -7, 1001, 1 << 40])
@pytest.mark.parametrize("kernel", ["torch", "reference"])
def test_ids_outside_the_table_are_refused(name, wrong, kernel):
    case = make_case()
    getattr(case, name)[3] = wrong
    with pytest.raises(IndexError, match=rf"{name} holds .* outside \[0, 1001\), the first is {wrong} "):
        sampled_cross_entropy(*case.tensors, negatives=case.negatives, kernel=kernel)


@pytest.mark.gpu
def test_ids_outside_the_table_are_refused_on_a_gpu_in_debug_mode(monkeypatch):
    case = make_case(device="cuda")
    case.negatives[3, 2] = 5000
    monkeypatch.setenv("EFFREC_DEBUG", "1")
    with pytest.raises(IndexError, match="negatives holds 1 ids"):
        sampled_cross_entropy(*case.tensors, negatives=case.negatives)


@pytest.mark.parametrize("items", CATALOGUES)
def test_rows_that_no_one_drew_are_left_alone(device, items):
    case = make_case(rows=3, negatives=4, items=items, device=device)
    _, _, of_items = answer(case, sampled_cross_entropy, negatives=case.negatives)
    touched = torch.zeros(items, dtype=torch.bool, device=device)
    touched[case.negatives[1:].flatten()] = True
    touched[case.targets[1:]] = True
    assert (of_items[~touched] == 0).all()
    assert (of_items[touched] != 0).any(dim=1).all()


@pytest.mark.parametrize("items", CATALOGUES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_backward_draws_what_forward_drew(device, items, reduction):
    """The gradient of drawn ids is that of the same ids given, also where backward draws anew."""
    case = make_case(items=items, device=device)
    case.negatives = draw_negatives(torch.arange(33, device=device) + 70, 15, items, seed=5, step=2)
    upstream = upstream_of(case) if reduction == "none" else None
    drawn = answer(
        case,
        sampled_cross_entropy,
        upstream,
        num_negatives=15,
        seed=5,
        step=2,
        row_offset=70,
        reduction=reduction,
    )
    given = answer(case, sampled_cross_entropy, upstream, negatives=case.negatives, reduction=reduction)
    assert all(relative(*pair) < 1e-6 for pair in zip(drawn, given, strict=True))


@pytest.mark.parametrize("items", CATALOGUES)
def test_ranks_and_micro_batches_add_up_to_one_batch(device, items):
    """Parts with unequal numbers of targets, normalised by the count of all, sum to the whole."""
    case = make_case(rows=90, items=items, dtype=torch.float64, device=device)
    case.targets[50:80] = -100
    count = int((case.targets != -100).sum())
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(2)).to(device)
    options = {"num_negatives": 9, "seed": 1, "step": 6}
    whole = answer(case, sampled_cross_entropy, row_offset=torch.arange(90, device=device), **options)
    hidden, table = case.leaves()
    total = 0.0
    for part in rows.split([7, 50, 33]):
        loss = sampled_cross_entropy(
            hidden[part], table, case.targets[part], row_offset=part, normalizer=count, **options
        )
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole[0].item(), rel=1e-12)
    assert relative(hidden.grad, whole[1]) < 1e-12
    assert relative(table.grad, whole[2]) < 1e-12
