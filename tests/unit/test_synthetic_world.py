"""The items of the simulator: ids, clusters, popularity, successors, and the law of one draw."""

import numpy as np
import pytest
from synthetic_helpers import source_of

from effrec_cli.data.synthetic.ceiling import Moment, law
from effrec_cli.data.synthetic.draws import Purpose, choose, exponential, generator, normal, permutation
from effrec_cli.data.synthetic.histories import Visitors, draw
from effrec_cli.data.synthetic.world import FOLLOW_WEIGHTS, INTEREST_WEIGHTS, raw_users, users_of
from effrec_cli.errors import ConfigError


def world_of(**settings):
    return source_of(**settings).world


@pytest.mark.parametrize(("items", "clusters"), [(1000, 20), (1003, 17), (10, 5), (99, 49)])
def test_clusters_are_of_one_size_and_agree_with_their_starts(items, clusters):
    world = world_of(num_items=items, num_clusters=clusters)
    found = world.clusters(np.arange(items))
    sizes = np.bincount(found, minlength=clusters)
    assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(np.diff(world.starts), sizes)
    assert np.all(np.diff(found) >= 0)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.4])
def test_popularity_inside_a_cluster_follows_zipf(exponent):
    world = world_of(num_items=400, num_clusters=2, popularity_exponent=exponent)
    drawn = world.draw(np.random.default_rng(0).random(400_000), np.zeros(400_000, dtype=np.int64))
    counts = np.bincount(drawn, minlength=400)[:50]
    slope = np.polyfit(np.log(np.arange(1, 51)), np.log(counts), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)


def test_a_draw_stays_in_its_cluster_and_reaches_both_ends():
    world = world_of(num_items=60, num_clusters=6)
    clusters = np.repeat(np.arange(6), 4)
    uniform = np.tile([0.0, 1e-17, 0.999, np.nextafter(1.0, 0)], 6)
    drawn = world.draw(uniform, clusters)
    assert np.array_equal(world.clusters(drawn), clusters)
    assert np.array_equal(drawn[::4], world.starts[:-1])
    assert np.array_equal(drawn[3::4], world.starts[1:] - 1)


def test_successors_stay_or_move_to_the_next_cluster_on_one_cycle():
    world = world_of()
    own = world.clusters(np.arange(world.num_items))
    for rank in range(len(FOLLOW_WEIGHTS)):
        expected = own if rank % 2 == 0 else world.next_cluster[own]
        assert np.array_equal(world.clusters(world.successors[:, rank]), expected)
    seen, cluster = set(), 0
    while cluster not in seen:
        seen.add(cluster)
        cluster = int(world.next_cluster[cluster])
    assert len(seen) == world.num_clusters


def test_raw_ids_go_there_and_back_with_gaps_and_tell_nothing():
    world = world_of()
    items = np.arange(world.num_items)
    raw = world.raw_items(items)
    assert np.array_equal(world.items_of(raw), items)
    assert len(np.unique(raw)) == len(raw)
    assert np.diff(np.sort(raw)).min() > 1
    assert abs(np.corrcoef(raw, world.weights(items))[0, 1]) < 0.1
    assert abs(np.corrcoef(raw, world.clusters(items))[0, 1]) < 0.1
    assert np.array_equal(users_of(raw_users(np.arange(50))), np.arange(50))


def test_streams_differ_by_seed_purpose_and_block_and_repeat_by_key():
    keys = [(1, Purpose.TEXT, 0), (2, Purpose.TEXT, 0), (1, Purpose.IMAGES, 0), (1, Purpose.TEXT, 1)]
    drawn = [generator(*key).random(3).tolist() for key in keys]
    assert len({tuple(numbers) for numbers in drawn}) == len(keys)
    assert drawn[3] == generator(1, Purpose.TEXT, 1).random(3).tolist()


def test_laws_made_from_uniform_draws_are_the_named_ones():
    rng = generator(3, Purpose.TEXT)
    gauss, waiting = normal(rng, 200_000), exponential(rng, 200_000)
    assert (gauss.mean(), gauss.std()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert np.mean(np.abs(gauss) < 1.96) == pytest.approx(0.95, abs=0.003)
    assert (waiting.mean(), waiting.std()) == (pytest.approx(1, abs=0.01), pytest.approx(1, abs=0.02))
    shares = np.bincount(choose(INTEREST_WEIGHTS, rng.random(200_000))) / 200_000
    assert shares == pytest.approx(INTEREST_WEIGHTS, abs=0.01)
    assert np.array_equal(np.sort(permutation(rng, 1000)), np.arange(1000))


def test_draws_have_the_documented_law():
    """Frequencies of 400,000 draws at one moment against the formula, item by item."""
    world = world_of(num_items=60, num_clusters=6, fresh_share=0.2)
    size, time = 400_000, int(np.median(world.releases[world.releases > 0]))
    had = np.array([3, 17, 30], dtype=np.int32)
    moment = Moment(np.array([1, 4, 1], dtype=np.int32), int(had[-1]), time, had)
    visitors = Visitors(
        np.tile(moment.interests, (size, 1)),
        np.full(size, time, dtype=np.int64),
        np.full(size, moment.before, dtype=np.int32),
        np.tile(had, (size, 1)),
    )
    drawn = draw(world, np.random.default_rng(5), visitors)
    counts = np.bincount(drawn[drawn >= 0], minlength=60)
    expected = law(world, moment, np.arange(60))
    assert expected.sum() == pytest.approx(1.0)
    expected[had] = 0
    expected[world.releases > time] = 0
    spread = np.sqrt(np.maximum(expected * size, 1))
    assert np.abs(counts - expected * size).max() < 5 * spread.max()
    assert np.all(np.abs(counts - expected * size) <= 5 * spread)
    assert np.all(counts[expected == 0] == 0)


def test_contradicting_settings_are_refused_with_the_setting_that_mends_them():
    with pytest.raises(ConfigError, match="two items") as error:
        source_of(num_items=30, num_clusters=16)
    assert error.value.fix == "dataset.num_clusters=15 or fewer"
    with pytest.raises(ConfigError, match="sum is above 1"):
        source_of(follow=0.9, explore=0.2)
    with pytest.raises(ConfigError) as error:
        source_of(side=["text", "image"])
    assert error.value.nearest == "images"
