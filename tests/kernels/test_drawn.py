"""The ids that may be logged are those that losses draw."""

import pytest
import torch
from effrec_kernels import draw_negatives, drawn_ids, popularity, sampled_cross_entropy
from kernel_cases import make_case

STREAM = {"seed": 5, "step": 2, "row_offset": 7}


def boundaries(device):
    return torch.tensor([2, 9, 30], device=device)


@pytest.mark.parametrize("sharing", ["row", 4, "batch", boundaries], ids=["row", "tile", "batch", "sequence"])
@pytest.mark.parametrize("sampler", ["uniform", "block", "popularity"])
@pytest.mark.parametrize("in_batch", [0, 5])
@pytest.mark.parametrize("items", [70, 1001])
def test_a_loss_on_them_is_the_loss_that_draws_them(device, sharing, sampler, in_batch, items):
    case = make_case(items=items, device=device)
    options = {
        "sampler": popularity(torch.arange(items, device=device)) if sampler == "popularity" else sampler,
        "sharing": sharing(device) if callable(sharing) else sharing,
        "in_batch": in_batch,
        **STREAM,
    }
    ids = drawn_ids(case.targets, items, num_negatives=20, **options)
    assert ids.dtype == torch.int64
    assert ids.shape == (33, 20)
    if in_batch and sharing != "batch":
        assert (ids == -100).any(), "unused slots are part of it"
    drawing = sampled_cross_entropy(*case.tensors, num_negatives=20, reduction="none", **options)
    given = sampled_cross_entropy(*case.tensors, negatives=ids, reduction="none")
    if callable(sharing):
        given = given.masked_fill((torch.arange(33, device=device) < 2), 0)
        given[30:] = 0
    torch.testing.assert_close(drawing, given, rtol=1e-5, atol=1e-5)
    if sharing == "batch":
        assert (ids == ids[0]).all()


def test_uniform_draws_of_each_row_are_those_by_row_number(device):
    case = make_case(device=device)
    ids = drawn_ids(case.targets, 1001, num_negatives=9, **STREAM)
    rows = torch.arange(7, 40, device=device)
    assert torch.equal(ids, draw_negatives(rows, 9, 1001, seed=5, step=2))
    state = torch.tensor([5, 2], device=device)
    assert torch.equal(drawn_ids(case.targets, 1001, num_negatives=9, rng_state=state, row_offset=rows), ids)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_items": 9.0}, TypeError, "num_items must be a whole number"),
        ({"num_negatives": 0}, ValueError, "num_negatives must be at least 1"),
        ({"sampler": "blok"}, ValueError, "did you mean 'block'"),
        ({"targets": [1, 2]}, TypeError, "targets must be a tensor"),
        ({"num_items": 3}, IndexError, "targets holds"),
    ],
)
def test_what_cannot_be_drawn(options, error, message):
    given = {"targets": make_case().targets, "num_items": 1001, "num_negatives": 4, **options}
    with pytest.raises(error, match=message):
        drawn_ids(**given)
