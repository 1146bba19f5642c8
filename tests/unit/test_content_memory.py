"""Bytes of the encoder's graph: of a whole step, or of one chunk however large the step (papers/gram, 20)."""

import content_helpers
import pytest
import torch
from content_helpers import Setup, ToyBatches, ToyTask

from effrec_cli.methods.content import graph_memory

SMALL, LARGE = 8, 64


@pytest.fixture(autouse=True)
def many_items(monkeypatch):
    """So many that a step eight times as large has about eight times as many of them."""
    monkeypatch.setattr(content_helpers, "ITEMS", 3000)
    monkeypatch.setattr(content_helpers, "USERS", 2 * LARGE)
    monkeypatch.setattr(ToyTask, "num_items", 3000)


class Held:
    """The bytes that an encoder's graphs hold for their backward passes; weights are not counted.

    Attributes:
        most: at once, so far.
    """

    def __init__(self, encoder):
        self.now, self.most = 0, 0
        self._own = {each.untyped_storage().data_ptr() for each in encoder.parameters()}
        forward = encoder.forward

        def watched(items, width):
            with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor):
                return forward(items, width)

        encoder.forward = watched

    def _pack(self, tensor):
        counts = tensor.untyped_storage().data_ptr() not in self._own
        return Kept(self, tensor, tensor.nbytes if counts else 0)


class Kept:
    """A tensor that a graph holds until its backward pass lets go of it."""

    def __init__(self, held, tensor, size):
        self.held, self.tensor, self.size = held, tensor, size
        held.now += size
        held.most = max(held.most, held.now)

    def __del__(self):
        self.held.now -= self.size


def most_held(mode, batch_size, *, recompute=False, micros=1, **settings):
    setup = Setup(mode, tokens=60, batches=ToyBatches(batch_size), **settings)
    if recompute:
        setup.mode.recompute = True
    held = Held(setup.encoder)
    for _ in range(2):
        setup.step(micros=micros)
    assert held.now == 0, "nothing outlives its step"
    assert held.most > 0
    return held.most


BY_CHUNK = {
    "recomputed": {"mode": "single_step", "recompute": True},
    "inject_single": {"mode": "multi_step", "update": "inject_single", "period": 2},
    "inject_multi": {"mode": "multi_step", "update": "inject_multi", "period": 2, "update_items": 8},
    "regress": {"mode": "multi_step", "update": "regress", "period": 2, "update_items": 8},
}
BY_STEP = {
    "fused": {"mode": "single_step"},
    "e2e_dedup": {"mode": "e2e_dedup"},
    "e2e": {"mode": "e2e"},
}


@pytest.mark.parametrize("name", BY_CHUNK)
def test_a_step_eight_times_as_large_holds_no_more(name):
    small, large = (most_held(batch_size=size, **BY_CHUNK[name]) for size in (SMALL, LARGE))
    assert large <= 1.05 * small


@pytest.mark.parametrize("name", BY_STEP)
def test_where_the_graph_is_kept_it_grows_with_the_step(name):
    small, large = (most_held(batch_size=size, **BY_STEP[name]) for size in (SMALL, LARGE))
    assert large > 5 * small


def test_recomputing_holds_far_less_than_end_to_end():
    """The target of papers/gram is 40 %."""
    recomputed = most_held(batch_size=LARGE, **BY_CHUNK["recomputed"])
    assert recomputed < 0.2 * most_held(batch_size=LARGE, **BY_STEP["e2e"])
    assert recomputed < 0.2 * most_held(batch_size=LARGE, **BY_STEP["fused"])


def pays(setup):
    """Returns whether to recompute where half of the free memory may be taken."""
    engine, micros = setup.engine, setup.engine.config.run.accumulate
    options = {"micros": micros, "share": 0.5}
    return graph_memory.recompute_pays(setup.encoding, engine.batches, engine.autocast, **options)


@pytest.mark.parametrize("micros", [1, 4])
def test_recomputing_is_chosen_where_the_graph_of_a_micro_batch_would_not_fit(micros, monkeypatch):
    """Judged by one chunk, and near to what the graph is then seen to hold."""
    held = most_held("single_step", LARGE, micros=micros)
    setup = Setup("single_step", tokens=60, batches=ToyBatches(LARGE))
    setup.engine.config.run.accumulate = micros
    for room, chosen in ((0.6, True), (1.6, False)):
        monkeypatch.setattr(graph_memory, "free_bytes", lambda _, free=2 * room * held: free)
        assert pays(setup).value is chosen


def test_measuring_a_graph_leaves_no_trace():
    setup = Setup("single_step", tokens=60, batches=ToyBatches(LARGE), dropout=0.4)
    setup.encoder.eval()
    before = torch.get_rng_state()
    pays(setup)
    assert torch.equal(torch.get_rng_state(), before)
    assert not setup.encoder.training
    assert set(setup.encoding.encoded.values()) == {0}
    assert not setup.current(), "no gradient"
