"""Multi step: cached vectors, gathered gradients, one move of the encoder a cycle (papers/gram section 6)."""

import copy
import itertools

import numpy as np
import pytest
import torch
from content_helpers import DIM, ITEMS, Setup, distance, flat

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.methods.content.items import ITEMS as NAMED
from effrec_cli.seeds import mix, plant


def multi(**settings):
    return Setup("multi_step", **settings)


@pytest.mark.parametrize("update", ["inject_single", "inject_multi", "regress"])
def test_a_cycle_of_one_step_is_single_step(update):
    """Gradients, and parameters after twenty steps of Adam with Noam's schedule."""
    one = Setup("single_step", schedule="noam")
    other = multi(period=1, update=update, update_items=None, tokens=10**6, schedule="noam")
    one.steps(20)
    other.steps(20)
    assert distance(other.weights(), one.weights()) < 1e-12
    for at in range(20):
        both = other.gradients[2 * at] | other.gradients[2 * at + 1]
        assert distance(both, one.gradients[at]) < (1e-9 if update == "regress" else 1e-12)


def accumulated(steps):
    """The oracle: the filter steps every batch, the encoder by the sum of its gradients over all of them."""
    oracle = Setup("e2e_dedup")
    filter_optimizer, encoder_optimizer = oracle.optimizers
    for number in range(steps):
        batch = oracle.batches.batch(*divmod(number, 3), Share(), number)
        oracle.mode.forward(batch, oracle.engine.autocast).backward()
        filter_optimizer.step()
        filter_optimizer.zero_grad()
    gradients = oracle.current()
    encoder_optimizer.step()
    return oracle, {name: g for name, g in gradients.items() if name.startswith("encoder")}


@pytest.mark.parametrize("refresh", ["lazy", "eager"])
@pytest.mark.parametrize("tokens", [9, 10**6])
def test_one_update_a_cycle_is_gradient_accumulation(tokens, refresh):
    oracle, true = accumulated(3)
    setup = multi(update="inject_single", period=3, tokens=tokens, refresh=refresh)
    setup.steps(3)
    assert [{name.split(".")[0] for name in each} for each in setup.gradients] == [
        {"filter"},
        {"filter"},
        {"filter"},
        {"encoder"},
    ]
    assert distance(setup.gradients[-1], true) < 1e-12
    assert distance(setup.weights(), oracle.weights()) < 1e-12


def test_drifting_vectors_are_a_table_that_sgd_of_rate_one_trains():
    setup = multi(update="regress", period=3, tokens=10**6, update_items=None)
    oracle = Setup("frozen")
    table = torch.nn.Parameter(oracle.encoding.table())
    first = table.detach().clone()
    sgd = torch.optim.SGD([table], lr=1.0)
    seen = set()
    for number in range(3):
        batch = oracle.batches.batch(0, number, Share(), number)
        seen |= set(batch.host[NAMED].tolist())
        oracle.mode.loss(table[batch.host[NAMED]], batch, oracle.engine.autocast).backward()
        oracle.optimizers[0].step()
        sgd.step()
        oracle.optimizers[0].zero_grad()
        sgd.zero_grad()
    setup.steps(3)
    rows = sorted(seen)
    torch.testing.assert_close(setup.mode.cycle.table[rows], table.detach()[rows], rtol=1e-12, atol=1e-14)
    residual = oracle.encoding.table()[rows] - table.detach()[rows]
    torch.testing.assert_close(residual, (first - table.detach())[rows])
    chunk_gradient = setup.gradients[-1]
    oracle.encoder(torch.tensor(rows), 7).backward(residual)
    true = {name: g for name, g in oracle.current().items() if name.startswith("encoder")}
    assert distance(chunk_gradient, true) < 1e-9


