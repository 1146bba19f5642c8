"""The row-wise Adam: lazy semantics, dense Adam where every row is touched, flags on the device, memory."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from effrec_kernels import AdamRule, Moments, RowAdam, RowSparse, adam_rows_, coalesce, sampled_cross_entropy

V, D = 40, 6
KINDS = [
    pytest.param({}, id="adam"),
    pytest.param({"weight_decay": 0.1}, id="L2"),
    pytest.param({"weight_decay": 0.1, "decoupled": True}, id="adamw"),
    pytest.param({"betas": (0.0, 0.5), "eps": 1e-3}, id="other betas"),
]


class Plain:
    """The same written plainly: one row after the other, in float64."""

    def __init__(self, table, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
        self.table = table.detach().double().clone()
        self.mean, self.square = torch.zeros_like(self.table), torch.zeros_like(self.table)
        self.steps = [0] * len(table)
        self.lr, self.betas, self.eps = lr, betas, eps
        self.weight_decay, self.decoupled = weight_decay, decoupled

    def step(self, gradient):
        (b1, b2), lr = self.betas, self.lr
        rows, values = gradient._indices()[0].tolist(), gradient._values().double()
        for row in sorted(set(rows)):
            g = sum(value for at, value in zip(rows, values, strict=True) if at == row)
            if self.decoupled:
                self.table[row] *= 1 - lr * self.weight_decay
            else:
                g = g + self.weight_decay * self.table[row]
            self.steps[row] += 1
            n = self.steps[row]
            self.mean[row] = b1 * self.mean[row] + (1 - b1) * g
            self.square[row] = b2 * self.square[row] + (1 - b2) * g * g
            root = (self.square[row] / (1 - b2**n)).sqrt() + self.eps
            self.table[row] -= lr * self.mean[row] / (1 - b1**n) / root


def draws(seed=0, slots=12, rows=V, dim=D):
    """Yields gradients in which rows stand several times, or not at all."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        at = (torch.rand(slots, generator=draw) ** 3 * rows).long()
        yield RowSparse(at, torch.randn(slots, dim, generator=draw), rows).gradient()


