"""Method iisan where backbones run in every step: the end-to-end gradient, by one chunk's graph if asked."""

from dataclasses import replace

import pytest
import torch
from iisan_helpers import DRY, LIVE, Course, built, relative
from test_content_memory import Held

from effrec_cli.data.batches import Share
from effrec_cli.methods.content import graph_memory
from effrec_cli.methods.content.encoding import Encoding
from effrec_cli.methods.content.modes import EndToEnd
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.trial import DryEngine, try_step

CHUNKS = "method.batch_tokens=200"
DRAWN = ["method.text.dropout=0.3", "method.image.dropout=0.3"]
# Where dropout is drawn: inside backbones, or for items of a side network.
DRAWING = {
    "fft": ("fft", [CHUNKS, *DRAWN]),
    "lora": ("lora", [CHUNKS, *DRAWN]),
    "bitfit": ("bitfit", [CHUNKS, *DRAWN]),
    "iisan, live": ("iisan", ["method.batch_tokens=9", *LIVE, "method.modality_dropout=0.4"]),
}
EACH = pytest.mark.parametrize("name", DRAWING)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("iisan")


def second_step(root, name, *, recompute):
    """Returns loss and gradients of the second step, as it is trained and by ordinary autograd.

    Before the first one a low-rank update is nothing, and half of its gradients are.
    """
    mode, words = DRAWING[name]
    course = Course(built(root, *words, mode=mode, dtype=torch.float64))
    course.step(0)
    method = course.method
    method.mode.recompute = recompute
    trains = {key: each for key, each in method.model.named_parameters() if each.requires_grad}
    batch = course.batches.batch(0, 1, Share(), 1)
    assert len(method.encoding.plan(batch.host["items"], 0)) > 2
    true = method.loss(batch)
    gradients = torch.autograd.grad(true, trains.values(), allow_unused=True, materialize_grads=True)
    loss, found = course.step(1), course.gradients[1]
    own = [found.get(key, torch.zeros_like(each)) for key, each in trains.items()]
    flat = [torch.cat([each.flatten() for each in of_one]) for of_one in (own, gradients)]
    return loss, float(true.detach()), *flat


@EACH
@pytest.mark.parametrize("recompute", [False, True])
def test_it_is_the_end_to_end_gradient_with_the_same_draws(root, name, recompute):
    loss, true_loss, found, true = second_step(root, name, recompute=recompute)
    assert loss == pytest.approx(true_loss, rel=1e-12)
    assert relative(found, true) < 1e-12


@EACH
def test_other_draws_in_the_second_encoding_would_be_noticed(root, name, monkeypatch):
    encode = Encoding.encode

    def forgetful(self, chunk, *args, again=False):
        seed = chunk.seed + again
        other = type(chunk)(chunk.rows, chunk.width, seed, chunk.rank, chunk.places)
        return encode(self, other, *args, again=again)

    monkeypatch.setattr(Encoding, "encode", forgetful)
    *_, found, true = second_step(root, name, recompute=True)
    assert relative(found, true) > 0.01


@pytest.mark.parametrize("recompute", [False, True])
def test_micro_batches_share_one_encoding_of_the_step_and_its_gradient(root, recompute):
    whole, cut = (Course(built(root, CHUNKS, *DRY, mode="fft", dtype=torch.float64)) for _ in range(2))
    losses, encoded = [], []
    for course, micros in ((whole, 1), (cut, 3)):
        course.method.mode.recompute = recompute
        counted, encode = course.method.encoding, course.method.encoding.encode
        items = []
        counted.encode = lambda chunk, *args, items=items, encode=encode, **kwargs: (
            items.extend(chunk.rows) or encode(chunk, *args, **kwargs)
        )
        losses.append(course.step(0, micros))
        encoded.append(sorted(items))
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    assert encoded[1] == encoded[0]
    assert len(encoded[0]) == (1 + recompute) * len(set(encoded[0]))
    found, true = (torch.cat([g.flatten() for g in course.gradients[0].values()]) for course in (cut, whole))
    assert relative(found, true) < 1e-12


def test_a_micro_batch_of_as_many_other_items_has_their_vectors(root):
    """As where impressions bring their own candidates: here each position stands for another item."""
    course = Course(built(root, CHUNKS, *DRY, mode="fft", dtype=torch.float64))
    method = course.method
    one, two = (course.batches.batch(0, 0, Share(micro=micro, micros=2), 0) for micro in range(2))
    two = replace(two, host=two.host | {"items": two.host["items"][::-1].copy()})
    trains = {key: each for key, each in method.model.named_parameters() if each.requires_grad}
    loss = method.loss(one) + method.loss(two)
    true = torch.autograd.grad(loss, trains.values(), allow_unused=True, materialize_grads=True)
    for batch in (one, two):
        course.engine.last_micro_batch = batch is two
        method.training_step(batch, course.engine)
    own = [course.gradients[0].get(key, torch.zeros_like(each)) for key, each in trains.items()]
    found, flat = (torch.cat([each.flatten() for each in of_one]) for of_one in (own, true))
    assert relative(found, flat) < 1e-12


