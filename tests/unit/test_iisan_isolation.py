"""The backbones stand still: untouched, in evaluation, and nothing of them kept for a gradient."""

import pytest
import torch
from iisan_helpers import LIVE, Course, backbones, built, whole_batch


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("iisan")


def test_a_step_leaves_the_backbones_as_they_were(root):
    course = Course(built(root, *LIVE))
    networks = backbones(course.method)
    before = [{name: each.clone() for name, each in net.state_dict().items()} for net in networks]
    own = {id(each) for net in networks for each in net.parameters()}
    for optimizer in course.engine.optimizers:
        assert not own & {id(each) for group in optimizer.param_groups for each in group["params"]}
    course.step()
    assert course.gradients[0].keys() == {name for name, _ in course.method.model.named_parameters()}
    for network, weights in zip(networks, before, strict=True):
        for name, each in network.named_parameters():
            assert each.grad is None
            assert not each.requires_grad
            assert torch.equal(each, weights[name]), name


def test_backbones_stay_in_evaluation_and_read_the_same_in_training(root):
    method = built(root, *LIVE, "method.text.dropout=0.5", "method.image.dropout=0.5")
    method.model.train()
    items = torch.arange(40)
    taps = [method.encoder.source(items) for _ in range(2)]
    assert not any(module.training for network in backbones(method) for module in network.modules())
    for first, second in zip((*taps[0].text, *taps[0].image), (*taps[1].text, *taps[1].image), strict=True):
        assert torch.equal(first, second)
        assert first.grad_fn is None
        assert not first.requires_grad


def kept_bytes(method):
    """Returns what autograd keeps of a step from its forward to its backward pass."""
    kept, batch = [], whole_batch(method)
    method.model.train()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda each: kept.append(each.nbytes) or each, lambda each: each
    ):
        method.loss(batch)
    return sum(kept)


DEEP = [f"method.{name}.num_layers=6" for name in ("text", "image")]


def test_what_is_kept_for_gradients_grows_with_neither_depth_nor_tokens_nor_pixels(root):
    taps = ["method.text_taps=[0,1,2]", "method.image_taps=[0,1,2]"]
    far = ["method.text_taps=[0,3,6]", "method.image_taps=[0,3,6]"]
    small = built(root, *LIVE, *taps, "method.text.max_tokens=3")
    larger = built(root, *LIVE, *far, *DEEP, "method.text.max_tokens=30")
    longest = [each.encoder.source.text.costs.max() for each in (small, larger)]
    assert 2 * longest[0] <= longest[1]
    assert kept_bytes(small) == kept_bytes(larger) > 0
    assert kept_bytes(built(root, *taps)) == kept_bytes(small), "and as much as with a cache"


def test_a_backbone_that_trains_keeps_more_the_deeper_it_is(root):
    """So that the test above could see it."""
    assert kept_bytes(built(root, *DEEP, mode="fft")) > 1.3 * kept_bytes(built(root, mode="fft"))


def test_frozen_backbones_beside_a_head_have_no_gradient_and_draw_nothing(root):
    course = Course(built(root, *LIVE, "method.text.dropout=0.5", mode="frozen"))
    before = course.weights()
    first, second = (course.method.loss(whole_batch(course.method)).item() for _ in range(2))
    assert first == second
    course.step()
    assert {name.split(".")[1] for name in course.gradients[0] if name.startswith("encoder.")} == {"head"}
    for name, each in course.weights().items():
        if name.startswith("encoder.backbones."):
            assert torch.equal(each, before[name]), name
