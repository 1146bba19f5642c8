"""Adam that counts the steps of each number: slots that begin anew, saved states, flags, counts that stop."""

import copy
import pickle

import pytest
import torch
from effrec_kernels import AdamRule, Moments, RowAdam, RowSparse, adam_rows_, coalesce
from effrec_kernels.row_adam import MOST_STEPS

KERNELS = ["torch", "triton"]
KINDS = [
    pytest.param({}, id="adam"),
    pytest.param({"weight_decay": 0.1}, id="L2"),
    pytest.param({"weight_decay": 0.1, "decoupled": True}, id="adamw"),
    pytest.param({"betas": (0.0, 0.5), "eps": 1e-3}, id="other betas"),
]
V = 20


@pytest.fixture(autouse=True)
def _with_triton():
    pytest.importorskip("triton")


def table(dim=3):
    return torch.nn.Parameter(torch.randn(V, dim, generator=torch.Generator().manual_seed(9)))


def gradients(dim=3, seed=0):
    """Yields gradients of a third of the rows, some of which stand in them twice."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        at = torch.randint(V, (8,), generator=draw)
        yield RowSparse(at, torch.randn(8, dim, generator=draw), V).gradient()


def renewed(step, dim):
    """Returns the slots [V, D] that grow in this step: every fifth step, other ones."""
    draw = torch.Generator().manual_seed(100 + step)
    return (torch.rand(V, dim, generator=draw) < 0.3) & (step % 5 == 4)


def reset(slots, *tensors):
    for one in tensors:
        one[slots] = 0


class Textbook:
    """Adam of each number by itself, in float64, of those that a gradient holds."""

    def __init__(self, values, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
        self.values = values.detach().double().clone()
        self.mean, self.square, self.steps = (torch.zeros_like(self.values) for _ in range(3))
        self.lr, self.betas, self.eps = lr, betas, eps
        self.decay, self.decoupled = weight_decay, decoupled

    def step(self, gradient):
        held = torch.zeros(V, 1, dtype=torch.bool)
        held[gradient._indices()[0]] = True
        g, (b1, b2) = gradient.to_dense().double(), self.betas
        shrunk = self.values * (1 - self.lr * self.decay) if self.decoupled else self.values
        g = g if self.decoupled else g + self.decay * self.values
        mean, square = b1 * self.mean + (1 - b1) * g, b2 * self.square + (1 - b2) * g * g
        steps = self.steps + 1
        move = self.lr * mean / (1 - b1**steps) / ((square / (1 - b2**steps)).sqrt() + self.eps)
        new = {"values": shrunk - move, "mean": mean, "square": square, "steps": steps}
        for name, one in new.items():
            setattr(self, name, torch.where(held, one, getattr(self, name)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("kind", "dim"), [(one.values[0], dim) for one, dim in zip(KINDS, [300, 3, 17, 1], strict=True)]
)
def test_slots_that_begin_anew_move_as_by_the_textbook(kind, dim, kernel, device):
    moving = torch.nn.Parameter(table(dim).detach().to(device))
    ours = RowAdam([moving], lr=0.01, slot_steps=True, kernel=kernel, **kind)
    plain, drawn = Textbook(moving.cpu(), lr=0.01, **kind), gradients(dim)
    for step in range(25):
        gradient = next(drawn)
        moving.grad = gradient.to(device)
        plain.step(gradient)
        ours.step()
        slots, state = renewed(step, dim), ours.state[moving]
        reset(slots.to(device), moving.detach(), state["exp_avg"], state["exp_avg_sq"], state["row_steps"])
        reset(slots, plain.values, plain.mean, plain.square, plain.steps)
    assert state["row_steps"].dtype == torch.int16
    assert torch.equal(state["row_steps"].double().cpu(), plain.steps)
    assert dim == 1 or (state["row_steps"] != state["row_steps"][:, :1]).any(), "ages differ in rows"
    for found, true in ((moving, plain.values), (state["exp_avg_sq"], plain.square)):
        torch.testing.assert_close(found.detach().double().cpu(), true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_grown_slots_first_step_is_one_learning_rate(kernel):
    """Counting the row's steps makes it (1 - b1) / sqrt(1 - b2) of one: 3.16."""
    moves = []
    for slot_steps in (True, False):
        moving = torch.nn.Parameter(torch.ones(1, 2))
        optimizer = RowAdam([moving], lr=0.01, slot_steps=slot_steps, kernel=kernel)
        moving.grad = RowSparse(torch.tensor([0]), torch.ones(1, 2), 1).gradient()
        optimizer.step()
        state = optimizer.state[moving]
        state["row_steps"].fill_(20_000)
        grown = ["exp_avg", "exp_avg_sq", *(["row_steps"] if slot_steps else [])]
        reset((0, 1), *(state[name] for name in grown))
        before = moving.detach().clone()
        optimizer.step()
        moves.append(float((before - moving.detach())[0, 1]))
    assert moves == pytest.approx([0.01, 0.01 * 0.1 / 0.001**0.5], rel=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_those_of_row_counts_where_all_slots_began_together(kind, kernel):
    ends = []
    for slot_steps in (False, True):
        moving, drawn = table(300), gradients(300)
        optimizer = RowAdam([moving], lr=0.01, slot_steps=slot_steps, kernel=kernel, **kind)
        for _ in range(6):
            moving.grad = next(drawn)
            optimizer.step()
        ends.append((moving.detach(), optimizer.state[moving]["exp_avg"]))
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("kernel", KERNELS)
def test_unused_slots_scales_and_flags(kernel):
    plain, slotted = table(17), table(17)
    one = RowAdam([plain], lr=0.01, slot_steps=True, kernel="torch")
    other = RowAdam([slotted], lr=0.01, slot_steps=True, kernel=kernel)
    drawn = gradients(17)
    one.grad_scale = other.grad_scale = torch.tensor(8.0)
    for step in range(6):
        one.found_inf = other.found_inf = torch.tensor(float(step == 3))
        plain.grad = next(drawn)
        slotted.grad = coalesce(plain.grad, compact=False).gradient(coalesced=True)
        state = other.state[slotted]
        before = [slotted.detach().clone(), *(copy.deepcopy(state)[name] for name in state)]
        one.step()
        other.step()
        after = [slotted.detach(), *other.state[slotted].values()]
        same = [torch.equal(*pair) for pair in zip(before, after, strict=False)]
        assert all(same) if step == 3 else not any(same)
    torch.testing.assert_close(plain, slotted, rtol=1e-6, atol=1e-7)
    assert torch.equal(one.state[plain]["row_steps"], other.state[slotted]["row_steps"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_counts_stop_where_16_bits_end(kernel):
    moving, moments = table().detach(), Moments.of(table().detach(), slot_steps=True)
    moments.row_steps.fill_(MOST_STEPS - 1)
    gradient = RowSparse(torch.tensor([0, 4]), torch.ones(2, 3), V)
    for _ in range(3):
        adam_rows_(moving, moments, gradient, AdamRule(0.1, (0.9, 0.999), 1e-8, 0.0, False), kernel=kernel)
    assert moments.row_steps[[0, 4]].tolist() == [[MOST_STEPS] * 3] * 2
    assert torch.isfinite(moving).all()


@pytest.mark.parametrize(
    "again",
    [
        lambda old, new: new.load_state_dict(copy.deepcopy(old.state_dict())) or new,
        lambda old, new: new.load_state_dict(pickle.loads(pickle.dumps(old.state_dict()))) or new,
        lambda old, new: copy.deepcopy(old),
    ],
    ids=["state", "saved state", "copy"],
)
def test_a_resumed_run_gives_the_same_bits(again):
    moving, drawn = table(), gradients()
    optimizer = RowAdam([moving], lr=0.01, slot_steps=True)
    for _ in range(5):
        moving.grad = next(drawn)
        optimizer.step()
    reset(renewed(4, 3), *optimizer.state[moving].values())
    other = torch.nn.Parameter(moving.detach().clone())
    # Settings are the saved ones, as with every optimizer of PyTorch.
    resumed = again(optimizer, RowAdam([other]))
    other = resumed.param_groups[0]["params"][0]
    assert resumed.state[other]["row_steps"].dtype == torch.int16
    for _ in range(5):
        moving.grad = other.grad = next(drawn)
        optimizer.step()
        resumed.step()
    assert torch.equal(moving, other)
    assert torch.equal(optimizer.state[moving]["row_steps"], resumed.state[other]["row_steps"])


def test_a_state_from_before_there_were_ages_is_taken():
    optimizer = RowAdam([table()])
    state = optimizer.state_dict()
    del state["param_groups"][0]["slot_steps"]
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["slot_steps"] is False


def test_betas_whose_correction_outlives_the_count_are_refused():
    RowAdam([table()], betas=(0.9, 0.9994), slot_steps=True)
    with pytest.raises(ValueError, match=r"32,767.*at most 0.99947, not 0.9999; count steps of rows"):
        RowAdam([table()], betas=(0.9, 0.9999), slot_steps=True)
    RowAdam([table()], betas=(0.9, 0.9999))
    gradient = RowSparse(torch.tensor([0]), torch.ones(1, 3), V)
    moments = Moments.of(table().detach(), slot_steps=True)
    with pytest.raises(ValueError, match="32,767"):
        adam_rows_(table().detach(), moments, gradient, AdamRule(0.1, (0.9995, 0.9), 1e-8, 0.0, False))
    with pytest.raises(TypeError, match="slot_steps must be True or False"):
        RowAdam([table()], slot_steps=1)
