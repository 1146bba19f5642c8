"""Taps of frozen backbones: which are read, what they hold, and what reading them leaves alone."""

import numpy as np
import pytest
import torch
from taps_helpers import (
    LAYERS,
    bert,
    image_reader,
    image_rows,
    small_image,
    small_text,
    text_reader,
    token_rows,
    vit,
)
from torch import nn

from effrec_cli.errors import ConfigError
from effrec_cli.models.encoders.network import Network
from effrec_cli.models.encoders.reader import RowPooling, TapReader
from effrec_cli.models.encoders.sources import BackboneTaps
from effrec_cli.models.taps import TapShape, tap_rule

LISTS = {
    80: [5, 20, 35, 50, 65, 80],
    48: [3, 12, 21, 30, 39, 48],
    32: [2, 8, 14, 20, 26, 32],
    28: [3, 8, 13, 18, 23, 28],
    24: [4, 8, 12, 16, 20, 24],
    12: [2, 4, 6, 8, 10, 12],
}


@pytest.mark.parametrize("layers", LISTS)
def test_the_rule_makes_the_lists_that_were_written_by_hand(layers):
    assert tap_rule(layers) == (0, *LISTS[layers])


@pytest.mark.parametrize("count", range(1, 13))
def test_the_rule_makes_as_many_taps_as_are_asked_for(count):
    made = tap_rule(12, count)
    assert made[0] == 0
    assert len(set(made)) == count + 1
    assert made[-1] == 12


@pytest.mark.parametrize("count", [0, -1, 7])
def test_no_more_layers_are_read_than_there_are(count):
    with pytest.raises(ConfigError, match="6 reads every layer"):
        tap_rule(6, count)


STATES = torch.arange(24.0).reshape(2, 4, 3)
REAL = torch.tensor([[True, True, True, False], [True, False, False, False]])


@pytest.mark.parametrize(
    ("kind", "rows"),
    [("cls", [STATES[0, 0], STATES[1, 0]]), ("mean", [STATES[0, :3].mean(0), STATES[1, 0]])]
    + [(kind, [STATES[0, 2], STATES[1, 0]]) for kind in ("last", "eos")],
)
def test_padding_is_never_read(kind, rows):
    states = STATES.masked_fill(~REAL[..., None], torch.nan)
    assert torch.equal(RowPooling(kind)(states, REAL), torch.stack(rows))
    assert torch.equal(RowPooling(kind)(STATES[:, :1], None), STATES[:, 0])


def test_eos_is_the_first_of_its_token_and_the_last_real_one_where_there_is_none():
    tokens = torch.tensor([[5, 9, 9, 0], [3, 9, 0, 0]])
    assert torch.equal(RowPooling("eos", 9)(STATES, REAL, tokens)[0], STATES[0, 1])
    assert torch.equal(RowPooling("eos", 7)(STATES, REAL, tokens)[0], STATES[0, 2])


def test_rows_are_at_least_float32():
    assert RowPooling("cls")(STATES.bfloat16(), REAL).dtype == torch.float32
    assert RowPooling("mean")(STATES.double(), REAL).dtype == torch.float64


EVERY = tuple(range(LAYERS + 1))


def _inputs(network):
    rows, costs = image_rows() if network in (vit, small_image) else token_rows()
    return rows(torch.arange(len(costs)), int(costs.max()))


