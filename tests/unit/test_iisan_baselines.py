"""What the side network is compared with, as whole methods: where each starts, and what it trains."""

import pytest
import torch
from iisan_helpers import DRY, LIVE, MODES, Course, built

from effrec_cli.data.batches import Share

TRAINED = ("fft", "adapter", "lora", "bitfit")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("iisan")


def with_heads_of(method, other):
    """Gives a method another one's head, which each draws for itself."""
    method.encoder.head.load_state_dict(other.encoder.head.state_dict())
    return method


@pytest.mark.parametrize("mode", TRAINED)
def test_before_the_first_step_it_is_the_frozen_model(root, mode):
    """Adapters add nothing yet, and no pretrained weight is lost (papers/iisan, test 30).

    To the bit, but where all weights train: torch takes another kernel for patches of images then.
    """
    frozen = built(root, *LIVE, mode="frozen")
    method = with_heads_of(built(root, mode=mode), frozen)
    assert torch.allclose(method.table(), frozen.table(), rtol=0, atol=2e-6 if mode == "fft" else 0)
    Course(method).step()
    assert not torch.allclose(method.table(), frozen.table(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", TRAINED)
def test_in_training_too_where_nothing_is_dropped_out(root, mode):
    frozen = built(root, *DRY, *LIVE, mode="frozen")
    method = with_heads_of(built(root, *DRY, mode=mode), frozen)
    method.filter.load_state_dict(frozen.filter.state_dict())
    losses = [Course(each).step() for each in (method, frozen)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6 if mode == "fft" else 0)


# Parts of the names of what trains below the backbones.
TRAINS = {
    "iisan": (),
    "fft": ("",),
    "adapter": ("down", "up"),
    "lora": ("lora",),
    "bitfit": ("bias",),
    "frozen": (),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_step_moves_what_the_mode_trains_and_nothing_else(root, mode):
    course = Course(built(root, *DRY, mode=mode))
    before = course.weights()
    for number in range(2):
        course.step(number)
    after, parameters = course.weights(), dict(course.method.model.named_parameters())
    inside = {name for name in after if name.startswith("encoder.backbones.")}
    trains = {name for name in inside if parameters[name].requires_grad}
    assert bool(trains) == bool(TRAINS[mode])
    for name in inside - trains:
        assert torch.equal(after[name], before[name]), name
    for name in trains:
        assert any(part in name.rpartition("backbones.")[2].lower() for part in TRAINS[mode]), name
    others = [name for name in after if name not in inside]
    for name in [*trains, *others]:
        assert name in course.gradients[-1], name
    moved = [name for name in [*trains, *others] if not torch.equal(after[name], before[name])]
    assert len(moved) > 0.8 * len([*trains, *others])


def test_all_modes_see_the_same_batches(root):
    seen = []
    for mode in MODES:
        course = Course(built(root, mode=mode))
        seen.append([whole.tensors for whole in batches_of(course)])
    for tensors in seen[1:]:
        for one, other in zip(tensors, seen[0], strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)


def batches_of(course):
    return [course.batches.batch(0, at, Share(), at) for at in range(course.batches.steps_per_epoch)]


@pytest.mark.parametrize("mode", TRAINED)
def test_company_changes_no_vector(root, mode):
    """Items encoded by few or many tokens at once."""
    few, many = (built(root, f"method.batch_tokens={count}", mode=mode) for count in (20, 8192))
    assert torch.allclose(few.table(), many.table(), rtol=1e-4, atol=1e-5)
