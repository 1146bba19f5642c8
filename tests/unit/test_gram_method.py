"""What method gram chooses by the memory that is free: one choice for all ranks and for the whole run."""

from types import SimpleNamespace

import pytest
import torch
from content_helpers import ToyFilter, ToyTask
from encoder_helpers import built

from effrec_cli import compose
from effrec_cli.data.load import load
from effrec_cli.distributed import World
from effrec_cli.methods.content import graph_memory
from effrec_cli.methods.content.method import ContentModel
from effrec_cli.methods.gram import GRAM
from effrec_cli.trial import try_run

PLENTY, LITTLE = 1 << 40, 0


class WithAnother(World):
    """Two ranks, of which the other raises every flag."""

    def agree(self, flags):
        return [True for _ in flags]


def trained(free, *, world=None, state=None, **settings):
    """Returns a method that is about to train, on a device with some free memory."""
    method = GRAM(compose.compose(["experiment=smoke_gram", "method.mode=e2e_dedup"]), world or World())
    method.recall(state or {})
    encoder = built(train="top", top_layers=1, **settings)
    encoder._free_bytes = lambda device: free
    method._content, method.model = ToyTask(), ContentModel(encoder, ToyFilter())
    method.settle_memory(None)
    return method


@pytest.mark.parametrize(("free", "kept"), [(PLENTY, True), (LITTLE, False)])
def test_lower_states_are_kept_where_they_fit_and_a_resumed_run_does_as_it_began(free, kept):
    first = trained(free)
    assert (first.model.encoder.kept is not None) is kept
    resumed = trained(PLENTY + LITTLE - free, state=first.extra_state())
    assert (resumed.model.encoder.kept is not None) is kept


def test_lower_states_are_kept_by_all_ranks_or_by_none():
    method = trained(PLENTY, world=WithAnother())
    assert method.model.encoder.kept is None
    assert method.extra_state()["keeps_lower"] is False


def test_the_best_weights_are_judged_with_lower_states_kept_as_in_training():
    encoder = trained(PLENTY).model.encoder
    encoder._free_bytes = lambda device: LITTLE
    encoder.load_state_dict(encoder.state_dict())
    assert encoder.kept is None, "they are of the weights before"
    encoder.prepare()
    assert encoder.kept is not None


@pytest.mark.parametrize(("free", "recomputes"), [(PLENTY, False), (LITTLE, True)])
def test_a_look_at_memory_recomputes_where_training_would(free, recomputes, monkeypatch, tmp_path):
    tiny = ["dataset.num_users=40", "dataset.num_items=60", "dataset.interactions_per_user=8"]
    config = compose.compose(["experiment=smoke_gram", *tiny, f"data_root={tmp_path}"])
    method = GRAM(config)
    data = method.prepare(load(config.dataset, tmp_path, lambda line: None))
    method.build(data)
    monkeypatch.setattr(graph_memory, "free_bytes", lambda device: free)
    try_run(method, method.batches(data), data, torch.device("cpu"))
    assert method.mode.recompute is recomputes
    assert ("method.recompute" in method.choices()) is True


def test_what_a_run_keeps_is_what_it_was_judged_by_and_encoded_once(tmp_path):
    tiny = ["dataset.num_users=40", "dataset.num_items=60", "dataset.interactions_per_user=8"]
    words = ["experiment=smoke_gram", "model=sasrec", "model.dim=32", *tiny, f"data_root={tmp_path}"]
    method = GRAM(compose.compose(words))
    data = method.prepare(load(method.config.dataset, tmp_path, lambda line: None))
    method.build(data)
    tables = []
    encode = method.encoding.table
    method.encoding.table = lambda *words, **named: tables.append(encode(*words, **named)) or tables[-1]
    method.judge("test")
    assert method.keepsakes()["item_vectors"] is tables[0]
    assert len(tables) == 1
    state = {name: tensor + 0.1 for name, tensor in method.state_dict().items()}
    method.load_state_dict(state)
    moved = method.keepsakes()["item_vectors"]
    assert len(tables) == 2
    assert not torch.equal(moved, tables[0]), "other weights, other vectors"


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        (["method.mode=multi_step", "method.period=3"], 3),
        (["method.mode=multi_step", "method.period=0.5", "method.period_unit=epochs"], 4),
        (["method.mode=single_step"], 1),
    ],
)
def test_how_fast_it_goes_is_told_from_whole_cycles(mode, steps, tmp_path):
    method = GRAM(compose.compose(["experiment=smoke_gram", *mode, f"data_root={tmp_path}"]))
    method._content, method.model = ToyTask(), ContentModel(built(), ToyFilter())
    method.mode.begin(SimpleNamespace(steps_per_epoch=8, precision="fp32"))
    assert method.cycle_steps == steps