@pytest.mark.parametrize("network", [bert, vit])
@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_taps_are_the_hidden_states_of_transformers(network, kind):
    made = network().eval()
    inputs, real = _inputs(network)
    reader = TapReader(made, RowPooling(kind), EVERY)
    found = {}
    original = made.model.forward
    made.model.forward = lambda **named: found.setdefault("out", original(**named, output_hidden_states=True))
    with torch.no_grad():
        made(inputs, real)
    made.model.forward = original
    want = [RowPooling(kind)(states, real) for states in found["out"].hidden_states]
    got = reader.read(inputs, real)
    assert got.shape == (12, LAYERS + 1, 32)
    torch.testing.assert_close(got, torch.stack(want, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("network", [small_text, small_image])
def test_taps_of_the_built_in_network_are_what_its_blocks_give(network):
    made = network().eval()
    inputs, real = _inputs(network)
    got = TapReader(made, RowPooling("mean"), EVERY).read(inputs, real)
    with torch.no_grad():
        for tap in EVERY:
            made.frozen = tap
            torch.testing.assert_close(got[:, tap], RowPooling("mean")(made.lower(inputs, real), real))


@pytest.mark.parametrize("network", [bert, vit, small_text])
def test_one_tap_beyond_the_layers_is_what_the_whole_network_gives(network):
    made = network().eval()
    inputs, real = _inputs(network)
    got = TapReader(made, RowPooling("cls"), (1, LAYERS + 1)).read(inputs, real)
    with torch.no_grad():
        torch.testing.assert_close(got[:, 1], made(inputs, real)[:, 0])


@pytest.mark.parametrize("network", [bert, vit, small_text])
@pytest.mark.parametrize("taps", [(0,), (1,), (0, 2)])
def test_layers_above_the_last_tap_never_run(network, taps, monkeypatch):
    made = network()
    ran = []
    for name, part in [*enumerate(made.layers(), 1), *(("tail", part) for part in made.tail())]:
        monkeypatch.setattr(part, "forward", noted(part.forward, name, ran))
    reader = TapReader(made, RowPooling("cls"), taps)
    for _ in range(2):  # no hook of the first time is left
        ran.clear()
        assert reader.read(*_inputs(network)).shape[1] == len(taps)
        assert ran == list(range(1, taps[-1] + 1))


def noted(forward, name, ran):
    """Returns a forward pass that first takes note of itself."""
    return lambda *given, **named: ran.append(name) or forward(*given, **named)


def test_a_fault_in_a_layer_is_no_end_of_reading():
    made = small_text()
    reader = TapReader(made, RowPooling("cls"), (0, 3))
    made.blocks[1].forward = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        reader.read(*_inputs(small_text))
    assert not made.blocks[0]._forward_pre_hooks
    assert not made.blocks[2]._forward_hooks


class Flat(Network):
    def __init__(self, listed):
        super().__init__(4)
        self.maps = nn.ModuleList([nn.Linear(4, 4)])
        self.listed = listed

    def forward(self, inputs, real):
        return self.maps[0](torch.ones(len(inputs), 4))

    def layers(self):
        return self.maps if self.listed else None

    def tail(self):
        return []


def test_backbones_without_layers_or_tokens_are_refused():
    with pytest.raises(ConfigError, match="cannot be told apart"):
        TapReader(Flat(False), RowPooling("cls"), (0,))
    with pytest.raises(ConfigError, match="no rows of tokens"):
        TapReader(Flat(True), RowPooling("cls"), (0, 1)).read(torch.zeros(2, 3, dtype=torch.long), None)


@pytest.mark.parametrize("taps", [(), (2, 1), (1, 1), (-1, 2), (0, LAYERS + 2)])
def test_taps_that_are_not_there_are_refused(taps):
    with pytest.raises(ConfigError, match="with 3 layers"):
        TapReader(small_text(), RowPooling("cls"), taps)


class Sum(nn.Module):
    """A source of taps and something that trains above it."""

    def __init__(self, source):
        super().__init__()
        self.source, self.head = source, nn.Linear(32, 4)

    def forward(self, items):
        taps = self.source(items)
        return self.head(sum((*taps.text, *taps.image)))


def _both(**settings):
    return BackboneTaps(text_reader(**settings), image_reader(**settings))


def test_nothing_of_a_backbone_trains():
    model = Sum(_both()).train()
    networks = [model.source.text.reader.network, model.source.image.reader.network]
    before = [{n: p.clone() for n, p in each.state_dict().items()} for each in networks]
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    assert sum(p.numel() for group in optimiser.param_groups for p in group["params"]) == 32 * 4 + 4
    model(torch.arange(5)).square().sum().backward()
    optimiser.step()
    for network, weights in zip(networks, before, strict=True):
        assert not network.training
        for name, each in network.named_parameters():
            assert each.grad is None
            assert not each.requires_grad
            assert torch.equal(each, weights[name])


def test_nothing_of_a_backbone_is_saved():
    assert set(Sum(_both()).state_dict()) == {"head.weight", "head.bias"}


def test_a_backbone_moves_with_what_reads_it():
    source = _both().double()
    assert {p.dtype for p in source.text.reader.network.parameters()} == {torch.float64}
    assert source.image.reader.network.mean.dtype == torch.float64
    assert source(torch.arange(3)).text[1].dtype == torch.float64


def test_taps_have_no_history():
    taps = Sum(_both()).train().source(torch.arange(4))
    assert all(not tap.requires_grad and tap.grad_fn is None for tap in (*taps.text, *taps.image))


def _saved_bytes(network, width, taps):
    """Returns what autograd keeps of a step, in bytes."""
    kept = []
    model = Sum(BackboneTaps(text_reader(network, taps=taps), None))
    model.source.text.costs = np.full(12, width)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda each: kept.append(each.nbytes) or each, lambda each: each
    ):
        model(torch.arange(6))
    return sum(kept)


def test_what_is_kept_for_gradients_depends_on_neither_depth_nor_tokens():
    deep = bert()
    deep.layers().extend([*bert().layers()])
    deep.model.config.num_hidden_layers = 2 * LAYERS
    assert _saved_bytes(bert(), 18, (0, 2, 3)) == _saved_bytes(deep, 30, (0, 5, 6)) > 0


@pytest.mark.parametrize("network", [bert, small_text])
def test_training_reads_as_evaluation_does(network):
    model = Sum(BackboneTaps(text_reader(network()), None)).train()
    items = torch.arange(12)
    first, second = (model.source(items).text for _ in range(2))
    model.eval()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, model.source(items).text, strict=True))


