"""Model multvae: its batches, its loss by loops, its layers under method dsl, and users whom nobody knows."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from cadc_helpers import held_out
from dsl_helpers import engine_of, mask_of, step

from effrec_cli import compose
from effrec_cli.app import main
from effrec_cli.data.bags import UserBags
from effrec_cli.data.batches import Share
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.dsl import DSL
from effrec_cli.methods.sparse.network import tables_in
from effrec_cli.models.sparse.start import budget

FEW = ["model=multvae", "model.hidden=10", "model.latent=4"]
SIZES = {"read": (30, 10), "encoder": (8, 10), "decoder": (10, 4), "items": (30, 10)}


def quiet_method(*words):
    """Returns a method on small data whose network neither drops nor draws, and its batches."""
    method, batches = vae_on(held_out(), *words)
    method.model.eval()
    return method, batches


def vae_on(data, *words):
    """Returns the method about to train, and its batches."""
    method = DSL(compose.compose(["method=dsl", "data_root=/nowhere", "run.device=cpu", *FEW, *words]))
    method.data = method.prepare(data)
    method.model = method.build(data)
    return method, method.batches(data)


def vae_begun(*words):
    method, batches = vae_on(held_out(), *words)
    engine = engine_of(method, batches)
    method.fit(engine)
    return method, batches, engine


def bags_of(batch):
    """Returns the items of each user of a batch."""
    items, offsets = (batch.tensors[name].tolist() for name in ("items", "offsets"))
    return [items[low:high] for low, high in pairwise(offsets)]


def test_an_epoch_has_each_user_once_with_its_different_training_items():
    data = held_out()
    data.sequences.items[1] = data.sequences.items[0]  # met twice by the first user
    bags = UserBags(data, 7, seed=3)
    assert (bags.num_samples, bags.steps_per_epoch) == (40, 6)
    rows = [sorted(set(data.train_items(user).tolist())) for user in range(40)]
    for epoch in range(2):
        met = [bag for at in range(6) for bag in bags_of(bags.batch(epoch, at, Share(), at))]
        assert sorted(met) == sorted(rows)
        assert met != rows
    again = UserBags(data, 7, seed=3).batch(1, 2, Share(), 8)
    assert bags_of(again) == bags_of(bags.batch(1, 2, Share(), 8))


def test_shares_of_a_step_make_the_whole_of_it():
    bags = UserBags(held_out(), 9, seed=3)
    whole = bags_of(bags.batch(0, 1, Share(), 1))
    parts = [bags.batch(0, 1, Share(rank=rank, ranks=4), 1) for rank in range(4)]
    assert sum((bags_of(part) for part in parts), []) == whole  # noqa: RUF017
    assert {part.total_targets for part in parts} == {len(whole)}


def test_weights_are_those_of_the_rows():
    data = held_out()
    weights = np.random.default_rng(0).uniform(0.5, 3, data.num_train).astype(np.float32)
    batch = UserBags(replace(data, train_weights=weights), 40, seed=3).batch(0, 0, Share(), 0)
    left, expected = iter((weights / weights.mean()).tolist()), []
    for user in range(40):
        met = {item: next(left) for item in data.train_items(user).tolist()}
        expected.append(sorted((item, pytest.approx(weight, rel=1e-5)) for item, weight in met.items()))
    left = iter(batch.tensors["weights"].tolist())
    found = [[(item, next(left)) for item in bag] for bag in bags_of(batch)]
    assert len(found) == len(expected)
    assert all(bag in expected for bag in found)


def logits_by_hand(model, bag):
    """Returns the logits of one bag by the mean of its code, and what the KL divergence is."""
    tables = {name: table.weights.detach() for name, table in tables_in(model).items()}
    read = sum(tables["read"][item] for item in bag) / math.sqrt(len(bag))
    code = tables["encoder"] @ torch.tanh(read + model.read_bias) + model.encoder_bias
    mean, log_variance = code[:4], code[4:]
    hidden = torch.tanh(tables["decoder"] @ mean + model.decoder_bias)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum()
    return tables["items"] @ hidden + model.items_bias, divergence


@pytest.mark.parametrize(("at", "beta"), [(0, 0.0), (30, 0.1), (300, 0.2)])
def test_the_loss_is_that_of_plain_loops(at, beta):
    method, batches = quiet_method("model.anneal_steps=300")
    batch = batches.batch(0, 0, Share(), at)
    expected = 0.0
    for bag in bags_of(batch):
        logits, divergence = logits_by_hand(method.model, bag)
        chances = logits.exp() / logits.exp().sum()
        expected += beta * divergence - sum(chances[item].log() for item in bag)
    torch.testing.assert_close(method.loss(batch), expected / batch.total_targets)


def test_weights_multiply_the_likelihood():
    model = quiet_method()[0].model
    items, offsets = torch.tensor([3, 7, 1]), torch.tensor([0, 2, 3])
    plain = model.loss_of_users(items, offsets, 0)
    double = model.loss_of_users(items, offsets, 0, torch.tensor([1.0, 1.0, 2.0]))
    torch.testing.assert_close(double, plain * torch.tensor([1.0, 2.0]))


def test_training_drops_items_and_draws_codes():
    method, batches = vae_on(held_out())
    batch = batches.batch(0, 0, Share(), 0)
    torch.manual_seed(0)
    first, second = method.loss(batch), method.loss(batch)
    assert first != second
    torch.manual_seed(0)
    assert method.loss(batch) == first


@pytest.mark.parametrize("structure", ["row", "global"])
@pytest.mark.parametrize("mode", ["dsl", "rigl", "set"])
def test_all_matrices_keep_their_budgets_and_what_is_masked_stays_zero(mode, structure):
    words = [f"method.mode={mode}", f"method.structure={structure}", "method.update_every=0.5"]
    method, batches, engine = vae_begun(*words, "method.batch_size=8", "optimizer.lr=0.01")
    tables = tables_in(method.model)
    assert {name: (table.shape.rows, table.shape.dim) for name, table in tables.items()} == SIZES
    first = {name: mask_of(table) for name, table in tables.items()}
    for _ in range(20):
        step(method, batches, engine)
        for name, table in tables.items():
            assert int(table.mask.sum()) == budget(*SIZES[name], 0.25, structure)
            state = engine.optimizers[0].state[table.weights]
            for numbers in (table.weights.detach(), state["exp_avg"], state["exp_avg_sq"]):
                assert not numbers[~table.mask].any()
    assert len(method._told) >= 3
    assert not any(torch.equal(first[name], mask_of(table)) for name, table in tables.items())


@pytest.mark.parametrize("mode", ["dsl", "dense"])
def test_users_are_scored_by_what_they_met_whoever_they_are(mode):
    method, _ = quiet_method(f"method.mode={mode}")
    bags = [[4, 9, 11], [2], [4, 9, 11]]
    histories = Histories(torch.tensor([9, 4, 11, 4, 2, 11, 9, 4]), torch.tensor([0, 4, 5, 8]))
    scores = method.scorer().score(torch.tensor([0, 1, -1]), histories)
    expected = torch.stack([logits_by_hand(method.model, bag)[0] for bag in bags])
    torch.testing.assert_close(scores, expected)


def test_a_user_without_a_history_gets_finite_scores():
    method, _ = quiet_method()
    nothing = Histories(torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0]))
    assert method.scorer().score(torch.tensor([-1]), nothing).isfinite().all()


@pytest.mark.parametrize(
    "word", ["method.dim=32", "method.num_negatives=4", "method.reg=0.1", "method.mode=dense_small"]
)
def test_settings_that_nothing_reads_are_refused(word):
    with pytest.raises(ConfigError, match="model=multvae"):
        compose.compose(["method=dsl", "model=multvae", word])


@pytest.mark.parametrize("words", [[], ["method.mode=magnitude"], ["dataset.split.kind=strong"]])
def test_what_is_kept_scores_as_what_was_judged(words, tmp_path, capsys):
    folder = tmp_path / "run"
    small = ["dataset.num_users=120", "dataset.num_items=60", "run.device=cpu", "evaluation.ks=[5,20]"]
    argv = ["train", "method=dsl", *FEW, f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *small]
    assert main([*argv, "run.max_epochs=2", *words]) == 0
    result = json.loads((folder / "result.json").read_text())
    items = result["dataset"]["items"]
    assert result["sparsity"]["of"] == 2 * 10 * items + 8 * 10 + 4 * 10
    live = {10: 2, 4: 1}
    assert result["sparsity"]["live"] == 2 * items * live[10] + 8 * live[10] + 10 * live[4]
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]["test"]
