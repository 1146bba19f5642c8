"""The two-tower network: what it computes, and that residual towers start at the factors (sheet 5: 12)."""

import pytest
import torch
from pair_helpers import factors_of, network, random_data, side_of

from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.top_n.scorer import VectorScorer

NOBODY = Histories(torch.zeros(0, dtype=torch.int64), torch.zeros(41, dtype=torch.int64))


def test_scores_are_products_of_towers_of_ids_and_attributes():
    data = random_data(side=side_of())
    net = network("two_tower", data, attributes=True, dim=6)
    users, items = torch.tensor([3, 8]), torch.tensor([[1, 4, 4], [0, 2, 9]])
    logits = net(users, items)
    for row in range(2):
        x = torch.cat([net.users.table[users[row]], net.user_attributes(users[row])])
        own = net.user_tower[2](net.user_tower[0](x).relu())
        assert own.shape == (6,)
        for column in range(3):
            item = items[row, column]
            y = torch.cat([net.items.table[item], net.item_attributes(item)])
            other = net.item_tower[2](net.item_tower[0](y).relu())
            torch.testing.assert_close(logits[row, column], own @ other + net.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attributes", [False, True])
def test_12_residual_towers_start_at_the_factors_own_ranking_for_every_user(attributes):
    """Sheet test 12: the initial ranking is identical to MF's top 20 for all users, here the scores' bits."""
    data = random_data(num_users=40, num_items=60, longest=30, side=side_of(40, 60))
    users, items = factors_of(data)
    net = network("two_tower", data, "residual", attributes=attributes, factors=(users, items))
    scorer = VectorScorer(net, 60, torch.device("cpu"))
    found = scorer.score(torch.arange(40), NOBODY)
    own = users @ items.T
    assert torch.equal(found.topk(20).indices, own.topk(20).indices)
    scale = float(net.users.scale) * float(net.items.scale)
    assert torch.equal(found, own * scale)


def test_residual_scores_start_with_a_deviation_near_1_and_train():
    data = random_data(num_users=400, num_items=300)
    net = network("two_tower", data, "residual")
    logits = net(torch.arange(400), torch.arange(300).expand(400, -1))
    assert 0.5 < logits.std() < 2
    logits.square().sum().backward()
    moved = {name for name, each in net.named_parameters() if each.grad is not None and each.grad.any()}
    last = {f"{side}_tower.2.{kind}" for side in ("user", "item") for kind in ("weight", "bias")}
    assert moved == {*last, "bias", "log_scale"}


def test_the_ranking_of_one_product_is_that_of_the_network():
    data = random_data(side=side_of())
    net = network("two_tower", data, "residual", attributes=True)
    torch.manual_seed(4)
    for weights in net.parameters():
        weights.data += 0.1 * torch.randn_like(weights)
    found = VectorScorer(net, 30, torch.device("cpu")).score(torch.arange(40), NOBODY)
    logits = net(torch.arange(40), torch.arange(30).expand(40, -1))
    torch.testing.assert_close(found * net.scale + net.bias, logits, rtol=1e-4, atol=1e-5)
