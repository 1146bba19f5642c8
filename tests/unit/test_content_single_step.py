"""Single step: the end-to-end gradient at one encoder call an item (papers/gram section 6)."""

import numpy as np
import pytest
import torch
from content_helpers import ITEMS, Setup, ToyBatches, distance, flat

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.methods.content.items import ITEMS as NAMED


def gradients(mode, step=0, **settings):
    """Returns the gradients of one step, and the setup that made them."""
    setup = Setup(mode, **settings)
    if settings.pop("recomputes", False):
        setup.mode.recompute = True
    setup.step(step)
    return setup.gradients[0], setup


def single(step=0, *, recompute=False, **settings):
    setup = Setup("single_step", **settings)
    setup.mode.recompute = recompute
    setup.step(step)
    return setup.gradients[0], setup


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("step", range(3))
def test_it_is_the_gradient_of_every_occurrence(step, recompute):
    true, _ = gradients("e2e", step)
    found, _ = single(step, recompute=recompute)
    assert found.keys() == true.keys()
    assert distance(found, true) < 1e-13
    deduplicated, _ = gradients("e2e_dedup", step)
    assert distance(found, deduplicated) < 1e-14


@pytest.mark.parametrize("recompute", [False, True])
def test_injection_keeps_the_digits_of_float32(recompute):
    """Where the paper's pseudo-target h - g loses most of them (papers/gram section 7)."""
    true, _ = gradients("e2e")
    found, _ = single(recompute=recompute, dtype=torch.float32)
    found = {name: gradient.double() for name, gradient in found.items()}
    assert distance(found, true) < 1e-6


def test_the_papers_pseudo_target_is_the_same_gradient_in_float64_and_worse_in_float32():
    """One regress step with one chunk over one batch is section 1.2's form (d)."""
    true, _ = gradients("e2e")
    errors = {}
    for dtype in (torch.float64, torch.float32):
        setup = Setup("multi_step", update="regress", period=1, update_items=None, tokens=10**6, dtype=dtype)
        setup.step()
        pseudo = {name: g.double() for update in setup.gradients for name, g in update.items()}
        errors[dtype] = distance(pseudo, true)
    injected = {name: g.double() for name, g in single(dtype=torch.float32)[0].items()}
    assert errors[torch.float64] < 1e-9
    assert errors[torch.float32] > 3 * distance(injected, true)


@pytest.mark.parametrize("tokens", [1, 7, 13, 10**6])
@pytest.mark.parametrize("recompute", [False, True])
def test_micro_batches_of_the_encoder_change_nothing(tokens, recompute):
    true, _ = gradients("e2e_dedup")
    assert distance(single(recompute=recompute, tokens=tokens)[0], true) < 1e-12


@pytest.mark.parametrize("mode", ["e2e", "e2e_dedup", "single_step"])
def test_micro_batches_of_the_filter_add_up(mode):
    whole, split = Setup(mode), Setup(mode)
    whole.step()
    split.step(micros=3)
    assert distance(split.gradients[0], whole.gradients[0]) < 1e-13


def test_an_items_calls_are_one_or_two_and_padding_is_never_encoded():
    for recompute in (False, True):
        _, setup = single(recompute=recompute)
        data = setup.task.data
        chosen = np.random.default_rng([7, 0]).permutation(len(data.items))[: data.batch_size]
        needed = np.unique(data.items[chosen])
        needed = needed[needed != PAD_ITEM].tolist()
        encoded = [item for items, _ in setup.encoder.calls for item in items]
        with_graph = [item for items, graph in setup.encoder.calls if graph for item in items]
        assert sorted(with_graph) == needed
        assert sorted(encoded) == sorted(needed * (1 + recompute))
    _, occurrences = gradients("e2e")
    assert sum(len(items) for items, _ in occurrences.encoder.calls) == int(data.lengths[chosen].sum())


def test_what_was_encoded_is_reported():
    setup = Setup("single_step")
    setup.mode.recompute = True
    batch = setup.batches.batch(0, 0, Share(), 0)
    report = setup.mode.step(batch, setup.engine)
    assert report["encoded_forward"] == report["encoded_again"] == len(batch.host[NAMED])


def test_a_step_without_items_is_no_step():
    batches = ToyBatches()
    batches.lengths[:] = 0
    batches.items[:] = PAD_ITEM
    for mode in ("e2e", "e2e_dedup", "single_step", "multi_step"):
        setup = Setup(mode, batches=batches)
        before = setup.weights()
        assert setup.step() == 0
        assert setup.encoder.calls == []
        assert all(torch.equal(before[name], now) for name, now in setup.weights().items())


@pytest.mark.parametrize("tokens", [5, 10**6])
def test_a_second_encoding_draws_the_dropout_of_the_first(tokens):
    true, _ = gradients("e2e_dedup", dropout=0.4, tokens=tokens)
    assert distance(single(dropout=0.4, tokens=tokens)[0], true) < 1e-12
    assert distance(single(dropout=0.4, tokens=tokens, recompute=True)[0], true) < 1e-12


