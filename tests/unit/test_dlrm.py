"""DLRM computes what Naumov et al. (2019) write, with whatever a dataset knows."""

import itertools

import pytest
import torch
from pair_helpers import network, random_data, side_of


def by_hand(net, user, item):
    """Returns one pair's logit: every product of two vectors looked up one by one."""
    user, item = torch.tensor(user), torch.tensor(item)
    vectors, dense = [], []
    for side, ids, row in ((net.user_vectors, net.users, user), (net.item_vectors, net.items, item)):
        table = side.table
        vectors.append([side.ids(ids(row))])
        vectors[-1] += [each(table.categories[row, at].long()) for at, each in enumerate(side.embeddings)]
        if side.flags is not None:
            on = table.flags[row].nonzero().flatten()
            vectors[-1].append(side.flags.weight[:, on].sum(1))
        if side.texts is not None:
            vectors[-1].append(side.texts.weight @ table.texts[row])
        dense.append(table.dense[row])
    users, items = vectors
    dots = [a @ b for a, b in itertools.combinations(users, 2)]
    dots += [a @ b for a, b in itertools.combinations(items, 2)]
    dots += [a @ b for b in items for a in users]
    if not net.has_dense:
        return net.top(torch.stack(dots))[0]
    z = net.bottom(net.dense(torch.cat(dense)).relu())
    dots += [z @ a for a in [*users, *items]]
    read = [*dots[: -len(users) - len(items)], *z, *dots[-len(users) - len(items) :]]
    return net.top(torch.stack(read))[0]


@pytest.mark.parametrize("strategy", ["rand", "init_frz", "concat"])
@pytest.mark.parametrize("attributes", [False, True])
def test_scores_are_as_published(strategy, attributes):
    data = random_data(side=side_of())
    net = network("dlrm", data, strategy, attributes=attributes)
    users, items = torch.tensor([3, 8]), torch.tensor([[1, 4, 4], [0, 2, 9]])
    logits = net(users, items)
    for row in range(2):
        for column in range(3):
            expected = by_hand(net, int(users[row]), int(items[row, column]))
            torch.testing.assert_close(logits[row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", [["user_features", "user_age"], ["item_features"], ["item_tokens"]])
def test_what_a_dataset_does_not_know_is_left_out(missing):
    side = {name: array for name, array in side_of().items() if name not in missing}
    data = random_data(side=side)
    net = network("dlrm", data, attributes=True)
    logits = net(torch.tensor([3]), torch.tensor([[1, 4]]))
    torch.testing.assert_close(logits[0, 1], by_hand(net, 3, 4), rtol=1e-4, atol=1e-5)


def test_every_kind_of_attribute_tells_users_or_items_apart():
    data = random_data(side=side_of())
    net = network("dlrm", data, attributes=True)
    before = net(torch.arange(40), torch.arange(30).expand(40, -1))
    for table in (net.user_vectors.table, net.item_vectors.table):
        for name in ("dense", "categories", "flags", "texts"):
            kept = getattr(table, name).clone()
            if not kept.numel():
                continue
            getattr(table, name).copy_(kept.roll(1, 0))
            assert not torch.allclose(net(torch.arange(40), torch.arange(30).expand(40, -1)), before), name
            getattr(table, name).copy_(kept)
