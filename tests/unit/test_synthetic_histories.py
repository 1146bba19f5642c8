"""The histories of the simulator: reproducible, bounded in memory, with the structure that is promised."""

import tracemalloc

import numpy as np
import pytest
from synthetic_helpers import all_blocks, all_rows, default_world, source_of

from effrec_cli.data.synthetic.histories import make_block

SMALL = {"num_users": 400, "num_items": 300, "num_clusters": 10}


def same(left, right):
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def test_the_same_settings_give_the_same_rows_and_another_seed_gives_others():
    first = all_rows(source_of(**SMALL))
    assert same(first, all_rows(source_of(**SMALL)))
    assert not np.array_equal(first[1][:1000], all_rows(source_of(**SMALL, seed=8))[1][:1000])


def test_blocks_do_not_depend_on_order_or_on_each_other():
    source = source_of(num_users=17_000, num_items=300, interactions_per_user=4.0)
    streamed = [(chunk.users, chunk.items, chunk.times, chunk.ratings) for chunk in source.chunks()]
    alone = source_of(num_users=17_000, num_items=300, interactions_per_user=4.0)
    backwards = [make_block(alone.world, number) for number in (2, 1, 0)]
    assert len(streamed) == 3
    for (_, items, times, _), block in zip(streamed, reversed(backwards), strict=True):
        assert np.array_equal(items, source.world.raw_items(block.items))
        assert np.array_equal(times, block.times)
    assert len(np.unique(np.concatenate([users for users, *_ in streamed]))) == 17_000


def peak_bytes(**settings):
    """Returns how many rows were made, and the most memory that was allocated while making them."""
    source = source_of(num_items=2000, **settings)
    tracemalloc.start()
    rows = sum(len(chunk) for chunk in source.chunks())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return rows, most


def test_a_million_rows_are_made_in_less_than_64_mib():
    rows, most = peak_bytes(num_users=26_000)
    assert rows > 1_000_000
    assert most < 64 * 2**20


def test_memory_does_not_grow_with_the_number_of_users():
    few, small = peak_bytes(num_users=2 * 8192, interactions_per_user=8.0)
    many, large = peak_bytes(num_users=6 * 8192, interactions_per_user=8.0)
    assert many > 2.9 * few
    assert large < 1.1 * small


def test_no_user_meets_an_item_twice_or_before_its_release():
    source, _ = default_world()
    for block in all_blocks(source):
        pairs = block.owners * source.world.num_items + block.items
        assert len(np.unique(pairs)) == len(pairs)
        assert np.all(source.world.releases[block.items] <= block.times)
    assert np.count_nonzero(source.world.releases) == pytest.approx(100, abs=30)


def test_times_never_fall_and_many_neighbours_share_a_second():
    source, data = default_world()
    inside = np.ones(len(data.sequences.items), dtype=bool)
    inside[data.sequences.offsets[:-1]] = False
    steps = np.diff(data.sequences.times)[inside[1:]]
    assert steps.min() == 0
    assert np.mean(steps == 0) == pytest.approx(0.8 * source.config.tie_share, abs=0.02)
    assert np.mean(steps >= 3600) == pytest.approx(1 / source.config.session_length, abs=0.02)


def test_lengths_have_the_mean_asked_for_and_a_long_tail():
    _, data = default_world()
    lengths = np.diff(data.sequences.offsets)
    assert lengths.mean() == pytest.approx(40, rel=0.05)
    assert lengths.min() >= 3
    assert np.quantile(lengths, 0.95) > 2.2 * lengths.mean()


def test_popularity_is_long_tailed_over_the_whole_catalogue():
    _, data = default_world()
    counts = np.sort(np.bincount(data.sequences.items))[::-1]
    middle = slice(20, 500)
    slope = np.polyfit(np.log(np.arange(1, len(counts) + 1)[middle]), np.log(counts[middle]), 1)[0]
    assert -1.1 < slope < -0.5
    assert counts[:100].sum() > 0.25 * counts.sum()


def follow_rate(source):
    """Returns how often an item follows one whose successor it is, and the same for shuffled items."""
    (block,) = all_blocks(source)
    neighbours = np.diff(block.owners) == 0
    before, after = block.items[:-1][neighbours], block.items[1:][neighbours]
    chance = np.random.default_rng(0).permutation(after)
    successors = source.world.successors[before]
    return (successors == after[:, None]).any(1).mean(), (successors == chance[:, None]).any(1).mean()


def test_the_next_item_depends_on_the_last_one():
    observed, by_chance = follow_rate(source_of(follow=0.45))
    assert observed > 0.4
    assert observed > 15 * by_chance
    assert follow_rate(source_of(follow=0.0))[0] < 0.1


def overlap(source):
    """Returns the mean overlap of the cluster shares in a user's first and last third."""
    (block,) = all_blocks(source)
    clusters = source.world.clusters(block.items)
    found = []
    for first, stop in zip(block.offsets[:-1], block.offsets[1:], strict=True):
        third = (stop - first) // 3
        if third >= 10:
            early = np.bincount(clusters[first : first + third], minlength=source.world.num_clusters) / third
            late = np.bincount(clusters[stop - third : stop], minlength=source.world.num_clusters) / third
            found.append(np.minimum(early, late).sum())
    return np.mean(found)


def test_interests_drift_and_stay_where_drift_is_off():
    still, drifting = source_of(drift=0.0, follow=0.0), source_of(drift=0.5, follow=0.0)
    assert overlap(still) > overlap(drifting) + 0.2
    (block,) = all_blocks(still)
    moved = (np.diff(block.interests, axis=0) != 0).any(axis=1) & (np.diff(block.owners) == 0)
    assert not moved.any()


def test_interests_move_towards_the_declared_cluster():
    source, _ = default_world()
    (block,) = all_blocks(source)
    declared = (block.interests == block.traits.declared[block.owners, None]).any(axis=1)
    first, last = declared[block.offsets[:-1]].mean(), declared[block.offsets[1:] - 1].mean()
    assert last > first + 0.2


def test_ratings_are_half_stars_that_tell_quality_and_leniency():
    source, data = default_world()
    ratings = data.sequences.ratings
    assert set(np.unique(2 * ratings)) <= set(range(1, 11))
    quality = source.world.quality[source.world.items_of(data.items.ids[data.sequences.items])]
    assert np.corrcoef(ratings, quality)[0, 1] > 0.4


def test_the_smallest_world_and_an_exhausted_one_work():
    users, items, _, _ = all_rows(source_of(num_users=10, num_items=10, num_clusters=5))
    assert len(np.unique(users)) <= 10
    assert len(np.unique(np.stack([users, items]), axis=1).T) == len(users)
    source = source_of(num_users=50, num_items=40, num_clusters=2, interactions_per_user=100.0, explore=0.01)
    rows = len(all_rows(source)[0])
    assert rows + source.stats()["visits_without_item"] == pytest.approx(50 * 20, rel=0.1)