def test_a_step_that_broke_off_leaves_nothing_to_the_next(root):
    """Neither vectors of other weights nor half a step's gradients, though the items are the same."""
    fresh, broken = (Course(built(root, CHUNKS, *DRY, mode="fft", dtype=torch.float64)) for _ in range(2))
    backward, calls = broken.engine.backward, []

    def breaking(loss):
        calls.append(loss)
        if len(calls) == 2:
            raise KeyboardInterrupt
        backward(loss)

    broken.engine.backward = breaking
    with pytest.raises(KeyboardInterrupt):
        broken.step(0, micros=3)
    broken.engine.zero()
    for course in (fresh, broken):
        with torch.no_grad():
            course.method.encoder.head.fusion.weight.mul_(1.5)
    assert broken.step(0, micros=3) == pytest.approx(fresh.step(0, micros=3), rel=1e-12)
    found, true = (torch.cat([g.flatten() for g in each.gradients[0].values()]) for each in (broken, fresh))
    assert relative(found, true) < 1e-12


def tried(root, recompute, *, watched=False):
    """Returns for looks at a part of a step and twice at all of it: bytes kept, and those of the graphs."""
    method = built(root, CHUNKS, f"method.recompute={str(recompute).lower()}", mode="fft")
    batches, engine = method.batches(method.data), DryEngine("fp32", torch.device("cpu"))
    method.settle_memory(batches)
    held, found = Held(method.encoder) if watched else None, []
    for micros in (16, 1, 1):
        _, kept = try_step(method, batches, Share(micros=micros), engine)
        found.append(kept if held is None else held.most)
        if held is not None:
            assert held.now == 0
            held.most = 0
    return found


def test_a_look_at_memory_sees_the_backbones_graph_each_time(root):
    """Although every part of a step is told from all of its items."""
    part, whole, again = tried(root, False)
    assert part > 0.9 * whole
    assert whole == again > 20 * tried(root, True)[1]


@pytest.mark.parametrize("recompute", [False, True])
def test_a_look_at_memory_goes_back_through_the_backbones_and_leaves_none(root, recompute):
    assert min(tried(root, recompute, watched=True)) > 0


MANY = ["dataset.num_users=120", "dataset.num_items=400"]


def most_held(root, batch_size, recompute):
    """Returns the most bytes that the encoder's graphs hold at once in two steps."""
    words = [f"method.batch_size={batch_size}", f"method.recompute={str(recompute).lower()}"]
    course = Course(built(root, CHUNKS, *MANY, *words, mode="fft"))
    held = Held(course.method.encoder)
    for number in range(2):
        course.step(number)
    assert held.now == 0, "nothing outlives its step"
    return held.most


def test_what_recomputing_holds_does_not_grow_with_the_step(root):
    small, large = (most_held(root, size, True) for size in (4, 32))
    assert 0 < large <= 1.1 * small
    assert most_held(root, 32, False) > 4 * most_held(root, 4, False) > 4 * large


@pytest.mark.parametrize(("free", "recomputes"), [(1 << 40, False), (0, True)])
def test_a_run_that_goes_on_does_as_it_began(root, free, recomputes, monkeypatch):
    monkeypatch.setattr(graph_memory, "free_bytes", lambda device: free)
    first = Course(built(root, mode="lora")).method
    assert first.mode.recompute is recomputes
    assert "method.recompute" in first.choices()
    monkeypatch.setattr(graph_memory, "free_bytes", lambda device: (1 << 40) - free)
    resumed = built(root, mode="lora")
    resumed.recall(first.extra_state())
    assert Course(resumed).method.mode.recompute is recomputes
    assert "as the run began" in resumed.choices()["method.recompute"]
    assert resumed.extra_state()["recompute"] is recomputes


@pytest.mark.parametrize("given", [True, False])
def test_what_is_given_is_done_and_not_told_as_a_choice(root, given, monkeypatch):
    monkeypatch.setattr(graph_memory, "free_bytes", lambda device: 0 if not given else 1 << 40)
    method = Course(built(root, f"method.recompute={str(given).lower()}", mode="fft")).method
    assert method.mode.recompute is given
    assert method.choices() == {}


@pytest.mark.parametrize("mode", ["iisan", "frozen"])
def test_frozen_backbones_are_not_run_twice(root, mode, monkeypatch):
    """However little memory there is: they leave no graph. Beside a cache nothing is shared among ranks."""
    monkeypatch.setattr(graph_memory, "free_bytes", lambda device: 0)
    live = Course(built(root, *LIVE, mode=mode)).method
    assert (live.kind, live.mode.recompute, live.choices()) == (SingleStep, False, {})
    assert "recompute" not in live.extra_state()
    assert built(root, mode=mode).kind is EndToEnd
