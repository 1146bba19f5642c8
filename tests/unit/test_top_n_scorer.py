"""Networks rank the catalogue alike in any blocks, with users whom training never saw (sheet 5: 13, 16)."""

import math

import pytest
import torch
from pair_helpers import MODELS, factors_of, network, random_data, side_of

from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.top_n import scorer as scorers
from effrec_cli.methods.top_n.scorer import scorer_of

CPU = torch.device("cpu")


def histories(*lists):
    offsets = torch.tensor([0, *(len(one) for one in lists)]).cumsum(0)
    return Histories(torch.tensor([item for one in lists for item in one], dtype=torch.int64), offsets)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pairs", [1, 17, 90, 1 << 14])
def test_16_scores_are_the_networks_logits_whatever_the_block(kind, pairs, monkeypatch):
    """Sheet test 16: the result is independent of the batch size."""
    monkeypatch.setattr(scorers, "PAIRS", pairs)
    monkeypatch.setattr(scorers, "_ITEMS", 7)
    data = random_data(side=side_of())
    net = network(kind, data, "concat", attributes=True)
    users = torch.tensor([5, 0, 39, 5])
    found = scorer_of(net, 30, CPU, None).score(users, histories([], [1], [2, 3], []))
    logits = net(users, torch.arange(30).expand(4, -1)).detach()
    shift = net.bias.detach() if kind == "two_tower" else 0.0
    torch.testing.assert_close(found + shift, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_13_unknown_users_are_folded_in_from_their_histories(kind):
    """Sheet test 13: who is in no training row is scored, too, as a known user of the same vector."""
    data = random_data()
    factors = factors_of(data)
    net = network(kind, data, factors=factors)
    asked = []

    def fold_in(offsets, items):
        asked.append((offsets.tolist(), items.tolist()))
        return factors[0][[1, 7, 1]]

    scorer = scorer_of(net, 30, CPU, fold_in)
    found = scorer.score(torch.tensor([4, -1, 6]), histories([1], [2, 3], []))
    expected = scorer.score(torch.tensor([4, 7, 6]), histories([1], [2, 3], []))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert asked == [([0, 1, 3, 3], [1, 2, 3])], "and only where one is not known"


@pytest.mark.parametrize("kind", MODELS)
def test_without_factors_unknown_users_are_scored_by_a_vector_of_zeros(kind):
    data = random_data(side=side_of())
    net = network(kind, data, "rand", attributes=True)
    found = scorer_of(net, 30, CPU, None).score(torch.tensor([-1, 3]), histories([2], [3]))
    assert found.isfinite().all()
    assert not math.isclose(float(found[0].std()), 0, abs_tol=1e-9)
    torch.testing.assert_close(found[1], scorer_of(net, 30, CPU, None).score(torch.tensor([3]), None)[0])


@pytest.mark.parametrize("kind", MODELS)
def test_of_an_unknown_user_nothing_is_known(kind):
    data = random_data(side=side_of())
    net = network(kind, data, attributes=True)
    before = scorer_of(net, 30, CPU, None).score(torch.tensor([-1]), histories([2]))
    for table in (each for each in net.modules() if hasattr(each, "cardinalities")):
        if len(table.dense) == 41:  # the users' and nothing
            table.dense[:-1] += 1
            table.categories[:-1] = 0
    after = scorer_of(net, 30, CPU, None).score(torch.tensor([-1]), histories([2]))
    assert torch.equal(before, after)
