"""Modes in 16 bits: the loss scale comes off, a skipped step skips everywhere, vectors stay in float32."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from content_helpers import DIM, Setup, distance, flat

from effrec_cli.data.batches import Share
from effrec_cli.loop.finite import FiniteGuard
from effrec_cli.methods.content.items import ITEMS as NAMED
from effrec_cli.precision import LossScaler

CPU = torch.device("cpu")
SINGLE = [{"mode": "single_step", "recompute": recompute} for recompute in (False, True)]
MULTI = [{"mode": "multi_step", "update": each, "period": 2} for each in ("inject_single", "inject_multi")]


def scaled(mode, *, recompute=False, **settings):
    """Returns a setup whose engine scales losses as under fp16, the encoder's vectors still in float64."""
    setup = Setup(mode, **settings)
    if recompute:
        setup.mode.recompute = True
    setup.engine.scaler = LossScaler(CPU)
    setup.engine.guard = FiniteGuard(CPU, setup.engine.scaler)
    return setup


def plain(mode, *, recompute=False, **settings):
    setup = Setup(mode, **settings)
    if recompute:
        setup.mode.recompute = True
    return setup


def overflow(setup, part):
    """Makes the gradient of a part of the model infinite, as a loss scaled too far does; returns a switch."""
    on = [True]
    for name, parameter in setup.named():
        if name.startswith(part):
            parameter.register_hook(lambda gradient: gradient * math.inf if on[0] else gradient)
    return on


def same(before, after, part=""):
    return all(torch.equal(weight, after[name]) for name, weight in before.items() if name.startswith(part))


@pytest.mark.parametrize("settings", [{"mode": "e2e_dedup"}, *SINGLE, *MULTI], ids=str)
def test_the_scale_is_taken_off_what_either_part_learns_from(settings):
    true, found = plain(**settings), scaled(**settings)
    true.steps(4)
    found.steps(4)
    for one, other in zip(found.gradients, true.gradients, strict=True):
        assert distance(one, other) < 1e-10
    assert distance(found.weights(), true.weights()) < 1e-12


@pytest.mark.parametrize("part", ["encoder", "filter"])
@pytest.mark.parametrize("settings", [{"mode": "e2e_dedup"}, *SINGLE], ids=str)
def test_an_overflow_of_either_part_skips_both(settings, part):
    setup = scaled(**settings)
    on = overflow(setup, part)
    before = setup.weights()
    setup.step()
    assert same(before, setup.weights())
    assert setup.engine.scaler.scale.item() == LossScaler.START / 2
    on[0] = False
    setup.step()
    after = setup.weights()
    assert not same(before, after, "encoder")
    assert not same(before, after, "filter")


@pytest.mark.parametrize("drift", [None, 1.0])
def test_a_skipped_step_of_the_filter_adds_nothing_to_what_the_encoder_gets(drift):
    """Its gradients of the vectors are infinite, too: neither they nor NaN reach G or the drifting table."""
    setup = scaled("multi_step", update="inject_single", period=3, drift=drift, probe_every=1)
    on = overflow(setup, "filter")
    summed = setup.encoding.summed
    setup.encoding.summed = lambda gradient: summed(gradient * math.inf if on[0] else gradient)
    before = setup.weights()
    setup.step()
    cycle = setup.mode.cycle
    assert same(before, setup.weights())
    assert not cycle.gradients.any()
    fresh = setup.encoding.table()
    rows = np.flatnonzero(cycle.touched)
    torch.testing.assert_close(cycle.table[rows], fresh[rows], rtol=1e-12, atol=1e-14)
    on[0] = False

    other = plain("multi_step", update="inject_single", period=3, drift=drift)
    other.engine.steps = 1
    setup.step()
    other.step()
    torch.testing.assert_close(cycle.gradients, other.mode.cycle.gradients, rtol=1e-10, atol=1e-14)
    setup.step()
    assert not same(before, setup.weights(), "encoder")
    assert all(math.isfinite(value) for _, note in setup.engine.notes for value in note.values())


@pytest.mark.parametrize("micros", [1, 2])
def test_an_overflow_of_the_vectors_gradients_skips_the_step_and_spares_the_cycle(micros):
    """Though the filter's own gradients are finite: else one such step would cost the encoder its update."""
    setup = scaled("multi_step", update="inject_single", period=3)
    summed, calls = setup.encoding.summed, []

    def overflowing(gradient):
        calls.append(1)
        return summed(gradient * (math.inf if len(calls) == micros + 1 else 1))

    setup.encoding.summed = overflowing
    setup.step(micros=micros)
    before, gathered = setup.weights(), setup.mode.cycle.gradients.clone()
    setup.step(micros=micros)
    assert same(before, setup.weights())
    assert torch.equal(setup.mode.cycle.gradients, gathered)
    assert setup.engine.scaler.scale.item() == LossScaler.START / 2
    setup.step(micros=micros)
    assert not same(before, setup.weights(), "encoder")
    assert not same(before, setup.weights(), "filter")


def test_an_overflow_of_the_encoders_update_skips_it_alone():
    setup = scaled("multi_step", update="inject_single", period=2)
    on = overflow(setup, "encoder")
    before = setup.weights()
    setup.steps(2)
    after = setup.weights()
    assert same(before, after, "encoder")
    assert not same(before, after, "filter")
    on[0] = False
    setup.steps(4)
    assert not same(after, setup.weights(), "encoder")
    assert all(bool(weight.isfinite().all()) for weight in setup.weights().values())


def of_precision(name, mode="single_step", **settings):
    """Returns a setup in float32 whose engine computes in `name`."""
    setup = plain(mode, dtype=torch.float32, tokens=20, **settings)
    setup.engine.precision = name
    return setup


@pytest.mark.parametrize("settings", [*SINGLE, {"mode": "e2e_dedup"}], ids=str)
def test_gradients_in_bf16_point_where_those_in_float32_do(settings):
    found = {}
    for name in ("fp32", "bf16"):
        setup = of_precision(name, **settings)
        setup.step(0)
        found[name] = setup.gradients[0]
        assert {gradient.dtype for gradient in found[name].values()} == {torch.float32}
    cosine = F.cosine_similarity(flat(found["fp32"], "encoder"), flat(found["bf16"], "encoder"), dim=0)
    assert 0.999 <= float(cosine) < 1 - 1e-9


def test_vectors_and_their_gradients_stay_in_float32():
    setup = of_precision("bf16", "multi_step", update="inject_single", period=3)
    seen = []
    forward = setup.encoder.layers.forward
    setup.encoder.layers.forward = lambda x: (seen.append(forward(x)), seen[-1])[1]
    setup.steps(2)
    assert {states.dtype for states in seen} == {torch.bfloat16}, "the encoder does compute in 16 bits"
    cycle = setup.mode.cycle
    assert (cycle.table.dtype, cycle.gradients.dtype) == (torch.float32, torch.float32)
    batch = setup.batches.batch(0, 0, Share(), 0)
    (chunk, *_) = setup.encoding.plan(batch.host[NAMED], 0)
    assert setup.encoding.encode(chunk, setup.engine.autocast).dtype == torch.float32
    assert setup.encoding.table(setup.engine.autocast).shape[1] == DIM