def table(dtype=torch.float32, rows=V, dim=D):
    values = torch.randn(rows, dim, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return torch.nn.Parameter(values.to(dtype))


def relative(found, true):
    found, true = found.detach().double(), true.detach().double()
    return float((found - true).norm() / true.norm())


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_steps_end_where_the_plain_way_ends(kind, kernel):
    pytest.importorskip("triton")
    moving = table()
    ours, plain = RowAdam([moving], lr=0.01, kernel=kernel, **kind), Plain(moving, lr=0.01, **kind)
    gradients = draws()
    for _ in range(100):
        moving.grad = next(gradients)
        plain.step(moving.grad)
        ours.step()
    state = ours.state[moving]
    assert relative(moving, plain.table) <= 2e-6
    assert relative(state["exp_avg"], plain.mean) <= 1e-5
    assert relative(state["exp_avg_sq"], plain.square) <= 1e-5
    assert state["row_steps"].tolist() == plain.steps


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_dense_adam_where_every_row_is_touched(kind, kernel):
    pytest.importorskip("triton")
    options = {name: value for name, value in kind.items() if name != "decoupled"}
    dense = torch.optim.AdamW if kind.get("decoupled") else torch.optim.Adam
    rows, whole = table(), table()
    whole = torch.nn.Parameter(whole.detach(), requires_grad=True)
    ours = RowAdam([rows], lr=0.01, kernel=kernel, **kind)
    theirs = dense([whole], lr=0.01, **{"weight_decay": 0.0, **options})
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        values, order = torch.randn(V, D, generator=draw), torch.randperm(V, generator=draw)
        rows.grad = RowSparse(order, values, V).gradient()
        whole.grad = rows.grad.to_dense()
        ours.step()
        theirs.step()
    torch.testing.assert_close(rows, whole, rtol=2e-6, atol=1e-6)


def test_rows_without_a_gradient_stay_as_they_are():
    moving = table()
    optimizer = RowAdam([moving], lr=0.1, weight_decay=0.5, decoupled=True)
    for at in ([1, 5], [5, 9]):
        moving.grad = RowSparse(torch.tensor(at), torch.ones(2, D), V).gradient()
        before = {name: one.clone() for name, one in {**optimizer.state[moving], "table": moving}.items()}
        optimizer.step()
        others = torch.ones(V, dtype=torch.bool)
        others[at] = False
        for name, one in before.items():
            after = moving if name == "table" else optimizer.state[moving][name]
            assert torch.equal(after[others], one[others]), name
            assert not torch.equal(after[at], one[at]), name
    assert optimizer.state[moving]["row_steps"].nonzero().flatten().tolist() == [1, 5, 9]


def test_a_rows_first_step_is_one_learning_rate_whenever_it_comes():
    """Counting all steps would make it lr (1 - b1) / sqrt(1 - b2): 3.2 times as far."""
    moving = table()
    optimizer = RowAdam([moving], lr=0.01)
    for _ in range(50):
        moving.grad = RowSparse(torch.tensor([1]), torch.ones(1, D), V).gradient()
        optimizer.step()
    before = moving.detach().clone()
    moving.grad = RowSparse(torch.tensor([2]), torch.full((1, D), -7.0), V).gradient()
    optimizer.step()
    torch.testing.assert_close(moving[2] - before[2], torch.full((D,), 0.01), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("dim", [1, 16, 300])
def test_unused_slots_scales_and_flags(kernel, dim):
    """Slots that hold V move nothing, gradients are divided by the scale, a flag bars the whole step."""
    pytest.importorskip("triton")
    full, slotted = table(dim=dim), table(dim=dim)
    one, other = RowAdam([full], lr=0.01, kernel="torch"), RowAdam([slotted], lr=0.01, kernel=kernel)
    gradients = draws(dim=dim)
    one.grad_scale = other.grad_scale = torch.tensor(8.0)
    for step in range(10):
        one.found_inf = other.found_inf = torch.tensor(float(step == 4))
        full.grad = next(gradients)
        slotted.grad = coalesce(full.grad, compact=False).gradient(coalesced=True)
        assert (slotted.grad._indices() == V).any()
        before = slotted.detach().clone()
        one.step()
        other.step()
        assert torch.equal(before, slotted) == (step == 4)
    torch.testing.assert_close(full, slotted, rtol=1e-6, atol=1e-7)
    assert torch.equal(one.state[full]["row_steps"], other.state[slotted]["row_steps"])


@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_a_gradient_without_a_single_row_moves_nothing(kernel):
    pytest.importorskip("triton")
    moving = table()
    before, moments = moving.detach().clone(), Moments.of(moving.detach())
    rule = AdamRule(0.1, (0.9, 0.999), 1e-8, 0.1, False)
    for slots in (0, 3):
        empty = RowSparse(torch.full((slots,), V), torch.zeros(slots, D), V)
        adam_rows_(moving, moments, empty, rule, kernel=kernel)
    assert torch.equal(moving, before)
    assert not moments.row_steps.any()


def test_two_runs_give_the_same_bits_also_over_a_saved_state():
    def run(saved_at=None):
        moving, gradients = table(), draws(3)
        optimizer = RowAdam([moving], lr=0.01)
        for step in range(20):
            if step == saved_at:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = RowAdam([moving], lr=0.01)
                optimizer.load_state_dict(state)
            moving.grad = next(gradients)
            optimizer.step()
        return moving.detach()

    assert torch.equal(run(), run())
    assert torch.equal(run(), run(saved_at=7))


def tied(sparse, steps=100, every=1):
    """Trains a tied table: states are looked-up rows, moved by a layer, scored against the same table."""
    items = 60
    weights = table(torch.float64, items, 8)
    layer = torch.nn.Parameter(torch.eye(8, dtype=torch.float64))
    dense = torch.optim.Adam([layer], lr=0.01)
    rows = RowAdam([weights], lr=0.01)
    draw = torch.Generator().manual_seed(1)
    plain = Plain(weights, lr=0.01)
    for step in range(steps):
        for micro in range(every):
            inputs, targets = torch.randint(items, (2, 24), generator=draw)
            hidden = F.embedding(inputs, weights, sparse=sparse) @ layer
            options = {"sharing": 8, "num_negatives": 5, "step": every * step + micro}
            sampled_cross_entropy(hidden, weights, targets, sparse=sparse, **options).backward()
        if sparse:
            rows.step()
        else:
            touched = weights.grad.abs().sum(1).nonzero().flatten()
            plain.step(RowSparse(touched, weights.grad[touched], items).gradient())
            with torch.no_grad():
                weights.copy_(plain.table)
        dense.step()
        weights.grad = layer.grad = None
    return weights.detach(), layer.detach()


@pytest.mark.parametrize("every", [1, 2])
def test_a_hundred_steps_of_a_tied_table_equal_the_lazy_reference_on_dense_gradients(every):
    """Head, look-up and micro-batches: what autograd adds up as rows moves as what it adds up densely."""
    for found, true in zip(tied(True, every=every), tied(False, every=every), strict=True):
        assert relative(found, true) <= 1e-9


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lr": -1}, ValueError, "negative"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas"),
        ({"decoupled": "no"}, TypeError, "decoupled must be True or False, not 'no'"),
        ({"kernel": "reference"}, ValueError, "kernel"),
        ({"params": torch.nn.Parameter(torch.zeros(3))}, ValueError, r"\[V, D\]"),
        ({"params": torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16))}, TypeError, "float32"),
    ],
)
def test_bad_arguments(options, error, words):
    options = {"params": table(), **options}
    with pytest.raises(error, match=words):
        RowAdam([options.pop("params")], **options)


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("by_slot", [False, True], ids=["rows", "numbers"])
@pytest.mark.parametrize("dim", [1, D, 300])
def test_a_dense_gradient_moves_all_rows(dim, by_slot, kernel):
    """To the bit as one that holds each of them, in any order, and as Adam does."""
    pytest.importorskip("triton")
    dense, rows, whole = (table(dim=dim) for _ in range(3))
    ours = [RowAdam([one], lr=0.01, kernel=kernel, slot_steps=by_slot) for one in (dense, rows)]
    theirs, draw = torch.optim.Adam([whole], lr=0.01), torch.Generator().manual_seed(0)
    for _ in range(20):
        dense.grad = torch.randn(dim, V, generator=draw).T if dim > 1 else torch.randn(V, 1, generator=draw)
        order, whole.grad = torch.randperm(V, generator=draw), dense.grad.clone()
        rows.grad = RowSparse(order, dense.grad[order], V).gradient()
        for optimizer in (*ours, theirs):
            optimizer.step()
    assert torch.equal(dense, rows)
    torch.testing.assert_close(dense, whole, rtol=2e-6, atol=1e-6)


