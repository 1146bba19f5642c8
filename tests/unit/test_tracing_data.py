"""Answers in parts and windows: who is held out, what training sees, and what each rank gets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tracing_helpers import epoch_of, make_data, parts

from effrec_cli.data.answers import answers_of
from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.tracing import JudgedWindows, TracingBatches, tracing_batch_size, trained_of_users
from effrec_cli.errors import DataError


def numbered(**changes):
    """Answers whose items name their positions, so that a batch tells which answers it holds."""
    answers = answers_of(make_data(**changes), parts())
    return replace(answers, items=np.arange(len(answers), dtype=np.int32))


def seen(batches):
    """The items at real places of some batches, and whether they were said to be answered right."""
    found = []
    for batch in batches:
        tensors = batch.tensors
        real = torch.arange(tensors["items"].shape[1]) < tensors["lengths"][:, None]
        found += zip(tensors["items"][real].tolist(), tensors["correct"][real].tolist(), strict=True)
        assert (tensors["items"][~real] == PAD_ITEM).all()
        assert (tensors["correct"][~real] == 0).all()
        assert tensors["valid"].tolist() == real.flatten().nonzero().flatten().tolist()
        assert tensors["labels"].tolist() == tensors["correct"][real].tolist()
    return found


def test_answers_stand_by_user_then_time():
    data = make_data()
    answers, side = answers_of(data, parts()), data.side
    for user in range(data.num_users):
        mine = side["answers_user"] == user
        order = np.argsort(side["answers_time"][mine])
        at = slice(answers.offsets[user], answers.offsets[user + 1])
        assert answers.items[at].tolist() == side["answers_item"][mine][order].tolist()
        assert answers.correct[at].tolist() == side["answers_correct"][mine][order].tolist()


def test_without_times_the_order_is_that_of_the_arrays():
    data = make_data(answers_time=None)
    assert answers_of(data, parts()).items.tolist() == data.side["answers_item"].tolist()


def test_the_last_answers_of_a_user_are_held_out_test_after_validation():
    answers = answers_of(make_data(), parts())
    for start, end in zip(answers.offsets[:-1], answers.offsets[1:], strict=True):
        assert (np.diff(answers.part[start:end].astype(int)) >= 0).all()


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_the_shares_are_met_over_all_users_also_where_each_has_few(size):
    answers = answers_of(make_data([size] * 200), parts(test_share=0.1, valid_share=0.15))
    total = size * 200
    assert abs((answers.part == TEST).sum() - 0.1 * total) <= 1
    assert abs((answers.part == VALID).sum() - 0.15 * total) <= 1


def test_ready_made_parts_are_kept_and_go_before_times():
    given = np.arange(sum([9, 6])) % 3
    data = make_data([9, 6], answers_part=given.astype(np.uint8))
    answers = answers_of(data, parts())
    assert answers.protocol["parts"] == "ready-made"
    assert answers.part.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 2 + [1] * 2 + [2] * 2


def test_cold_items_are_drawn_by_seed_and_never_trained_on():
    data = make_data([30] * 20, num_items=40)
    one, same, other = (answers_of(data, parts(seed=seed)) for seed in (1, 1, 2))
    assert (one.train_counts == 0).sum() == 8
    assert np.array_equal(one.train_counts, same.train_counts)
    assert not np.array_equal(one.train_counts == 0, other.train_counts == 0)
    for answers in (one, other):
        cold = set(np.flatnonzero(answers.train_counts == 0).tolist())
        read = {item for item, _ in seen(epoch_of(TracingBatches(answers, 4, 8, seed=1)))}
        assert read
        assert not read & cold
        assert np.isin(answers.items[answers.part == TEST], list(cold)).any()
    none = answers_of(data, parts(cold_item_share=0))
    assert not none.taken_out.any()


@pytest.mark.parametrize("max_length", [1, 3, 8, 100])
@pytest.mark.parametrize("epoch", [0, 3])
def test_each_training_answer_is_a_target_exactly_once_an_epoch(max_length, epoch):
    answers = numbered()
    batches = TracingBatches(answers, 4, max_length, seed=1)
    found = seen(epoch_of(batches, epoch))
    assert sorted(item for item, _ in found) == np.flatnonzero(answers.trained).tolist()
    assert all(answers.correct[item] == correct for item, correct in found)
    assert batches.targets_per_epoch == len(found) == answers.train_counts.sum()


def test_windows_hold_answers_of_one_user_in_their_order():
    answers = numbered()
    owner = np.repeat(np.arange(len(answers.offsets) - 1), np.diff(answers.offsets))
    for batch in epoch_of(TracingBatches(answers, 4, 8, seed=1)):
        for row, length in zip(batch.tensors["items"], batch.tensors["lengths"], strict=True):
            window = row[:length].numpy()
            assert (np.diff(window) > 0).all()
            assert len(set(owner[window])) == 1


def test_held_out_answers_change_no_training_batch():
    """Other answers to other items, in what is held out and in what was taken out of training."""
    data = make_data()
    one = answers_of(data, parts())
    hidden = ~one.trained
    assert hidden.sum() > 20
    other = replace(
        one,
        items=np.where(hidden, 0, one.items).astype(np.int32),
        correct=np.where(hidden, 1 - one.correct, one.correct).astype(np.uint8),
    )
    left, right = (epoch_of(TracingBatches(answers, 4, 8, seed=1)) for answers in (one, other))
    for batch, changed in zip(left, right, strict=True):
        assert all(torch.equal(batch.tensors[name], changed.tensors[name]) for name in batch.tensors)


def test_held_out_answers_of_the_raw_data_change_no_training_batch():
    data = make_data()
    answers = answers_of(data, parts())
    order = np.lexsort((data.side["answers_time"], data.side["answers_user"]))
    correct = data.side["answers_correct"].copy()
    correct[order[answers.part != TRAIN]] ^= 1
    changed = answers_of(replace(data, side={**data.side, "answers_correct": correct}), parts())
    assert not np.array_equal(answers.correct, changed.correct)
    pairs = zip(
        epoch_of(TracingBatches(answers, 4, 8, 1)), epoch_of(TracingBatches(changed, 4, 8, 1)), strict=True
    )
    for one, other in pairs:
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


@pytest.mark.parametrize(("ranks", "micros"), [(2, 1), (1, 3), (2, 2), (5, 2)])
def test_shares_partition_a_step_and_add_up(ranks, micros):
    batches = TracingBatches(numbered(), 6, 8, seed=1)
    for position in range(batches.steps_per_epoch):
        whole = batches.batch(0, position, Share(), step=position)
        shares = [
            batches.batch(0, position, Share(rank, ranks, micro, micros), step=position)
            for rank in range(ranks)
            for micro in range(micros)
        ]
        assert [pair for share in shares for pair in seen([share])] == seen([whole])
        assert {share.total_targets for share in shares} == {whole.total_targets} == {len(seen([whole]))}
        assert sum(share.size for share in shares) == whole.size
        sizes = [len(share.tensors["valid"]) for share in shares]
        assert [share.first_target for share in shares] == [sum(sizes[:at]) for at in range(len(sizes))]


def test_batches_are_a_pure_function_of_seed_epoch_and_position():
    left, right, other = (TracingBatches(numbered(), 4, 8, seed=seed) for seed in (1, 1, 2))
    right.batch(5, 0, Share(), step=9)
    for one, same in zip(epoch_of(left), epoch_of(right), strict=True):
        assert all(torch.equal(one.tensors[name], same.tensors[name]) for name in one.tensors)
    orders = [[item for item, _ in seen(epoch_of(b, e))] for b, e in ((left, 0), (left, 1), (other, 0))]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("max_length", [2, 5, 8, 100])
def test_each_held_out_answer_is_judged_once_from_its_past(part, max_length):
    answers = numbered()
    owner = np.repeat(np.arange(len(answers.offsets) - 1), np.diff(answers.offsets))
    judged = []
    for block in JudgedWindows(answers, part, max_length).blocks(3):
        width = block.items.shape[1]
        assert width <= max_length
        for place, answer in zip(block.places, block.answers, strict=True):
            row, column = divmod(int(place), width)
            window = block.items[row, : block.lengths[row]]
            assert window[column] == answer
            assert (np.diff(window) == 1).all()
            assert len(set(owner[window])) == 1
            past = answer - answers.offsets[owner[answer]]
            assert column >= min(past, max_length - max(1, max_length // 2))
            assert block.correct[row, :column].tolist() == answers.correct[window[:column]].tolist()
            judged.append(int(answer))
    assert sorted(judged) == answers.of_part(part).tolist()


def test_ranks_share_the_judged_blocks():
    windows = JudgedWindows(numbered(), "test", 8)
    alone = [block.answers.tolist() for block in windows.blocks(3)]
    shared = [[block.answers.tolist() for block in windows.blocks(3, rank, 2)] for rank in range(2)]
    assert sorted(shared[0] + shared[1]) == sorted(alone)
    assert alone[0::2] == shared[0]


def test_the_batch_size_follows_the_number_of_windows():
    answers = answers_of(make_data([40] * 3000), parts())
    assert tracing_batch_size(answers, 8) == 64
    assert trained_of_users(answers).sum() == answers.trained.sum()


def test_data_without_answers_name_the_tasks_they_offer_and_the_setting():
    data = make_data(answers_correct=None, impressions_candidates=np.zeros((1, 2)))
    with pytest.raises(DataError) as caught:
        answers_of(data, parts())
    assert "offers next_item and news" in str(caught.value)
    assert "dataset.correct=COLUMN" in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "shares", "part"),
    [([1, 1], {"test_share": 0.1}, "valid"), ([4], {"test_share": 0.1, "valid_share": 0.4}, "test")],
)
def test_an_empty_part_is_an_error_that_names_it(sizes, shares, part):
    with pytest.raises(DataError, match=f"in the {part} part"):
        answers_of(make_data(sizes), parts(cold_item_share=0, **shares))
