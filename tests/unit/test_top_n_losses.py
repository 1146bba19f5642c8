"""The losses of task top_n: what they are by hand, and that shares of a step add up."""

import math

import pytest
import torch
from pair_helpers import MODELS, network, random_data, side_of

from effrec_cli.data.batches import Batch, Share
from effrec_cli.data.known_pairs import KnownPairs
from effrec_cli.data.pairs import PairBatches
from effrec_cli.methods.top_n.losses import loss_of
from effrec_cli.schema.method_cadc import OVER_VECTORS, CADCConfig

LOSSES = ("bce", *OVER_VECTORS)


def batches_of(data, loss, *, known=False, batch_size=24):
    return PairBatches(
        data,
        batch_size,
        3 if loss == "bce" else 0,
        seed=5,
        known=KnownPairs(data) if known else None,
        in_batch=loss == "softmax",
    )


def own_of(loss, **settings):
    return CADCConfig(loss=loss, num_negatives=3, **settings)


def test_bce_is_the_mean_over_an_item_and_its_negatives_and_skips_what_is_none():
    data = random_data()
    net = network("two_tower", data)
    users, items = torch.tensor([1, 2]), torch.tensor([3, 4])
    negatives, weights = torch.tensor([[5, 6, 7], [8, -1, -1]]), torch.tensor([0.5, 2.0])
    tensors = {"users": users, "items": items, "negatives": negatives, "weights": weights}
    found = loss_of(net, Batch(tensors, 2, 10, 0), own_of("bce"), 1)

    def term(user, item, label):
        logit = net(torch.tensor([user]), torch.tensor([[item]])).item()
        return math.log1p(math.exp(-logit if label else logit))

    first = term(1, 3, 1) + term(1, 5, 0) + term(1, 6, 0) + term(1, 7, 0)
    second = term(2, 4, 1) + term(2, 8, 0)
    assert found.item() == pytest.approx((0.5 * first + 2 * second) / 4 / 10, rel=1e-5)


@pytest.mark.parametrize("known", [False, True])
def test_softmax_is_over_the_rows_of_the_step_without_the_own_item_by_logq(known):
    data = random_data(num_items=12, longest=9)
    net = network("two_tower", data)
    batch = batches_of(data, "softmax", known=known).batch(0, 0, Share(), 0)
    found = loss_of(net, batch, own_of("softmax", temperature=0.5), 1)
    users, items = batch.tensors["users"].tolist(), batch.tensors["items"].tolist()
    log_p = [math.log(count / data.num_train) for count in data.train_counts()]
    vectors = net.user_vectors(torch.arange(40)) @ net.item_vectors(torch.arange(12)).T / 0.5
    total = 0.0
    for user, item in zip(users, items, strict=True):
        logits = [vectors[user, item].item() - log_p[item]]
        met = set(data.train_items(user).tolist()) if known else {item}
        logits += [vectors[user, other].item() - log_p[other] for other in items if other not in met]
        total += math.log(sum(map(math.exp, logits))) - logits[0]
    assert found.item() == pytest.approx(total / len(users), rel=1e-4)


def test_cce_is_the_softmax_over_the_catalogue():
    data = random_data()
    net = network("two_tower", data, "residual")
    batch = batches_of(data, "cce").batch(0, 0, Share(), 0)
    found = loss_of(net, batch, own_of("cce", temperature=2.0), 1)
    users, items = batch.tensors["users"], batch.tensors["items"]
    logits = net(users, torch.arange(30).expand(len(users), -1)) / 2.0
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, items), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "known"), [*((loss, False) for loss in LOSSES), ("bce", True), ("softmax", True)]
)
def test_shares_of_a_step_add_up_to_it_in_loss_and_gradients(loss, known):
    data = random_data(side=side_of())
    net = network("two_tower", data, "residual", attributes=True).double()
    batches = batches_of(data, loss, known=known)

    def grown(shares):
        net.zero_grad()
        losses = [loss_of(net, batches.batch(1, 1, share, 7), own_of(loss), 1) for share in shares]
        sum(losses).backward()
        reached = [each for each in net.parameters() if each.grad is not None]
        return sum(losses).item(), [each.grad.clone() for each in reached]

    whole, gradients = grown([Share()])
    split, parts = grown([Share(rank, 2, micro, 3) for rank in range(2) for micro in range(3)])
    assert split == pytest.approx(whole, rel=1e-6)
    assert len(gradients) >= 5
    for one, other in zip(gradients, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any(each.any() for each in gradients)


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_learns_to_tell_pairs_by_bce(kind):
    data = random_data(side=side_of())
    net = network(kind, data, "init_upd", attributes=True)
    batches = batches_of(data, "bce", batch_size=500)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    losses = []
    for epoch in range(80):
        loss = loss_of(net, batches.batch(epoch, 0, Share(), epoch), own_of("bce"), 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    blind = math.log(4) - 0.75 * math.log(3)
    assert max(losses[-5:]) < 0.95 * blind, "less than knowing only that one in four is an item met"
