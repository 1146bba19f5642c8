"""Method cce: its losses, who shares negatives, shares of a step, errors, and that it learns."""

import dataclasses

import effrec_kernels
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from effrec_kernels.buckets import directions
from effrec_kernels.rng import Key

from effrec_cli.data.batches import Share
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.cce import CCE, width_for
from effrec_cli.optim import make_optimizer
from effrec_cli.schema import Config, OptimizerConfig
from effrec_cli.schema.method_cce import LOSSES, CCEConfig
from effrec_cli.schema.model_none import NoModelConfig
from effrec_cli.schema.model_sasrec import SASRecConfig

V, LENGTH = 40, 12


def chain(num_users=60, length=LENGTH, num_items=V, noise=0.1, seed=0):
    """Histories that mostly step to a fixed successor of the item before; the last two are held out."""
    rng = np.random.default_rng(seed)
    successor = rng.permutation(num_items)
    items = np.empty((num_users, length), dtype=np.int32)
    items[:, 0] = rng.integers(0, num_items, num_users)
    for at in range(1, length):
        random = rng.random(num_users) < noise
        items[:, at] = np.where(random, rng.integers(0, num_items, num_users), successor[items[:, at - 1]])
    offsets = np.arange(num_users + 1, dtype=np.int64) * length
    start, end = offsets[:-1], offsets[1:]
    users = np.arange(num_users, dtype=np.int32)
    valid = EvalCases(users, start, end - 2, end - 2, end - 1)
    test = EvalCases(users, start, end - 1, end - 1, end)
    sequences = Sequences(offsets, items.flatten())
    catalogues = Catalogue(np.arange(num_users)), Catalogue(np.arange(num_items))
    return RecData("chain", "0" * 12, sequences, end - 2, valid, test, *catalogues)


def make(data=None, model=None, seed=1, **method):
    data = data or chain()
    sasrec = {"dim": 16, "num_layers": 1, "max_length": 8, "dropout": 0.0, **(model or {})}
    own = {"num_negatives": 15, "batch_size": 16, **method}
    config = Config(model=SASRecConfig(**sasrec), method=CCEConfig(**own), seed=seed)
    cce = CCE(config)
    cce.build(cce.prepare(data))
    return cce


def gradients(method, shares):
    """Returns the loss of a step, added up over shares, and its gradients."""
    batches = method.batches(method.data)
    method.model.zero_grad()
    total = 0.0
    for share in shares:
        loss = method.loss(batches.batch(0, 0, share, step=3))
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in method.model.parameters()]


