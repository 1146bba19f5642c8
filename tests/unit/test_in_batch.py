"""The in-batch loss: equal to a loop over users, positions and places, whatever repeats."""

import math

import numpy as np
import pytest
import torch
from ranking_helpers import make_data
from test_cce import chain
from test_content_next_item import WIDE, make, table
from torch.utils._python_dispatch import TorchDispatchMode

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.data.in_batch import InBatches
from effrec_cli.distributed import World
from effrec_cli.methods.next_item.in_batch import in_batch_cross_entropy

POPULARITY = (0.4, 0.2, 0.2, 0.2)
# Two windows, of the items 1 2 and 3 1 4; columns are the items 1 to 4, of which 1 stands there twice.
LABELS, WINDOWS = torch.tensor([1, 0, 3]), torch.tensor([0, 1, 1])
MEMBERS = torch.tensor([[0, 1, 4], [2, 0, 3]])
TIMES = torch.tensor([2.0, 1, 1, 1], dtype=torch.float64).log()
VECTORS = torch.tensor([[1, 0], [0, 1], [1, 1], [2, -1]], dtype=torch.float64)
STATES = torch.tensor([[0.5, 1], [1, 0], [-0.5, 0.5]], dtype=torch.float64)
GOLDEN = [
    (0 * STATES, (math.log(3), math.log(3), math.log(2)), 0.963457253),
    (STATES, (1.104130605, 0.551444714, 2.126928011), 1.260834443),
]


def of_example(states, rows):
    return in_batch_cross_entropy(
        states[rows],
        VECTORS,
        LABELS[rows],
        WINDOWS[rows],
        MEMBERS,
        TIMES,
        torch.tensor(POPULARITY, dtype=torch.float64).log(),
        temperature=1.0,
        normalizer=len(states[rows]),
    )


@pytest.mark.parametrize(("states", "by_row", "mean"), GOLDEN)
def test_worked_examples(states, by_row, mean):
    assert of_example(states, slice(None)).item() == pytest.approx(mean, abs=1e-9)
    for row, expected in enumerate(by_row):
        assert of_example(states, slice(row, row + 1)).item() == pytest.approx(expected, abs=1e-9)


def by_place(states, vectors, windows, log_p, temperature):
    """Returns the loss as section 1.8 writes it: a column for every place of every window, a loop over rows.

    Args:
        states: [m, D], window after window.
        vectors: [V, D] of all items.
        windows: lists of items.
        log_p: [V].
    """
    places = [(window, at, item) for window, items in enumerate(windows) for at, item in enumerate(items)]
    losses, row = [], 0
    for window, items in enumerate(windows):
        for at in range(1, len(items)):
            logits, target = [], None
            for other, place, item in places:
                logit = states[row] @ vectors[item] / temperature - log_p[item]
                if (other, place) == (window, at):
                    target = logit
                if (other, place) == (window, at) or item not in items:
                    logits.append(logit)
            losses.append(torch.logsumexp(torch.stack(logits), 0) - target)
            row += 1
    return torch.stack(losses).mean()


def windows_of(batch):
    """Returns the items of each window of a batch of rows."""
    tensors = batch.tensors
    columns = [*tensors["candidates"].tolist(), None]
    found = [[columns[column] for column in row if columns[column] is not None] for row in tensors["members"]]
    inputs = [[item for item in row if item != PAD_ITEM] for row in tensors["inputs"].tolist()]
    assert [items[:-1] for items in found] == inputs
    return found


class Given:
    """A filter of given states, which takes items' vectors as they are."""

    def __init__(self, states):
        self.states = states

    def __call__(self, *_):
        return self.states

    def item_vectors(self, vectors):
        return vectors


def people(sequences, num_items):
    """Returns data whose users train on these items; 0 and 1 are told."""
    return make_data(sequences, [[0, 1]] * len(sequences), num_items)