def test_other_seeds_for_the_second_encoding_would_be_noticed(monkeypatch):
    from effrec_cli.methods.content.encoding import Encoding

    encode = Encoding.encode

    def forgetful(self, chunk, autocast=None, *, again=False):
        other = chunk if not again else type(chunk)(chunk.rows, chunk.width, chunk.seed + 1, 0, chunk.places)
        return encode(self, other, autocast, again=again)

    monkeypatch.setattr(Encoding, "encode", forgetful)
    true, _ = gradients("e2e_dedup", dropout=0.4)
    assert distance(single(dropout=0.4, recompute=True)[0], true) > 0.01


def test_dropout_of_the_filter_is_untouched_by_what_the_encoder_draws():
    true, _ = gradients("e2e_dedup", filter_dropout=0.5)
    assert distance(single(filter_dropout=0.5, recompute=True)[0], true) < 1e-13
    assert distance(gradients("e2e", filter_dropout=0.5)[0], true) < 1e-13


@pytest.mark.parametrize("recompute", [False, True])
def test_the_norm_is_clipped_over_encoder_and_filter_together(recompute):
    limit = 0.05
    true, _ = gradients("e2e", clip_norm=limit)
    found, _ = single(clip_norm=limit, recompute=recompute)
    assert float(flat(found).norm()) == pytest.approx(limit, rel=1e-4)
    assert float(flat(found, "encoder").norm()) < limit
    assert distance(found, true) < 1e-12


def test_a_step_that_is_not_finite_moves_neither_part():
    setup = Setup("single_step")
    before = setup.weights()
    setup.task.data.labels[:] = np.inf
    setup.step()
    assert all(torch.equal(before[name], now) for name, now in setup.weights().items())


def test_trajectories_coincide_for_fifty_steps_and_the_loss_falls():
    true, found = Setup("e2e"), Setup("single_step")
    found.mode.recompute = True
    true_losses, losses = true.steps(50), found.steps(50)
    np.testing.assert_allclose(losses, true_losses, rtol=1e-9)
    assert distance(found.weights(), true.weights()) < 1e-9
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


@pytest.mark.parametrize("recompute", [False, True])
def test_injected_gradients_are_the_slopes_of_the_loss(recompute):
    """By finite differences, along any direction of the encoder's weights."""
    found, _ = single(recompute=recompute)
    plain = Setup("e2e")
    batch = plain.batches.batch(0, 0, Share(), 0)
    weights = {name: p for name, p in plain.named() if name.startswith("encoder")}
    draw = torch.Generator().manual_seed(3)
    for _ in range(5):
        step = {name: 1e-6 * torch.randn(p.shape, generator=draw).double() for name, p in weights.items()}
        losses = []
        for times in (1, -2):  # there, and from there to the other side
            for name, weight in weights.items():
                weight.data += times * step[name]
            losses.append(float(plain.mode.forward(batch, plain.engine.autocast).detach()))
        for name, weight in weights.items():
            weight.data += step[name]
        slope = sum(float((found[name] * step[name]).sum()) for name in weights)
        assert (losses[0] - losses[1]) / 2 == pytest.approx(slope, rel=1e-6)


def test_occurrences_at_both_ends_of_the_filter_count():
    """A vector is read and told: its gradient by finite differences has both parts."""
    setup = Setup("single_step")
    batch = setup.batches.batch(0, 0, Share(), 0)
    vectors = setup.encoding.spread(
        [setup.encoding.encode(c) for c in setup.encoding.plan(batch.host[NAMED], 0)],
        setup.encoding.plan(batch.host[NAMED], 0),
    )
    leaf = vectors.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(setup.task.loss(setup.filter, leaf, batch), leaf)
    for place in range(len(leaf)):
        shift = torch.zeros_like(vectors)
        shift[place, 2] = 1e-6
        higher, lower = (setup.task.loss(setup.filter, vectors + sign * shift, batch) for sign in (1, -1))
        assert float((higher - lower).detach()) / 2e-6 == pytest.approx(float(gradient[place, 2]), abs=1e-8)


def test_memory_for_the_encoder_is_that_of_one_chunk(monkeypatch):
    """The most vectors whose graph is alive at once: all of a step's, or a chunk's."""
    for recompute, alive in ((False, "all"), (True, "one")):
        setup = Setup("single_step", tokens=6)
        setup.mode.recompute = recompute
        kept = {"now": 0, "most": 0}

        class Counted(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, kept=kept):
                ctx.size = len(x)
                if torch.is_grad_enabled() or x.requires_grad:
                    kept["now"] += ctx.size
                    kept["most"] = max(kept["most"], kept["now"])
                return x.clone()

            @staticmethod
            def backward(ctx, gradient, kept=kept):
                kept["now"] -= ctx.size
                return gradient

        forward = type(setup.encoder).forward
        monkeypatch.setattr(
            type(setup.encoder),
            "forward",
            lambda self, items, width, f=forward, c=Counted: c.apply(f(self, items, width)),
        )
        setup.step()
        monkeypatch.setattr(type(setup.encoder), "forward", forward)
        chunks = [len(items) for items, graph in setup.encoder.calls if graph]
        assert kept["most"] == (sum(chunks) if alive == "all" else max(chunks))
        assert len(chunks) > 2
        assert max(chunks) < ITEMS