def test_each_item_is_encoded_once_for_the_cache_and_once_for_its_gradient():
    setup = multi(update="inject_single", period=3, tokens=9)
    setup.mode.replays = False  # otherwise a first look at whether it draws encodes a chunk
    weights = [setup.weights()]
    for _ in range(3):
        setup.step()
        weights.append(setup.weights())
    touched = sorted(set(setup.task.data.items[setup.task.data.items != PAD_ITEM].tolist()))
    for graph in (False, True):
        assert sorted(i for items, with_ in setup.encoder.calls if with_ is graph for i in items) == touched
    assert set(touched) < set(range(ITEMS)), "an item that never occurs is never encoded"
    moved = [
        any(not torch.equal(a[n], b[n]) for n in a if n.startswith("encoder"))
        for a, b in itertools.pairwise(weights)
    ]
    assert moved == [False, False, True]
    assert setup.mode.parts.rate.steps == 1


def produced_and_applied(setup, steps):
    """Returns the sums [V, d] of what the filter gave and of what the encoder's backward took."""
    produced, applied = torch.zeros(ITEMS, DIM).double(), torch.zeros(ITEMS, DIM).double()
    gradient_of, encode = setup.mode.gradient_of, setup.encoding.encode

    def watched(batch, rows, engine):
        found = gradient_of(batch, rows, engine)
        produced[rows] += found[1]
        return found

    def taken(chunk, autocast=None, *, again=False):
        vectors = encode(chunk, again=again)
        if again and vectors.requires_grad:
            vectors.register_hook(lambda g: (applied.index_add_(0, torch.from_numpy(chunk.rows), g), None)[1])
        return vectors

    setup.mode.gradient_of, setup.encoding.encode = watched, taken
    setup.steps(steps)
    return produced, applied


@pytest.mark.parametrize("update", ["inject_single", "inject_multi"])
@pytest.mark.parametrize(("period", "total"), [(2, 10**6), (5, 10**6), (100, 10**6), (100, 5)])
def test_no_gradient_is_dropped_or_used_twice(update, period, total):
    """Cycles end with their period, with the epoch of three steps and with the training."""
    setup = multi(update=update, period=period, update_items=3, total_steps=total)
    steps = 6 if total > 6 else total
    produced, applied = produced_and_applied(setup, steps)
    assert float(produced.norm()) > 0
    torch.testing.assert_close(applied, produced, rtol=1e-12, atol=1e-15)
    assert not setup.mode.cycle.gradients.any()
    assert not setup.mode.cycle.owed.any()


def test_the_epoch_ends_a_cycle():
    setup = multi(update="inject_single", period=2)
    setup.steps(6)
    assert [next(iter(each)).split(".")[0] for each in setup.gradients] == 2 * [
        "filter", "filter", "encoder", "filter", "encoder"
    ]  # fmt: skip


def test_a_validation_in_mid_cycle_lets_the_encoder_have_what_is_there():
    setup = multi(update="inject_single", period=3)
    setup.steps(1)
    before = setup.weights()
    setup.mode.settle(setup.engine)
    assert setup.mode.parts.rate.steps == 1
    assert not torch.equal(before["encoder.words.weight"], setup.weights()["encoder.words.weight"])
    setup.mode.settle(setup.engine)
    assert setup.mode.parts.rate.steps == 1, "nothing is held back any more"


def test_a_new_cycle_reads_no_vector_of_the_last():
    setup = multi(update="regress", period=1, update_items=2)
    setup.steps(3)
    batch = setup.batches.batch(1, 0, Share(), 3)
    setup.mode.cycle.table.fill_(float("nan"))
    setup.step()
    assert torch.isfinite(setup.mode.cycle.table[batch.host[NAMED]]).all()
    fresh = setup.encoding.table()
    assert not torch.allclose(setup.mode.cycle.table[batch.host[NAMED]], fresh[batch.host[NAMED]])
    assert setup.encoder.training, "evaluation leaves training as it was"


@pytest.mark.parametrize("update", ["inject_multi", "regress"])
def test_evaluation_encodes_anew_and_leaves_training_as_it_was(update):
    """In mid-cycle, where the cache is behind, drifts and has dropout."""
    settings = {"update": update, "period": 3, "dropout": 0.4, "update_items": 2, "drift": 1.0}
    watched, left_alone = multi(**settings), multi(**settings)
    watched.steps(4)
    random = torch.get_rng_state()
    table = watched.mode.table(watched.engine.autocast)
    assert torch.equal(torch.get_rng_state(), random)
    assert watched.encoder.training
    with torch.no_grad():
        fresh = watched.encoder.eval()(torch.arange(ITEMS), 7)
    watched.encoder.train()
    torch.testing.assert_close(table, fresh, rtol=1e-12, atol=1e-14)
    left_alone.steps(4)
    assert watched.steps(3) == left_alone.steps(3)
    assert all(torch.equal(w, left_alone.weights()[name]) for name, w in watched.weights().items())


