"""NeuMF computes what He et al. (2017) write, for pairs and for the whole catalogue."""

import pytest
import torch
from pair_helpers import network, random_data, side_of


def by_hand(net, user, item):
    """Returns one pair's logit by equations 9, 10 and 12, the first layer in one piece."""
    rows = torch.tensor(user), torch.tensor(item)
    p, q = net.users(rows[0]), net.items(rows[1])
    mlp_p = p if net.network_users is None else net.network_users(rows[0])
    mlp_q = q if net.network_items is None else net.network_items(rows[1])
    read = torch.cat([mlp_p, net.user_attributes(rows[0]), mlp_q, net.item_attributes(rows[1])])
    first = torch.cat([net.user_layer.weight, net.item_layer.weight], 1) @ read + net.item_layer.bias
    return net.product @ (p * q) + net.network(first.relu())[0]


@pytest.mark.parametrize("strategy", ["rand", "init_frz", "init_upd", "concat"])
def test_scores_are_as_published(strategy):
    data = random_data(side=side_of())
    net = network("neumf", data, strategy, attributes=True)
    torch.nn.init.normal_(net.product)
    users, items = torch.tensor([3, 8]), torch.tensor([[1, 4, 4], [0, 2, 9]])
    logits = net(users, items)
    for row in range(2):
        for column in range(3):
            expected = by_hand(net, int(users[row]), int(items[row, column]))
            torch.testing.assert_close(logits[row, column], expected, rtol=1e-5, atol=1e-6)


def test_product_and_network_have_vectors_of_their_own_where_they_move():
    data = random_data()
    net = network("neumf", data, "init_upd")
    assert net.network_users.table is not net.users.table
    assert network("neumf", data, "init_frz").network_users is None