@pytest.mark.parametrize("pair", [("ce", "cce"), ("ce_sampled", "cce_sampled")])
def test_losses_without_their_big_tensor_have_the_same_values(pair):
    (first, first_grads), (second, second_grads) = (gradients(make(loss=loss), [Share()]) for loss in pair)
    assert second == pytest.approx(first, rel=1e-5)
    for one, other in zip(first_grads, second_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


SHARED = {
    "tile": {"sharing": "tile", "tile_rows": 8},
    "sequence": {"sharing": "sequence"},
    "batch": {"sharing": "batch"},
    "popularity": {"sampler": "popularity", "correction": "logq", "sharing": "tile", "tile_rows": 5},
    "block": {"sampler": "block", "num_negatives": 64, "sharing": "batch"},
    "binary tile": {"loss": "bce_sampled", "sharing": "tile", "tile_rows": 8},
    "binary popularity": {"loss": "gbce", "sampler": "popularity", "sharing": "sequence"},
}
WAYS = {loss: {"loss": loss} for loss in LOSSES} | SHARED
# Buckets hold rows of one micro-batch.
SPLIT = [way for way in WAYS if way != "sce"]


@pytest.mark.parametrize("way", SPLIT)
@pytest.mark.parametrize("shares", [(1, 3), (2, 1), (3, 2), (40, 1)])
def test_shares_of_a_step_add_up_to_the_whole(way, shares):
    """Ranks without a sample included: 40 ranks share 16 windows. Tiles are cut by ranks, and still equal."""
    ranks, micros = shares
    method = make(**WAYS[way])
    whole, whole_grads = gradients(method, [Share()])
    parts = [Share(rank, ranks, micro, micros) for rank in range(ranks) for micro in range(micros)]
    split, split_grads = gradients(method, parts)
    assert split == pytest.approx(whole, rel=1e-5)
    for one, other in zip(whole_grads, split_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_share_still_gives_every_parameter_a_gradient_of_zero(way):
    method = make(**WAYS[way])
    total, grads = gradients(method, [Share(rank=0, ranks=40)])
    assert total == 0
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_the_oracles(loss):
    method = make(loss=loss)
    batch = method.batches(method.data).batch(0, 0, Share(), step=3)
    rows = method._rows(batch)
    hidden, items = rows.hidden.detach(), rows.items.detach()
    number = 1 if loss == "bce" else 15
    numbers = torch.arange(rows.first, rows.first + len(rows.targets))
    drawn = effrec_kernels.draw_negatives(numbers, number, V, seed=1, step=3)
    reference = effrec_kernels.reference
    if loss in ("ce", "cce"):
        expected = F.cross_entropy((hidden @ items.T).double(), rows.targets)
    elif loss in ("ce_sampled", "cce_sampled"):
        expected = reference.sampled_rows(hidden, items, rows.targets, drawn)[0].mean()
    elif loss == "sce":
        expected = _mined(method, hidden, items, rows)
    else:
        expected = _binary(hidden.double(), items.double(), rows.targets, drawn, loss)
    assert method.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def _mined(method, hidden, items, rows):
    """Returns the loss over buckets found along the directions of seed 1 and step 3."""
    size = int(2 * len(rows.targets) ** 0.5)
    along = directions(hidden, size, Key(1, 3), True, rows.first)
    of_rows, of_items = (along @ hidden.T).topk(size).indices, (along @ items.T).topk(V).indices
    found, covered = effrec_kernels.reference.bucket_rows(hidden, items, rows.targets, of_rows, of_items)
    return found.sum() / covered.sum()


def _binary(hidden, items, targets, drawn, loss):
    positive = (hidden * items[targets]).sum(-1)
    negative = (items[drawn] @ hidden[:, :, None]).squeeze(-1)
    pushed = F.softplus(negative).masked_fill(drawn == targets[:, None], 0).sum(-1)
    if loss in ("bce", "bce_sampled"):
        return (F.softplus(-positive) + pushed).mean()
    rate = 15 / (V - 1)
    beta = rate * (0.75 * (1 - 1 / rate) + 1 / rate)
    return ((beta * F.softplus(-positive) + pushed) / 16).mean()


def keys_of(sharing, rows, tile_rows=8):
    """Returns the number that each row draws with, int64 [M]."""
    numbers = torch.arange(rows.first, rows.first + len(rows.targets))
    if sharing == "tile":
        stretches = max(1, rows.normalizer // (tile_rows * 8))
        stride = -(-rows.normalizer // (tile_rows * stretches))
        return numbers // (tile_rows * stride) * stride + numbers % stride
    starts = rows.first + rows.lengths.cumsum(0) - rows.lengths
    return starts.repeat_interleave(rows.lengths) if sharing == "sequence" else torch.zeros_like(numbers)


@pytest.mark.parametrize("loss", ["ce_sampled", "cce_sampled"])
@pytest.mark.parametrize("sharing", ["tile", "sequence", "batch"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_shared_negatives_are_those_of_tiles_windows_or_the_step(loss, sharing, temperature):
    method = make(loss=loss, sharing=sharing, tile_rows=8, temperature=temperature)
    batch = method.batches(method.data).batch(0, 0, Share(rank=1, ranks=2), step=3)
    rows = method._rows(batch)
    assert rows.first > 0
    drawn = effrec_kernels.draw_negatives(keys_of(sharing, rows), 15, V, seed=1, step=3)
    expected, _ = effrec_kernels.reference.sampled_rows(
        rows.hidden.detach(), rows.items.detach(), rows.targets, drawn, temperature=temperature
    )
    assert method.loss(batch).item() == pytest.approx(expected.sum().item() / rows.normalizer, rel=1e-5)


@pytest.mark.parametrize("loss", ["bce_sampled", "gbce"])
@pytest.mark.parametrize("sharing", ["tile", "sequence", "batch"])
def test_sigmoids_share_negatives_as_the_softmax_does(loss, sharing):
    method = make(loss=loss, sharing=sharing, tile_rows=8)
    batch = method.batches(method.data).batch(0, 0, Share(rank=1, ranks=2), step=3)
    rows = method._rows(batch)
    drawn = effrec_kernels.draw_negatives(keys_of(sharing, rows), 15, V, seed=1, step=3)
    expected = _binary(rows.hidden.detach().double(), rows.items.detach().double(), rows.targets, drawn, loss)
    share = len(rows.targets) / rows.normalizer
    assert method.loss(batch).item() == pytest.approx(expected.item() * share, rel=1e-5)


@pytest.mark.parametrize("loss", ["bce_sampled", "gbce"])
@pytest.mark.parametrize("option", [{"sampler": "popularity"}, {"in_batch": 7}, {"sharing": "batch"}])
def test_sigmoids_take_every_way_to_draw(loss, option):
    plain, drawn = (gradients(make(loss=loss, **more), [Share()])[0] for more in ({}, option))
    assert abs(plain - drawn) > 1e-4 * plain


def test_a_tiles_rows_are_of_different_windows_where_the_step_has_enough():
    """Windows of at most 8; tiles of 4 find rows that are as far apart as that, and are full."""
    method = make(sharing="tile", tile_rows=4)
    batch = method.batches(method.data).batch(0, 0, Share(), step=3)
    rows = method._rows(batch)
    assert rows.normalizer > 2 * 4 * 8
    keys, window = keys_of("tile", rows, 4), torch.arange(batch.size).repeat_interleave(rows.lengths)
    sizes = torch.bincount(keys)
    assert sizes.double().mean() > 3.5
    options = method._sampling(rows)
    assert options["sharing"] == 4
    numbers, stride = torch.arange(len(keys)), options["sharing_stride"]
    assert torch.equal(keys, numbers // (4 * stride) * stride + numbers % stride)
    for key in range(len(sizes)):
        mine = window[keys == key]
        assert len(mine.unique()) == len(mine)


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "block"])
def test_sampled_softmax_with_logq_meets_the_full_one_as_negatives_grow(sampler):
    """Whatever is drawn by, and with targets of other rows among them."""
    full, _ = gradients(make(loss="cce"), [Share()])
    options = {"sampler": sampler, "correction": "logq", "num_negatives": 64 * 400}
    for in_batch in (0, 64 * 200):
        method = make(in_batch=in_batch, **options)
        found, _ = gradients(method, [Share()])
        # The batch's own targets are not quite what the training data hold.
        assert found == pytest.approx(full, rel=0.01 if not in_batch else 0.1)


def test_popularity_is_that_of_the_training_items():
    method = make(sampler="popularity", correction="logq", popularity_power=0.5)
    method.loss(method.batches(method.data).batch(0, 0, Share(), step=0))
    wanted = (torch.from_numpy(method.data.train_counts()) + 1.0).double().sqrt()
    found = method._draws.sampler.log_q.double().exp()
    torch.testing.assert_close(found, wanted / wanted.sum(), rtol=1e-5, atol=0)
    assert method._draws is method._draws, "made once"


@pytest.mark.parametrize("loss", LOSSES)
def test_temperature_divides_logits(loss):
    """Half the temperature is twice the states, which are the model's last, unscaled layer times two."""
    method = make(loss=loss, temperature=0.5)
    batch = method.batches(method.data).batch(0, 0, Share(), step=3)
    warm = method.loss(batch).item()
    method.config.method.temperature = 1.0
    forward = method.model.forward
    method.model.forward = lambda *inputs: forward(*inputs) * 2
    assert method.loss(batch).item() == pytest.approx(warm, rel=1e-5)


def test_buckets_are_of_a_micro_batch_and_count_by_its_rows():
    method = make(loss="sce", sce_items=8)
    batches = method.batches(method.data)
    shares = [batches.batch(0, 0, Share(rank=rank, ranks=2), step=3) for rank in range(2)]
    rows = [method._rows(batch) for batch in shares]
    own = [
        effrec_kernels.scalable_cross_entropy(
            part.hidden, part.items, part.targets, bucket_items=8, seed=1, step=3, row_offset=part.first
        )
        for part in rows
    ]
    total = sum(loss.item() * len(part.targets) for loss, part in zip(own, rows, strict=True))
    found, _ = gradients(method, [Share(rank=rank, ranks=2) for rank in range(2)])
    assert found == pytest.approx(total / rows[0].normalizer, rel=1e-5)


@pytest.mark.parametrize(
    "option", [{"sce_buckets": 3}, {"sce_targets": 5}, {"sce_items": 4}, {"sce_mix": False}, {"seed": 2}]
)
def test_every_setting_of_sce_changes_it(option):
    plain, other = (
        gradients(make(**{"loss": "sce", "sce_items": 8, **more}), [Share()])[0] for more in ({}, option)
    )
    assert plain != other


def test_draws_depend_on_seed_and_step_alone():
    method = make()
    batches = method.batches(method.data)
    same = [method.loss(batches.batch(0, 0, Share(), step=3)).item() for _ in range(2)]
    later = method.loss(batches.batch(0, 0, Share(), step=4)).item()
    assert same[0] == same[1] != later
    method.config.seed = 2
    assert method.loss(batches.batch(0, 0, Share(), step=3)).item() != same[0]


def test_correction_is_passed_on():
    values = [
        gradients(make(correction=kind), [Share()])[0] for kind in ("exact", "constant", "none", "logq")
    ]
    assert len(set(values)) == 4


def test_model_is_a_function_of_the_seed_and_leaves_the_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.model.item_embeddings, same.model.item_embeddings)
    assert not torch.equal(one.model.item_embeddings, other.model.item_embeddings)


@pytest.mark.parametrize(
    ("num_items", "width"), [(1, 32), (1000, 32), (9724, 64), (26744, 128), (176_450, 256), (10**7, 256)]
)
def test_width_follows_the_catalogue(num_items, width):
    assert width_for(num_items) == width


def test_width_is_chosen_where_none_is_given():
    method = make(model={"dim": None})
    assert method.model.item_embeddings.shape == (V, 32)
    assert method.config.model.dim == 32
    assert make(model={"dim": 24}).model.item_embeddings.shape == (V, 24)


def test_a_batch_size_left_open_suits_the_data_and_is_written_down():
    method = make(batch_size=None)
    assert method.config.method.batch_size == 16
    assert make(batch_size=5).config.method.batch_size == 5


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="does not divide"):
        make(model={"dim": 16, "num_heads": 3})
    with pytest.raises(ConfigError, match="does not divide"):
        make(model={"dim": None, "num_heads": 5})


def test_a_model_that_does_not_take_sequences_is_refused_with_the_pairs_that_fit():
    method = CCE(Config(model=NoModelConfig(), method=CCEConfig()))
    with pytest.raises(ConfigError) as caught:
        method.build(chain())
    assert "next_item" in str(caught.value)
    assert "sasrec" in str(caught.value)


def test_an_unknown_model_is_refused_with_its_nearest():
    config = Config(model=dataclasses.replace(SASRecConfig(), name="sasrek"), method=CCEConfig())
    with pytest.raises(ConfigError, match="sasrec"):
        CCE(config).build(chain())


@pytest.mark.parametrize("loss", LOSSES)
def test_the_kernel_that_runs_is_named(loss):
    assert make(loss=loss).kernel == "torch"
    expected = "torch" if loss in ("ce", "ce_sampled") else "reference"
    assert make(loss=loss, kernel="reference").kernel == expected


def test_the_full_softmax_is_told_from_the_sampled_one_where_kernels_are_chosen(monkeypatch):
    """A GPU has kernels for both, but `auto` leaves the full softmax to matrix products."""
    seen = {}
    monkeypatch.setattr(
        effrec_kernels, "which_kernel", lambda kernel, where, full: seen.setdefault(full, "torch")
    )
    assert make(loss="cce").kernel == make(loss="cce_sampled").kernel == "torch"
    assert set(seen) == {True, False}


def test_a_kernel_that_cannot_run_is_said_so(monkeypatch):
    monkeypatch.setattr("effrec_kernels.dispatch._missing", lambda device: "Triton needs a GPU")
    with pytest.raises(EnvironmentFault, match="kernel"):
        _ = make(kernel="triton").kernel


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cce_sampled", "tile", "popularity"])
def test_two_hundred_steps_go_as_with_the_oracle(way):
    """The loss curve of a model trained by the kernel and by the float64 reference, the same ids in both."""
    curves = []
    for kernel in ("torch", "reference"):
        method = make(kernel=kernel, **WAYS[way])
        batches = method.batches(method.data)
        optimizer = make_optimizer(method.model.parameters(), OptimizerConfig(lr=0.01))
        curve = []
        for step in range(200):
            epoch, position = divmod(step, batches.steps_per_epoch)
            optimizer.zero_grad()
            loss = method.loss(batches.batch(epoch, position, Share(), step))
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(np.array(curve))
    assert curves[0][-20:].mean() < 0.5 * curves[0][:20].mean()
    np.testing.assert_allclose(curves[0], curves[1], rtol=2e-3)


def ndcg(scorer, data):
    """Returns NDCG@10 of full ranking on the test cases, seen items left out."""
    items = torch.from_numpy(data.sequences.items).long().view(-1, LENGTH)
    history, target = items[:, :-1], items[:, -1:]
    offsets = torch.arange(len(items) + 1) * (LENGTH - 1)
    scores = scorer.score(torch.arange(len(items)), Histories(history.flatten(), offsets))
    scores = scores.scatter(1, history, -torch.inf)
    rank = (scores > scores.gather(1, target)).sum(1).double()
    hit = (rank < 10) & torch.isfinite(scores.gather(1, target).squeeze(1))
    return (hit / torch.log2(rank + 2)).mean().item()


class Popularity:
    def __init__(self, data):
        self.counts = torch.from_numpy(data.train_counts()).float()

    def score(self, users, histories):
        return self.counts.expand(len(users), -1)


@pytest.mark.parametrize("way", [*LOSSES, "tile", "sequence", "batch", "popularity"])
def test_it_learns_a_markov_chain_that_popularity_cannot_see(way):
    data = chain(num_users=120, noise=0.05)
    method = make(data, {"dropout": 0.1}, **WAYS[way])
    batches = method.batches(data)
    optimizer = make_optimizer(method.model.parameters(), OptimizerConfig(lr=0.02))
    method.model.train()
    step = 0
    for epoch in range(25):
        for position in range(batches.steps_per_epoch):
            torch.manual_seed(step)
            optimizer.zero_grad()
            method.loss(batches.batch(epoch, position, Share(), step)).backward()
            optimizer.step()
            step += 1
    assert ndcg(method.scorer(), data) > 3 * ndcg(Popularity(data), data)
    assert ndcg(method.scorer(), data) > 0.6