@pytest.mark.parametrize("update", ["inject_single", "inject_multi", "regress"])
def test_dropout_is_drawn_alike_for_the_cache_and_for_the_gradient(update):
    """Without that, regress would fit the difference of two masks, far larger than any gradient."""
    setup = multi(update=update, period=2, dropout=0.4, update_items=2)
    pairs = []
    encode = setup.encoding.encode

    def watched(chunk, autocast=None, *, again=False):
        vectors = encode(chunk, again=again)
        pairs.append((tuple(chunk.rows), again, vectors.detach().clone()))
        return vectors

    setup.encoding.encode = watched
    optimizers = setup.engine.optimizers
    setup.engine.optimizers = optimizers[:1]  # the encoder stands still, so that only masks could differ
    setup.steps(2)
    assert setup.mode.replays
    first = {rows: vectors for rows, again, vectors in pairs if not again}
    second = {rows: vectors for rows, again, vectors in pairs if again}
    assert first.keys() >= second.keys()
    assert all(torch.equal(first[rows], vectors) for rows, vectors in second.items())


def test_an_encoder_that_draws_nothing_is_packed_anew():
    setup = multi(update="inject_single", period=3, tokens=10**6)
    setup.steps(3)
    assert setup.mode.replays is False
    assert len([1 for _, graph in setup.encoder.calls if graph]) == 1
    assert len([1 for _, graph in setup.encoder.calls if not graph]) >= 2


def test_a_share_of_the_items_is_updated_and_the_others_wait():
    for by in ("gradient", "popularity", "age"):
        setup = multi(update="inject_single", period=3, update_share=0.4, update_by=by)
        produced, applied = produced_and_applied(setup, 3)
        owed = setup.mode.cycle.owed
        used = applied.norm(dim=1).numpy() > 0
        assert 0 < used.sum() < owed.sum()
        assert not (used & owed).any()
        torch.testing.assert_close(setup.mode.cycle.gradients[owed], produced[owed])
        assert (setup.mode.cycle.waiting[owed] == 1).all()
        kept, taken = np.flatnonzero(owed), np.flatnonzero(used)
        if by == "gradient":
            assert produced[taken].norm(dim=1).min() >= produced[kept].norm(dim=1).max()
        if by == "popularity":
            assert setup.task.train_counts[taken].min() >= setup.task.train_counts[kept].max()
        setup.steps(9)
        assert setup.mode.cycle.waiting.max() <= (3 if by == "age" else 4)


def test_the_probe_is_one_where_the_filter_stands_still_and_less_where_it_moves():
    found = {}
    for lr in (0.0, 0.3):
        setup = multi(update="inject_single", period=3, probe_every=1, filter_dropout=0.3, lr=lr)
        setup.steps(3)
        ((kind, values),) = setup.engine.notes
        assert kind == "probe"
        found[lr] = values["staleness_cosine"]
        assert [next(iter(g)).split(".")[0] for g in setup.gradients] == 3 * ["filter"] + ["encoder"]
    assert found[0.0] == pytest.approx(1.0, abs=1e-12)
    assert found[0.3] < 0.999


@pytest.mark.parametrize(("lr", "periods"), [(0.0, [2, 3]), (5.0, [2, 1])])
def test_the_period_follows_the_probe(lr, periods):
    setup = multi(update="inject_single", period=2, probe_every=1, adapt_period=True, lr=lr)
    setup.steps(2)
    assert [values["period"] for _, values in setup.engine.notes] == [periods[0]]
    assert setup.mode.period == periods[1]


def test_a_period_of_one_step_can_grow_again():
    setup = multi(update="inject_single", period=1, probe_every=1, adapt_period=True, lr=0.0)
    setup.steps(3)
    assert [values["period"] for _, values in setup.engine.notes] == [1, 2]
    assert setup.mode.period == 3


