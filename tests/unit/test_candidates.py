"""What next items are told from: the step's targets and drawn rows, the same for every share of the step."""

import numpy as np
import pytest
import torch
from test_cce import LENGTH, V, chain

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.data.candidates import CandidateBatches
from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.data.types import Sequences

BATCH, MAX = 7, 5


def make(data=None, **changes):
    return CandidateBatches(data or chain(), BATCH, MAX, "slide", 3, **changes)


def rows_of(batch):
    """Returns each target with the items read before it, as the windows say."""
    return batch.tensors["candidates"][batch.tensors["labels"]]


def test_windows_and_targets_are_those_of_the_next_item():
    plain, made = NextItemBatches(chain(), BATCH, MAX, "slide", 3), make()
    assert made.steps_per_epoch == plain.steps_per_epoch
    for position in range(plain.steps_per_epoch):
        for share in (Share(), Share(rank=1, ranks=2, micro=1, micros=3)):
            one, other = (each.batch(1, position, share, 9) for each in (plain, made))
            real = one.tensors["targets"] >= 0
            torch.testing.assert_close(other.tensors["inputs"][real], one.tensors["inputs"][real])
            assert (other.tensors["inputs"][~real] == PAD_ITEM).all()
            torch.testing.assert_close(rows_of(other), one.tensors["targets"][real])
            assert (one.size, one.total_targets, one.first_target, one.step) == (
                other.size,
                other.total_targets,
                other.first_target,
                other.step,
            )


@pytest.mark.parametrize("drawn", [None, 0, 3, V])
def test_candidates_are_the_steps_targets_and_drawn_rows_once(drawn):
    made = make(num_negatives=drawn)
    for position in range(3):
        batch = made.batch(0, position, Share(), position)
        candidates = batch.tensors["candidates"].numpy()
        targets = np.unique(rows_of(batch))
        assert (candidates[: len(targets)] == targets).all()
        assert len(np.unique(candidates)) == len(candidates)
        wanted = len(targets) if drawn is None else drawn
        assert len(candidates) <= min(V, len(targets) + wanted)
        assert (len(candidates) == V) or drawn != V


def test_all_shares_have_the_same_candidates():
    made = make()
    shares = [Share(rank, 2, micro, 3) for rank in range(2) for micro in range(3)] + [Share(5, 40)]
    whole = made.batch(2, 1, Share(), 4).tensors
    for share in shares:
        own = made.batch(2, 1, share, 4).tensors
        for name in ("candidates", "log_q"):
            torch.testing.assert_close(own[name], whole[name], rtol=0, atol=0)


def test_draws_are_a_function_of_seed_and_step():
    def drawn(step, seed=3):
        made = CandidateBatches(chain(), BATCH, MAX, "slide", seed, num_negatives=9)
        return made._drawn(np.zeros(0, np.int64), step).tolist()

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)
    assert drawn(5) != drawn(5, seed=4)
    counts = np.bincount(np.concatenate([drawn(step) for step in range(2000)]), minlength=V)
    assert counts.sum() == 9 * 2000
    expected, deviation = 2000 * 9 / V, (2000 * 9 / V * (1 - 9 / V)) ** 0.5
    assert (abs(counts - expected) < 5 * deviation).all()


def test_the_whole_catalogue_is_sure_to_be_there():
    batch = make(whole=True).batch(0, 0, Share(), 0)
    assert batch.tensors["candidates"].tolist() == list(range(V))
    assert not batch.tensors["log_q"].any()
    assert (rows_of(batch) == batch.tensors["labels"]).all()


def test_weights_of_candidates_add_up_to_the_catalogue():
    for drawn in (None, 1, 5, V):
        batch = make(num_negatives=drawn).batch(0, 0, Share(), 0)
        log_q = batch.tensors["log_q"].double()
        targets = len(np.unique(rows_of(batch)))
        assert (log_q[:targets] == 0).all()
        if len(log_q) > targets:
            assert torch.exp(-log_q).sum() == pytest.approx(V, rel=1e-6)


def test_nothing_behind_the_training_part_is_read():
    data = chain()
    items = data.sequences.items.copy()
    held_out = np.ones(len(items), dtype=bool)
    for user in range(data.num_users):
        held_out[data.sequences.offsets[user] : data.train_end[user]] = False
    assert held_out.sum() == 2 * data.num_users
    assert len(items) == LENGTH * data.num_users
    items[held_out] = (items[held_out] + 1) % V
    other = make(type(data)(**{**data.__dict__, "sequences": Sequences(data.sequences.offsets, items)}))
    for position in range(other.steps_per_epoch):
        one, two = (each.batch(0, position, Share(), 0).tensors for each in (make(data), other))
        assert all(torch.equal(one[name], two[name]) for name in one)
