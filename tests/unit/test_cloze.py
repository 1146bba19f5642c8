"""Batches with masks: what is masked, how often, what each rank gets, and that it is a pure function."""

import numpy as np
import pytest
import torch
from test_next_item import LENGTHS, epoch_of, make_data

from effrec_cli.data.batches import Share
from effrec_cli.data.cloze import ClozeBatches
from effrec_cli.errors import DataError

MASK = 1000


def make(window="slide", batch_size=4, max_length=7, seed=1, mask_ratio=0.4, last_only=0.1, **changes):
    masking = {"mask_token": MASK, "mask_ratio": mask_ratio, "last_only": last_only}
    return ClozeBatches(make_data(**changes), batch_size, max_length, window, seed, **masking)


def items_of(batch):
    """Returns the items that the windows hold, unmasked, one list a window."""
    tensors = batch.tensors
    whole = torch.where(tensors["targets"] == -100, tensors["inputs"], tensors["targets"])
    return [row[:length].tolist() for row, length in zip(whole, tensors["lengths"], strict=True)]


def masked_items(batches, epoch=0, **split):
    """Returns the masked items of an epoch, in order; each item names its position."""
    found = [b.tensors["targets"] for b in epoch_of(batches, epoch, **split)]
    return [item for targets in found for item in targets[targets != -100].tolist()]


def trained(window):
    data = make_data()
    longest = 7 if window == "last" else 10**6
    spans = zip(data.sequences.offsets[:-1], data.train_end, strict=True)
    return sorted(at for low, high in spans if high - low > 1 for at in range(max(low, high - longest), high))


@pytest.mark.parametrize("window", ["slide", "last"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_windows_hold_each_training_item_once_and_none_held_out(window, epoch):
    found = [item for b in epoch_of(make(window), epoch) for items in items_of(b) for item in items]
    assert sorted(found) == trained(window)


@pytest.mark.parametrize("window", ["slide", "last"])
@pytest.mark.parametrize(("ratio", "last_only"), [(0.05, 0.0), (0.4, 0.3), (1.0, 0.0), (0.2, 1.0)])
def test_an_epoch_has_about_as_many_masks_as_said(window, ratio, last_only):
    """As many items exactly; masks are drawn, and their mean over epochs is that of the first's windows."""
    batches = make(window, mask_ratio=ratio, last_only=last_only)
    assert batches.items_per_epoch == len(trained(window))
    counts = [len(masked_items(batches, epoch)) for epoch in range(150)]
    assert batches.targets_per_epoch == pytest.approx(np.mean(counts), rel=0.05)
    if 1.0 in (ratio, last_only):
        assert {batches.targets_per_epoch} == set(counts)


def test_a_masked_item_is_the_target_and_nowhere_in_the_inputs():
    for batch in epoch_of(make()):
        tensors = batch.tensors
        real = torch.arange(tensors["inputs"].shape[1]) < tensors["lengths"][:, None]
        masked = tensors["targets"] != -100
        assert all(tensor.dtype == torch.int64 for tensor in tensors.values())
        assert torch.equal(tensors["inputs"] == MASK, masked)
        assert not (masked & ~real).any()
        assert (tensors["inputs"][~real] == 0).all()
        assert not set(tensors["targets"][masked].tolist()) & set(tensors["inputs"][real & ~masked].tolist())
        assert torch.equal(tensors["valid"], masked.flatten().nonzero().flatten())
        assert torch.equal(tensors["tokens"], real.flatten().nonzero().flatten())
        assert torch.equal(tensors["masked"], masked.sum(1))
        assert (tensors["masked"] >= 1).all()


@pytest.mark.parametrize("ratio", [0.2, 0.6])
def test_as_many_are_masked_as_asked_for(ratio):
    batches = make(lengths=[102] * 40, max_length=50, mask_ratio=ratio, last_only=0.0)
    share = len(masked_items(batches)) / 4000
    assert share == pytest.approx(ratio, abs=4 * (ratio * (1 - ratio) / 4000) ** 0.5)


@pytest.mark.parametrize("last_only", [0.0, 0.3, 1.0])
def test_some_windows_have_their_last_item_masked_alone(last_only):
    batches = make(lengths=[52] * 400, max_length=50, mask_ratio=0.2, last_only=last_only)
    alone = []
    for batch in epoch_of(batches):
        tensors = batch.tensors
        last = tensors["inputs"].gather(1, tensors["lengths"][:, None] - 1).squeeze(1) == MASK
        alone += (last & (tensors["masked"] == 1)).tolist()
    assert np.mean(alone) == pytest.approx(last_only, abs=0.08)


def test_a_window_in_which_none_was_drawn_has_one_masked_anywhere():
    batches = make(lengths=[9] * 300, mask_ratio=1e-9, last_only=0.0)
    places = [b.tensors["valid"] % b.tensors["inputs"].shape[1] for b in epoch_of(batches)]
    counts = torch.bincount(torch.cat(places), minlength=7)
    assert counts.sum() == 300
    assert (counts > 15).all()


def test_masks_go_by_seed_epoch_and_place_whatever_the_step_or_its_split():
    """Batches of another size hold other windows at a time, and the same are masked in them."""
    alike = make("last"), make("last", batch_size=7)
    assert sorted(masked_items(alike[0])) == sorted(masked_items(alike[1]))
    assert masked_items(make()) == masked_items(make(), ranks=2, micros=3)
    drawn = {
        tuple(sorted(masked_items(make("last", seed=seed), epoch))) for seed in (1, 2) for epoch in (0, 1)
    }
    assert len(drawn) == 4


def test_neighbours_are_masked_independently():
    """All are drawn by one key and a number that counts up."""
    batches = make("last", lengths=[9] * 2000, mask_ratio=0.5, last_only=0.0)
    rows = torch.cat([b.tensors["inputs"][:, :7] == MASK for b in epoch_of(batches)]).double()
    correlations = torch.corrcoef(rows.T) - torch.eye(7)
    assert correlations.abs().max() < 0.1


def test_an_items_mask_has_nothing_to_do_with_what_its_window_is_for():
    """A window and its first item have the same number; drawn alike, that item would never be masked."""
    batches = make("last", lengths=[9] * 2000, mask_ratio=0.3, last_only=0.3)
    rows = torch.cat([b.tensors["inputs"][:, :7] == MASK for b in epoch_of(batches)])
    several = rows[rows[:, :6].any(dim=1)]
    assert several[:, 0].double().mean() == pytest.approx(0.3 / (1 - 0.7**6), abs=0.05)


def test_targets_are_numbered_through_the_step():
    batches = make()
    for position in range(batches.steps_per_epoch):
        parts = [
            batches.batch(0, position, Share(rank, 2, micro, 3), 5) for rank in range(2) for micro in range(3)
        ]
        counts = [len(part.tensors["valid"]) for part in parts]
        assert [part.first_target for part in parts] == [sum(counts[:at]) for at in range(6)]
        assert {part.total_targets for part in parts} == {sum(counts)}
        assert {part.step for part in parts} == {5}


def test_a_user_with_one_training_item_has_no_window():
    assert make().num_samples == sum(-(-(n - 2) // 7) for n in LENGTHS if n - 2 > 1)
    with pytest.raises(DataError, match="two training items"):
        make(lengths=[3, 3])
