"""What method gram chooses by the memory that is free: one choice for all ranks and for the whole run."""

import pytest
from content_helpers import ToyFilter, ToyTask
from encoder_helpers import built

from effrec_cli import compose
from effrec_cli.distributed import World
from effrec_cli.methods.base import Method
from effrec_cli.methods.gram import GRAM, ContentModel

PLENTY, LITTLE = 1 << 40, 0


class WithAnother(World):
    """Two ranks, of which the other raises every flag."""

    def agree(self, flags):
        return [True for _ in flags]


def trained(free, monkeypatch, *, world=None, state=None, **settings):
    """Returns a method whose training has begun, on a device with some free memory."""
    monkeypatch.setattr(Method, "fit", lambda self, engine: None)
    method = GRAM(compose.compose(["experiment=smoke_gram", "method.mode=e2e_dedup"]), world or World())
    method.recall(state or {})
    encoder = built(train="top", top_layers=1, **settings)
    encoder._free_bytes = lambda device: free
    method._content, method.model = ToyTask(), ContentModel(encoder, ToyFilter())
    method.fit(None)
    return method


@pytest.mark.parametrize(("free", "kept"), [(PLENTY, True), (LITTLE, False)])
def test_lower_states_are_kept_where_they_fit_and_a_resumed_run_does_as_it_began(free, kept, monkeypatch):
    first = trained(free, monkeypatch)
    assert (first.model.encoder.kept is not None) is kept
    resumed = trained(PLENTY + LITTLE - free, monkeypatch, state=first.extra_state())
    assert (resumed.model.encoder.kept is not None) is kept


def test_lower_states_are_kept_by_all_ranks_or_by_none(monkeypatch):
    method = trained(PLENTY, monkeypatch, world=WithAnother())
    assert method.model.encoder.kept is None
    assert method.extra_state()["keeps_lower"] is False


def test_the_best_weights_are_judged_with_lower_states_kept_as_in_training(monkeypatch):
    encoder = trained(PLENTY, monkeypatch).model.encoder
    encoder._free_bytes = lambda device: LITTLE
    encoder.load_state_dict(encoder.state_dict())
    assert encoder.kept is None, "they are of the weights before"
    encoder.prepare()
    assert encoder.kept is not None
