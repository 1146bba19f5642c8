"""The best possible ranker of the simulator: right by brute force, and out of reach for any other."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_helpers import default_world, ndcg, prepared, ranks, source_of, targets

from effrec_cli.data.synthetic import ceiling as module
from effrec_cli.data.synthetic.ceiling import KS, ceiling, gains, law, moment_of, rank
from effrec_cli.data.synthetic.histories import make_block
from effrec_cli.data.synthetic.world import users_of


def moments_of(source, data):
    """Returns the moment and the target, by the world's number, of every test case of a one-block world."""
    block = make_block(source.world, 0)
    users = users_of(data.users.ids[data.test.users])
    items = source.world.items_of(data.items.ids[targets(data)])
    return [(moment_of(block, user, item), item) for user, item in zip(users, items, strict=True)]


def allowed_law(world, moment, catalogue):
    """Returns the law of the next item over all V items, by the definition and without any short cut."""
    chance = law(world, moment, np.arange(world.num_items))
    chance[moment.had] = 0
    chance[world.releases > moment.time] = 0
    return np.where(catalogue, chance, 0)


def catalogue_of(source, data):
    catalogue = np.zeros(source.world.num_items, dtype=bool)
    catalogue[source.world.items_of(data.items.ids)] = True
    return catalogue


TINY = {
    "num_users": 120,
    "num_items": 400,
    "num_clusters": 8,
    "interactions_per_user": 15.0,
    "fresh_share": 0.3,
}


@pytest.mark.parametrize(
    "keep_items", [None, lambda raw: raw % 4 != 0], ids=["all items", "some filtered out"]
)
def test_ceiling_equals_brute_force_on_a_tiny_world(keep_items):
    source = source_of(**TINY)
    data = prepared(source, keep_items=keep_items)
    catalogue = catalogue_of(source, data)
    found = []
    for moment, target in moments_of(source, data):
        chance = allowed_law(source.world, moment, catalogue)
        found.append(int(np.count_nonzero(chance > chance[target])))
    scores = ceiling(source.world, data)
    found = np.array(found)
    assert scores["ndcg@10"] == pytest.approx(ndcg(found))
    for k in KS:
        for name, expected in gains(found, k).items():
            assert scores[f"{name}@{k}"] == pytest.approx(expected.mean())
    assert scores["cases"] == len(data.test)


def test_ranks_are_exact_up_to_the_largest_cut_off_however_deep_the_search_must_go():
    source = source_of(num_users=60, num_items=20_000, num_clusters=3, follow=0.1, explore=0.5)
    data = prepared(source)
    catalogue = np.ones(20_000, dtype=bool)
    deep = 0
    for moment, target in moments_of(source, data):
        chance = allowed_law(source.world, moment, catalogue)
        exact = int(np.count_nonzero(chance > chance[target]))
        assert min(rank(source.world, moment, target, catalogue), KS[-1]) == min(exact, KS[-1])
        deep += exact > 256
    assert deep > 5, "no case of this world needs a deep search"


def test_targets_are_drawn_from_the_law_that_the_ceiling_ranks_by():
    """The hit rate that the law promises is the hit rate that the held-out items have."""
    source, data = default_world()
    catalogue = np.ones(source.world.num_items, dtype=bool)
    promised, variance = [], []
    for moment, _ in moments_of(source, data):
        chance = np.sort(allowed_law(source.world, moment, catalogue))[::-1]
        share = chance[:10].sum() / chance.sum()
        promised.append(share)
        variance.append(share * (1 - share))
    observed = ceiling(source.world, data)["hr@10"]
    stderr = np.sqrt(np.sum(variance)) / len(variance)
    assert abs(observed - np.mean(promised)) < 3.5 * stderr


def test_rankers_that_know_less_score_less():
    source, data = default_world()
    world, rng = source.world, np.random.default_rng(0)
    moments = moments_of(source, data)
    everything, rows = np.ones(world.num_items, dtype=bool), world.items_of(data.items.ids)

    def score_with(change):
        def score(case):
            moment = change(moments[case][0])
            return allowed_law(world, moment, everything)[rows]

        return ndcg(ranks(data, score))

    best = ceiling(world, data)["ndcg@10"]
    assert score_with(lambda moment: moment) == pytest.approx(best)
    forgets_the_item_before = score_with(lambda moment: replace(moment, before=-1))
    wrong_interests = score_with(
        lambda moment: replace(moment, interests=rng.integers(0, 20, 3).astype(np.int32))
    )
    noisy = ndcg(
        ranks(
            data, lambda case: allowed_law(world, moments[case][0], everything)[rows] * rng.random(len(rows))
        )
    )
    assert forgets_the_item_before < 0.5 * best
    assert wrong_interests < 0.97 * best
    assert noisy < 0.95 * best


def test_popularity_is_far_below_the_ceiling_and_a_first_order_count_is_not():
    source, data = default_world()
    best = ceiling(source.world, data)["ndcg@10"]
    counts = data.train_counts()
    popularity = ndcg(ranks(data, lambda case: counts))
    pairs = np.zeros((data.num_items, data.num_items))
    for user in range(data.num_users):
        items = data.train_items(user)
        np.add.at(pairs, (items[:-1], items[1:]), 1)
    before = data.sequences.items[data.test.history_end - 1]
    first_order = ndcg(ranks(data, lambda case: pairs[before[case]] + 1e-4 * counts))
    assert 0.4 < best < 0.6
    assert popularity < 0.15 * best
    assert 0.6 * best < first_order < best


def test_a_sample_of_cases_is_whole_blocks_and_says_how_many(monkeypatch):
    source = source_of(num_users=10_000, num_items=200, interactions_per_user=5.0)
    data = prepared(source)
    monkeypatch.setattr(module, "ENOUGH_CASES", 100)
    scores = ceiling(source.world, data)
    assert scores["cases"] == np.count_nonzero(users_of(data.users.ids) < 8192)
    assert 0 < scores["ndcg@10_stderr"] < 0.01


def test_no_ceiling_is_claimed_where_it_is_not_known():
    source, data = default_world()
    nothing = replace(data.test, **{name: values[:0] for name, values in vars(data.test).items()})
    assert ceiling(source.world, replace(data, test=nothing)) is None
    several = replace(data.test, target_start=data.test.target_start - 1)
    assert ceiling(source.world, replace(data, test=several)) is None