def test_regress_leaves_items_alone_that_no_step_has_used():
    """`eager` encodes them, and with dropout chunks come back whole: a second pass would pull them back."""
    setup = multi(update="regress", period=1, passes=2, refresh="eager", dropout=0.4, tokens=10**6)
    encode, learning = setup.encoding.encode, set()

    def watched(chunk, autocast=None, *, again=False):
        vectors = encode(chunk, again=again)
        if again:
            vectors.register_hook(lambda g: learning.update(chunk.rows[g.abs().sum(1).numpy() > 0].tolist()))
        return vectors

    setup.encoding.encode = watched
    setup.step()
    assert learning == set(setup.batches.batch(0, 0, Share(), 0).host[NAMED].tolist())


def test_the_pull_to_the_past_is_recorded():
    """Nothing at the first update, when the encoder still is where the vectors were made."""
    ratios = []
    for items in (None, 1):
        setup = multi(update="regress", period=3, tokens=10**6, update_items=items, lr=1e-2)
        setup.steps(3)
        ratios.append(setup.engine.notes[0][1]["anchor_ratio"])
    assert ratios[0] < 1e-9
    assert ratios[1] > 0.1


@pytest.mark.parametrize("refresh", ["lazy", "eager"])
@pytest.mark.parametrize("begun", [0, 1, 2])
def test_a_step_that_is_given_up_leaves_the_cycle_as_it_was(refresh, begun):
    """Also what is logged of it, when the step is taken again: how many items were encoded."""
    setup, other = (multi(period=2, dropout=0.4, refresh=refresh) for _ in range(2))
    setup.steps(begun)
    other.steps(begun)
    before = copy.deepcopy(other.mode.tensors())
    setup.engine.last_micro_batch = False
    batch = setup.batches.batch(0, begun, Share(0, 1, 0, 2), begun)
    plant(mix(5, begun, 0, 0), torch.device("cpu"))
    encoded = setup.mode.step(batch, setup.engine)["encoded_forward"]
    setup.engine.zero()
    setup.mode.drop_step()
    after = setup.mode.tensors()
    if begun:
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
    plant(mix(5, begun, 0, 0), torch.device("cpu"))
    assert setup.mode.step(batch, setup.engine)["encoded_forward"] == encoded
    setup.engine.zero()
    setup.mode.drop_step()
    setup.steps(3)
    other.steps(3)
    assert distance(setup.weights(), other.weights()) == 0.0