@pytest.mark.parametrize("correction", ["popularity", "none"])
@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_loop_over_places(seed, correction):
    """Few items, so that they repeat inside windows and between them, targets in their own window too."""
    draw = np.random.default_rng(seed)
    num_items = int(draw.integers(2, 9))
    sequences = [draw.integers(0, num_items, draw.integers(1, 9)) for _ in range(draw.integers(2, 6))]
    sequences[0] = draw.integers(0, num_items, 4)
    data = people(sequences, num_items)
    task, _ = make(data, batch_size=5, candidates="batch", correction=correction, temperature=0.7)
    counts = data.train_counts()
    log_p = torch.from_numpy(np.log(np.maximum(counts, 1) / counts.sum())) * (correction == "popularity")
    batch = task.batches().batch(0, 0, Share(), 0)
    vectors = torch.randn(num_items, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    states = torch.randn(batch.total_targets, 3, dtype=torch.float64)
    found = []
    for by in ("columns", "places"):
        leaves = states.clone().requires_grad_(), vectors.clone().requires_grad_()
        if by == "columns":
            loss = task.loss(Given(leaves[0]), leaves[1], batch)
        else:
            loss = by_place(*leaves, windows_of(batch), log_p, 0.7)
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


def test_a_row_with_nothing_to_tell_its_target_from_costs_nothing():
    """One window, or all alike: no other item is in the step."""
    for sequences in ([[3, 1]], [[3, 1, 3]], [[2, 2, 2, 2]], [[1, 2, 3]] * 5):
        task, filter = make(people(sequences, 4), candidates="batch", correction="popularity")
        batch = task.batches().batch(0, 0, Share(), 0)
        vectors = table(4).requires_grad_()
        states = torch.randn(batch.total_targets, WIDE, dtype=torch.float64, requires_grad=True)
        loss = task.loss(Given(states), vectors, batch)
        loss.backward()
        assert loss.item() == 0
        assert not vectors.grad.any()
        assert not states.grad.any()
        assert filter is not None


def test_an_item_met_once_weighs_by_its_share():
    """Items 0 and 1 have 9 and 1 training rows."""
    data = people([[0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], 2)
    batch = InBatches(data, 8, 5, "slide", 0).batch(0, 0, Share(), 0)
    assert batch.tensors["candidates"].tolist() == [0, 1]
    torch.testing.assert_close(batch.tensors["log_p"].exp(), torch.tensor([0.9, 0.1]))
    assert batch.tensors["log_times"].exp().round().tolist()[1] == 1


def test_columns_are_the_items_of_the_whole_steps_windows_with_their_numbers():
    data = chain()
    batches = InBatches(data, 7, 5, "slide", 3)
    for position in range(3):
        whole = batches.batch(1, position, Share(), 9)
        places = [item for window in windows_of(whole) for item in window]
        items, times = np.unique(places, return_counts=True)
        assert whole.tensors["candidates"].tolist() == items.tolist()
        np.testing.assert_allclose(whole.tensors["log_times"].exp().numpy(), times, rtol=1e-6)
        for share in [Share(rank, 2, micro, 3) for rank in range(2) for micro in range(3)] + [Share(8, 9)]:
            own = batches.batch(1, position, share, 9).tensors
            assert all(
                torch.equal(own[name], whole.tensors[name]) for name in ("candidates", "log_times", "log_p")
            )
    targets = whole.tensors["candidates"][whole.tensors["labels"]].tolist()
    assert targets == [item for window in windows_of(whole) for item in window[1:]]


def test_last_windows_have_the_items_before_the_held_out_ones():
    data = chain(num_users=9)
    batches = InBatches(data, 16, 5, "last", 3)
    found = sorted(windows_of(batches.batch(0, 0, Share(), 0)))
    assert found == sorted(data.sequences.items[end - 6 : end].tolist() for end in data.train_end)


def test_the_order_of_windows_changes_nothing():
    order = torch.tensor([2, 0, 1])
    permuted = in_batch_cross_entropy(
        STATES[order],
        VECTORS,
        LABELS[order],
        1 - WINDOWS[order],
        MEMBERS.flip(0),
        TIMES,
        None,
        temperature=2.0,
        normalizer=3,
    )
    plain = in_batch_cross_entropy(
        STATES, VECTORS, LABELS, WINDOWS, MEMBERS, TIMES, None, temperature=2.0, normalizer=3
    )
    assert permuted.item() == pytest.approx(plain.item(), abs=1e-12)


def test_rankings_are_not_corrected():
    found = []
    for correction in ("popularity", "none"):
        task, filter = make(candidates="batch", correction=correction)
        found.append(task.judge(filter, table(), "test", World()))
    assert found[0] == found[1]


class Counter(TorchDispatchMode):
    """Counts the operators that run."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("correction", ["popularity", "none"])
def test_as_many_kernels_whatever_the_size_of_a_step(correction):
    found = set()
    for size in (2, 5, 23):
        task, _ = make(batch_size=size, candidates="batch", correction=correction)
        batch = task.batches().batch(0, 0, Share(), 0)
        states = torch.randn(len(batch.tensors["labels"]), 8, requires_grad=True)
        vectors = torch.randn(task.num_items, 8, requires_grad=True)
        with Counter() as counter:
            task.loss(Given(states), vectors, batch).backward()
        found.add(counter.count)
    assert len(found) == 1
    assert found.pop() < 60


def test_half_precision_products_are_told_in_float32():
    states, items = STATES.bfloat16().requires_grad_(), VECTORS.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = in_batch_cross_entropy(
            states, items, LABELS, WINDOWS, MEMBERS, TIMES, None, temperature=1.0, normalizer=3
        )
    assert loss.dtype == torch.float32
    exact = in_batch_cross_entropy(
        STATES, VECTORS, LABELS, WINDOWS, MEMBERS, TIMES, None, temperature=1.0, normalizer=3
    )
    assert loss.item() == pytest.approx(exact.item(), abs=1e-6)
    loss.backward()
    assert states.grad.isfinite().all()