def test_a_network_put_into_training_behind_the_readers_back_is_read_in_evaluation():
    source = text_reader(small_text())
    first = source(torch.arange(12))
    source.reader.network.train()
    assert torch.equal(first, source(torch.arange(12)))


@pytest.mark.parametrize("kind", ["cls", "mean", "last"])
def test_items_read_together_have_the_taps_that_they_have_alone(kind):
    every = torch.arange(12)
    alone = torch.cat([text_reader(kind=kind)(every[i : i + 1]) for i in range(12)])
    for budget in (1, 20, 1000):
        source = text_reader(kind=kind, batch_tokens=budget)
        torch.testing.assert_close(source(every), alone, rtol=1e-5, atol=1e-6)
        mixed = torch.tensor([7, 0, 7, 11, 3])
        torch.testing.assert_close(source(mixed), alone[mixed], rtol=1e-5, atol=1e-6)


def test_budgets_are_kept_to():
    source = text_reader(batch_tokens=20)
    widths = [source.costs[chunk] for chunk in source.chunks(np.arange(12))]
    assert sorted(np.concatenate(widths)) == sorted(source.costs)
    assert all(len(each) == 1 or len(each) * each.max() <= 20 for each in widths)
    assert len(widths) < 12


@pytest.mark.parametrize("which", ["text", "image", "both"])
def test_a_modality_that_is_not_there_has_no_taps(which):
    text = text_reader() if which != "image" else None
    image = image_reader(taps=(1, 3)) if which != "text" else None
    source = BackboneTaps(text, image)
    taps = source(torch.arange(2))
    assert (len(taps.text), len(taps.image)) == (3 if text else 0, 2 if image else 0)
    assert source.shape == TapShape(*((32, 3) if text else (0, 0)), *((32, 2) if image else (0, 0)))


def test_no_items_have_no_taps():
    taps = _both()(torch.zeros(0, dtype=torch.long))
    assert [tap.shape for tap in (*taps.text, *taps.image)] == [(0, 32)] * 6


def test_the_first_tap_is_the_same_for_all_items_under_cls():
    for reader in (text_reader(), image_reader()):
        first = reader(torch.arange(12))[:, 0]
        assert reader.leads
        assert torch.equal(first, first[:1].expand_as(first))
    assert not text_reader(kind="mean").leads
    assert not text_reader(taps=(1, 2)).leads