@pytest.mark.parametrize("update", ["inject_single", "inject_multi", "regress"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_resumed_run_goes_on_in_mid_cycle(update, dropout, at):
    """Stopped after any step, also in mid-cycle: the same losses and weights, bit for bit."""
    settings = {"update": update, "dropout": dropout, "period": 3, "update_items": 2, "probe_every": 1}
    share = 1.0 if update == "regress" else 0.6
    whole = multi(**settings, update_share=share)
    losses = whole.steps(6)
    first = multi(**settings, update_share=share)
    first.steps(at)
    resumed = multi(**settings, update_share=share)
    for optimizer, before in zip(resumed.optimizers, first.optimizers, strict=True):
        optimizer.load_state_dict(before.state_dict())
    for name, parameter in resumed.named():
        parameter.data.copy_(first.weights()[name])
    resumed.mode.load_tensors({name: t.clone() for name, t in first.mode.tensors().items()})
    resumed.mode.load(first.mode.state())
    resumed.mode.parts.rate.steps, resumed.engine.steps = first.mode.parts.rate.steps, at
    assert resumed.steps(6 - at) == losses[at:]
    assert all(torch.equal(w, whole.weights()[name]) for name, w in resumed.weights().items())
    assert [v for _, v in first.engine.notes + resumed.engine.notes] == [v for _, v in whole.engine.notes]


def taken_over(first, **settings):
    """Returns a setup that goes on from the state of another."""
    resumed = multi(**settings)
    for name, parameter in resumed.named():
        parameter.data.copy_(first.weights()[name])
    resumed.mode.load_tensors({name: t.clone() for name, t in first.mode.tensors().items()})
    resumed.mode.load(first.mode.state())
    resumed.engine.steps = first.engine.steps
    return resumed


def test_a_cycle_of_a_checkpoint_is_there_before_any_step_goes_on_from_it():
    """A run resumed only to be validated, as one out of time is, gives the encoder what it is owed."""
    settings = {"update": "inject_single", "period": 3, "probe_every": 1, "optimizer": torch.optim.SGD}
    first = multi(**settings)
    first.steps(2)
    resumed = taken_over(first, **settings)
    assert resumed.mode.state() == first.mode.state()
    again, before = resumed.mode.tensors(), first.mode.tensors()
    assert again.keys() == before.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in before.items())
    resumed = taken_over(first, **settings)
    for setup in (first, resumed):
        setup.mode.settle(setup.engine)
    assert resumed.mode.parts.rate.steps == 1
    assert all(torch.equal(weight, resumed.weights()[name]) for name, weight in first.weights().items())
    assert resumed.engine.notes == first.engine.notes


def test_dropout_is_noticed_however_seldom_it_strikes():
    setup = multi(update="inject_single", period=2, dropout=1e-9)
    setup.step()
    assert setup.mode.replays is True


def test_regress_is_refused_where_rounding_is_larger_than_gradients():
    from effrec_cli.errors import ConfigError

    setup = multi(update="regress")
    setup.engine.precision = "bf16"
    with pytest.raises(ConfigError, match="16 bits"):
        setup.mode.begin(setup.engine)


def test_the_encoders_schedule_counts_its_own_updates():
    """Two cycles of three steps: the first and the second rate of the warm-up of four, not the sixth."""
    setup = multi(update="inject_single", period=3, schedule="noam", lr=1e-2)
    rates = []
    for _ in range(2):
        setup.steps(3)
        rates.append(setup.optimizers[1].param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2 / 4, 1e-2 / 2])


def test_each_update_of_a_cycle_is_clipped():
    limit = 0.01
    free, clipped = (multi(update="inject_single", period=3, clip_norm=norm) for norm in (None, limit))
    free.steps(3)
    clipped.steps(3)
    norms = [float(flat(each).norm()) for each in clipped.gradients]
    assert all(float(flat(each).norm()) > 2 * limit for each in free.gradients)
    assert norms == pytest.approx(4 * [limit], rel=1e-3)


def test_regress_passes_over_a_cycle_as_often_as_told():
    """Each pass goes over every item once; the first one is that of a single pass."""
    settings = {"update": "regress", "period": 3, "update_items": 4, "tokens": 10**6}
    once, thrice = multi(**settings, passes=1), multi(**settings, passes=3)
    once.steps(3)
    thrice.steps(3)
    updates = once.mode.parts.rate.steps
    assert updates > 1
    assert thrice.mode.parts.rate.steps == 3 * updates
    for at in range(3 + updates):
        assert distance(thrice.gradients[at], once.gradients[at]) < 1e-12
    assert not thrice.mode.cycle.owed.any()


@pytest.mark.parametrize("mode", ["e2e", "e2e_dedup", "single_step", "multi_step"])
def test_a_summed_loss_is_the_mean_times_the_targets(mode):
    mean, summed = Setup(mode), Setup(mode, reduction="sum")
    targets = mean.batches.batch(0, 0, Share(), 0).total_targets
    mean.step()
    summed.step()
    assert targets > 1
    scaled = {name: targets * g for name, g in mean.gradients[0].items()}
    assert distance(summed.gradients[0], scaled) < 1e-12


def test_eager_encodes_all_that_training_has_as_a_cycle_begins():
    for refresh, everything in (("lazy", False), ("eager", True)):
        setup = multi(update="inject_single", period=3, refresh=refresh)
        setup.step()
        step = setup.batches.batch(0, 0, Share(), 0).host[NAMED]
        trained = np.flatnonzero(setup.task.train_counts)
        assert len(step) < len(trained)
        assert np.flatnonzero(setup.mode.cycle.touched).tolist() == (trained if everything else step).tolist()
