"""Two and four processes train as one on the union of their shares, in float64 (papers/gram, test 13)."""

import itertools

import numpy as np
import pytest
import torch
from content_helpers import ITEMS, Setup, distance, flat
from content_ranks import CASES, DRAWN, KINDS, MOVED, OF_SIZE, PLAIN_SGD, TOGETHER, one_rank, run_case

from effrec_cli.methods.content.chunks import Limits, plan
from effrec_cli.methods.gram import GRAM

EACH_SIZE = pytest.mark.parametrize("size", OF_SIZE)
EACH_CASE = pytest.mark.parametrize(
    ("size", "name"), [(size, name) for size, names in OF_SIZE.items() for name in names]
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Returns what every rank found, by the number of ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(one_rank, (str(folder),), nprocs=max(OF_SIZE))
    load = lambda size, rank: torch.load(folder / f"{size}.{rank}.pt", weights_only=False)  # noqa: E731
    return {size: [load(size, rank) for rank in range(size)] for size in OF_SIZE}


@pytest.fixture(scope="module")
def alone():
    """Returns what one process finds, each case run when first asked for."""
    found = {}

    def of(name):
        if name not in found:
            found[name] = run_case(**CASES[name])
        return found[name]

    return of


def apart(found, true):
    """Returns the largest distance of two runs' gradients, update by update, relative to the largest one."""
    assert [set(one) for one in found] == [set(one) for one in true]
    largest = max((float(flat(one).norm()) for one in true if one), default=0.0) or 1.0
    return max(
        (float((flat(a) - flat(b)).norm()) / largest for a, b in zip(found, true, strict=True) if a),
        default=0.0,
    )


@EACH_CASE
def test_ranks_train_as_one_process_on_the_union(name, size, ranks, alone):
    true = alone(name)
    every = [rank[name] for rank in ranks[size]]
    losses = np.sum([one["losses"] for one in every], axis=0)
    assert losses == pytest.approx(true["losses"], rel=1e-12, abs=1e-15)
    for one in every:
        assert apart(one["gradients"], true["gradients"]) < 1e-12
        assert distance(one["weights"], true["weights"]) < 1e-12
        assert (one["updates"], one["period"]) == (true["updates"], true["period"])


@EACH_CASE
def test_weights_stay_the_same_on_all_ranks(name, size, ranks):
    first, *others = [rank[name]["weights"] for rank in ranks[size]]
    for other in others:
        assert all(torch.equal(weight, other[key]) for key, weight in first.items())


@EACH_SIZE
@pytest.mark.parametrize("name", TOGETHER)
def test_each_item_is_encoded_by_one_rank(name, size, ranks, alone):
    """As often in all as by one process, where no first look at what the encoder draws adds to it."""
    counts = np.zeros((2, size, ITEMS), dtype=int)
    for number, rank in enumerate(ranks[size]):
        for items, graph in rank[name]["calls"]:
            np.add.at(counts[int(graph), number], items, 1)
    expected = np.zeros((2, ITEMS), dtype=int)
    for items, graph in alone(name)["calls"]:
        np.add.at(expected[int(graph)], items, 1)
    assert (counts[1].sum(0) == expected[1]).all(), "with a graph"
    if name != "recomputed":
        assert counts[1].any(axis=1).all(), "every rank has work"
    if KINDS[name]["mode"] == "single_step":
        assert (counts[0].sum(0) == expected[0]).all(), "without one"


@pytest.mark.parametrize("count", [0, 1, 5, 64, 501])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_ranks_get_about_the_same_number_of_tokens(size, count):
    costs = np.random.default_rng(3).geometric(0.05, 501)
    rows = np.random.default_rng(4).choice(501, count, replace=False)
    chunks = plan(rows, costs, Limits(256), seed=0, ranks=size)
    tokens = [sum(int(costs[c.rows].sum()) for c in chunks if c.rank == rank) for rank in range(size)]
    assert sum(tokens) == costs[rows].sum()
    assert max(tokens) - min(tokens) <= max(costs[rows], default=0)


def test_a_rank_without_samples_takes_part_in_every_mode():
    """It encodes for others, counts updates for the encoder's rate, and gathers the frozen table."""
    assert GRAM.joins_empty is True


@EACH_SIZE
def test_a_rank_may_own_nothing(size, ranks):
    owners = [bool(rank["recomputed, one item"]["calls"]) for rank in ranks[size]]
    assert sum(owners) == 1
    assert not any(rank["recomputed, no item"]["calls"] for rank in ranks[size])


@EACH_SIZE
def test_dropout_is_replayed_on_every_rank(size, ranks):
    """The mask of a recomputed chunk is that of its first encoding, on whichever rank."""
    for rank in ranks[size]:
        fused, recomputed = rank["drawn"]["fused"], rank["drawn"]["recomputed"]
        assert apart(recomputed["gradients"], fused["gradients"]) < 1e-12
    for name in DRAWN:
        first, *others = [rank["drawn"][name]["weights"] for rank in ranks[size]]
        assert all(torch.equal(first[key], other[key]) for other in others for key in first)


@EACH_SIZE
def test_one_process_goes_on_in_mid_cycle_where_ranks_have_stopped(size, ranks):
    """Also where it has to encode the chunks of all of them."""
    whole = Setup("multi_step", **PLAIN_SGD, **MOVED)
    whole.steps(3)
    kept = ranks[size][-1]["in mid-cycle"]
    setup = Setup("multi_step", **PLAIN_SGD, **MOVED)
    for name, parameter in setup.named():
        parameter.data.copy_(kept["weights"][name])
    setup.mode.load_tensors(kept["tensors"])
    setup.mode.load(kept["state"])
    setup.step(2)
    assert apart(setup.gradients[-1:], whole.gradients[-1:]) < 1e-12
    assert distance(setup.weights(), whole.weights()) < 1e-12


@EACH_SIZE
def test_ranks_and_micro_batches_draw_for_themselves(size, ranks):
    seeds = list(itertools.chain.from_iterable(rank["seeds"] for rank in ranks[size]))
    assert len(seeds) > size
    assert len(set(seeds)) == len(seeds)


@EACH_SIZE
def test_the_tests_above_would_notice_gradients_averaged_twice(size, ranks, alone):
    """As they are in the authors' code: an item that m of W ranks need is weighed m / W."""
    true = {name: g for name, g in alone("fused")["gradients"][0].items() if name.startswith("encoder")}
    for rank in ranks[size]:
        found = rank["averaged twice"]["gradients"][0]
        own = {name: g for name, g in found.items() if name.startswith("encoder")}
        assert distance(own, true) > 0.05
        filters = {name: g for name, g in found.items() if name.startswith("filter")}
        assert distance(filters, {n: alone("fused")["gradients"][0][n] for n in filters}) < 1e-12