PROGRAM = """
import json, sys
import torch, torch.nn.functional as F
from effrec_kernels import RowAdam, sampled_cross_entropy
from test_memory import allocations
torch.set_num_threads(1)
items, dim, sparse = 1_000_000, 16, json.loads(sys.argv[1])
def train(table):
    optimizer = RowAdam([table]) if sparse else torch.optim.Adam([table], fused=True)
    for number in range(3):
        draw = torch.Generator().manual_seed(number)
        inputs, targets = torch.randint(len(table), (2, 256), generator=draw)
        hidden = F.embedding(inputs, table, sparse=sparse) * 2
        options = {"sharing": 64, "num_negatives": 255, "step": number, "chunk_bytes": 1 << 20}
        sampled_cross_entropy(hidden, table, targets, sparse=sparse, **options).backward()
        optimizer.step()
        optimizer.zero_grad()
train(torch.nn.Parameter(torch.full((10_000, dim), 0.01)))
table = torch.nn.Parameter(torch.full((items, dim), 0.01))
print(json.dumps([part / table.nbytes for part in allocations(lambda: train(table))]))
"""


def test_a_large_table_costs_itself_and_two_moments():
    """What a process of its own allocates besides the table, in tables: the moments, counts, a few rows."""
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parents[2] / "kernels"), str(here.parent)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def largest_and_peak(sparse):
        command = [sys.executable, "-c", PROGRAM, json.dumps(sparse)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    largest, peak = largest_and_peak(True)
    assert largest <= 1
    assert peak <= 2 + 1 / 16 + 0.1
    assert largest_and_peak(False)[1] >= 3, "the measure sees a gradient of the table's size"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_goes_on_as_the_original(copied):
    moving = table()
    optimizer = RowAdam([moving], lr=0.1, kernel="torch")
    moving.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, moving.shape[1]), moving.shape)
    optimizer.step()
    other = copied(optimizer)
    same = other.param_groups[0]["params"][0]
    for one, its in ((optimizer, moving), (other, same)):
        its.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, moving.shape[1]), moving.shape)
        one.step()
    assert same is not moving
    assert torch.equal(same, moving)
