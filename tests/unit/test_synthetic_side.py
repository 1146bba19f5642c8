"""What lies beside the interactions tells what it should: text, images, features, impressions, answers."""

import numpy as np
import pytest
from synthetic_helpers import auc, default_world, nearest_centroid_accuracy, prepared, source_of, targets

from effrec_cli.data.synthetic import content
from effrec_cli.data.synthetic.features import ITEM_CATEGORIES, ITEM_FEATURES, USER_CATEGORIES, USER_FEATURES
from effrec_cli.data.synthetic.text import GRADES, LEVELS, SPECIAL, vocabulary
from effrec_cli.data.synthetic.world import users_of

SMALL = {"num_users": 300, "num_items": 200, "num_clusters": 10}


@pytest.fixture(scope="module")
def side():
    source, data = default_world()
    return source.side(data)


@pytest.fixture(scope="module")
def clusters():
    source, data = default_world()
    return source.world.clusters(source.world.items_of(data.items.ids))


def column(side, name):
    kind, names = (
        ("item_features", ITEM_FEATURES) if name in ITEM_FEATURES else ("user_features", USER_FEATURES)
    )
    return side[kind][:, names.index(name)]


def test_arrays_have_the_documented_names_types_and_shapes(side):
    _, data = default_world()
    items, users = data.num_items, data.num_users
    slates, answers = len(side["impressions_user"]), len(data.sequences.items)
    assert {
        name: (str(array.dtype), array.shape) for name, array in side.items() if name != "item_vocabulary"
    } == {
        "item_tokens": ("int32", (side["item_token_offsets"][-1],)),
        "item_token_offsets": ("int64", (items + 1,)),
        "item_images": ("uint8", (items, 16, 16, 3)),
        "item_features": ("float32", (items, len(ITEM_FEATURES))),
        "item_categories": ("int32", (items, len(ITEM_CATEGORIES))),
        "user_features": ("float32", (users, len(USER_FEATURES))),
        "user_categories": ("int32", (users, len(USER_CATEGORIES))),
        "impressions_user": ("int32", (slates,)),
        "impressions_time": ("int64", (slates,)),
        "impressions_candidates": ("int32", (slates, 8)),
        "impressions_clicks": ("uint8", (slates, 8)),
        "impressions_chance": ("float32", (slates, 8)),
        "answers_user": ("int32", (answers,)),
        "answers_item": ("int32", (answers,)),
        "answers_time": ("int64", (answers,)),
        "answers_correct": ("uint8", (answers,)),
        "answers_chance": ("float32", (answers,)),
    }


@pytest.mark.parametrize(
    ("names", "prefixes"), [([], set()), (["images"], {"item_images"}), (["answers"], {"answers"})]
)
def test_only_what_the_setting_names_is_made(names, prefixes):
    source = source_of(**SMALL, side=names)
    made = source.side(prepared(source))
    assert {name if name == "item_images" else name.split("_")[0] for name in made} == prefixes


def test_rows_follow_the_prepared_data_when_items_and_users_are_filtered_out():
    source = source_of(**SMALL)
    whole, part = prepared(source), prepared(source, keep_items=lambda raw: raw % 4 != 0)
    assert part.num_items < 0.9 * whole.num_items
    wide, narrow = source.side(whole), source.side(part)
    where = np.searchsorted(whole.items.ids, part.items.ids)
    for name in ("item_features", "item_categories", "item_images"):
        assert np.array_equal(narrow[name], wide[name][where])
    who = np.searchsorted(whole.users.ids, part.users.ids)
    assert np.array_equal(narrow["user_features"], wide["user_features"][who])
    assert narrow["impressions_candidates"].max() < part.num_items
    assert narrow["answers_item"].max() < part.num_items
    assert np.array_equal(source.titles(part.items.ids), source.titles(whole.items.ids)[where])


def bags_of_words(side):
    offsets, size = side["item_token_offsets"], len(side["item_vocabulary"])
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    bags = np.zeros((len(offsets) - 1, size))
    np.add.at(bags, (rows, side["item_tokens"]), 1)
    return bags


def test_text_tells_the_cluster(side, clusters):
    assert nearest_centroid_accuracy(bags_of_words(side), clusters) > 0.9


def test_images_tell_the_cluster(side, clusters):
    pixels = side["item_images"].reshape(len(clusters), -1).astype(np.float64)
    assert nearest_centroid_accuracy(pixels, clusters) > 0.9
    assert side["item_images"].std(axis=0).mean() > 20


def test_item_features_tell_the_cluster_less_surely_than_text(side, clusters):
    assert 0.5 < nearest_centroid_accuracy(side["item_features"], clusters) < 1.0


def test_titles_are_spelt_with_the_words_of_their_tokens(side):
    source, data = default_world()
    words, offsets = side["item_vocabulary"], side["item_token_offsets"]
    for row, title in enumerate(source.titles(data.items.ids[:50])):
        assert title.split() == list(words[side["item_tokens"][offsets[row] : offsets[row + 1]]])
    assert source_of(side=["images"]).titles(data.items.ids) is None


@pytest.mark.parametrize("num_clusters", [1, 20, 5000])
def test_vocabulary_has_no_word_twice_and_starts_with_the_special_ones(num_clusters):
    words = vocabulary(num_clusters)
    assert len(set(words)) == len(words) < 25_000
    assert tuple(words[:5]) == SPECIAL


def test_words_of_grade_and_level_tell_quality_and_difficulty(side):
    source, data = default_world()
    items = source.world.items_of(data.items.ids)
    bags, words = bags_of_words(side), list(side["item_vocabulary"])
    for names, truth in ((GRADES, source.world.quality), (LEVELS, source.world.difficulty)):
        means = [truth[items][bags[:, words.index(name)] > 0].mean() for name in names]
        assert means == sorted(means)
        assert means[-1] - means[0] > 1.5


def test_features_tell_of_clicks_what_interactions_do_not(side):
    _, data = default_world()
    quality, flavour, taste = (column(side, name) for name in ("quality", "flavour", "taste"))
    assert abs(np.corrcoef(quality, np.log1p(data.train_counts()))[0, 1]) < 0.1
    candidates, clicks = side["impressions_candidates"], side["impressions_clicks"]
    match = taste[side["impressions_user"], None] * flavour[candidates]
    assert auc(clicks.ravel(), quality[candidates].ravel()) > 0.58
    assert clicks[match > 0].mean() > 1.3 * clicks[match < 0].mean()


def test_appeal_tells_popularity_before_anyone_has_picked_the_item(side):
    _, data = default_world()
    assert np.corrcoef(column(side, "appeal"), np.log1p(data.train_counts()))[0, 1] > 0.4


def test_the_declared_cluster_tells_of_interests_not_shown_in_training(side, clusters):
    """Of the clusters that a user's training part has nothing of, the declared one is the likeliest next."""
    source, data = default_world()
    declared = side["user_categories"][:, USER_CATEGORIES.index("declared")]
    next_cluster = clusters[targets(data)]
    hits, others = [], []
    for user in range(data.num_users):
        unseen = np.ones(source.world.num_clusters, dtype=bool)
        unseen[clusters[data.train_items(user)]] = False
        if unseen[declared[user]]:
            hits.append(next_cluster[user] == declared[user])
            unseen[declared[user]] = False
            others.append(unseen[next_cluster[user]] / unseen.sum())
    assert len(hits) > 500
    assert np.mean(hits) > 1.5 * np.mean(others)


def test_slates_hold_different_items_in_random_order_and_a_click(side):
    candidates, clicks = side["impressions_candidates"], side["impressions_clicks"]
    assert np.all(np.diff(np.sort(candidates, axis=1), axis=1) > 0)
    assert clicks.any(axis=1).all()
    assert np.ptp(clicks.mean(axis=0)) < 0.05
    assert np.bincount(side["impressions_user"]).max() <= 4


def test_slates_are_shown_just_before_a_session_starts(side):
    _, data = default_world()
    for user, time in zip(side["impressions_user"][:500], side["impressions_time"][:500], strict=True):
        times = data.sequences.times[data.sequences.offsets[user] : data.sequences.offsets[user + 1]]
        after = np.searchsorted(times, time, side="right")
        assert 0 < after < len(times)
        assert times[after] == time + 1
        assert time - times[after - 1] >= 3000


def test_clicks_can_be_told_from_what_is_known_but_not_fully(side):
    clicks, chance = side["impressions_clicks"].ravel(), side["impressions_chance"].ravel()
    assert 0.75 < auc(clicks, chance) < 0.9
    assert 0.15 < clicks.mean() < 0.35


def test_answers_are_the_interactions_and_right_as_often_as_their_chance_says(side):
    _, data = default_world()
    assert np.array_equal(side["answers_item"], data.sequences.items)
    assert np.array_equal(side["answers_time"], data.sequences.times)
    assert np.array_equal(np.bincount(side["answers_user"]), np.diff(data.sequences.offsets))
    tenths = np.floor(10 * side["answers_chance"]).astype(int)
    for tenth in range(10):
        there = tenths == tenth
        assert side["answers_correct"][there].mean() == pytest.approx(
            side["answers_chance"][there].mean(), abs=0.03
        )


def test_practice_in_a_cluster_makes_answers_better(side, clusters):
    before = np.zeros(len(side["answers_item"]), dtype=int)
    seen = {}
    for row, key in enumerate(zip(side["answers_user"], clusters[side["answers_item"]], strict=True)):
        before[row] = seen.get(key, 0)
        seen[key] = before[row] + 1
    right = side["answers_correct"]
    assert right[before == 0].mean() < right[before == 3].mean() < right[before >= 8].mean()
    skill = column(side, "skill")[side["answers_user"]]
    assert right[skill > 1].mean() > right[skill < -1].mean() + 0.15


def test_large_images_lie_in_a_file_and_are_the_same(monkeypatch):
    source = source_of(**SMALL, side=["images"], image_size=12)
    data = prepared(source)
    small = source.side(data)["item_images"]
    monkeypatch.setattr(content, "_IN_MEMORY_BYTES", 0)
    large = source.side(data)["item_images"]
    assert isinstance(large, np.memmap)
    assert not isinstance(small, np.memmap)
    assert np.array_equal(small, large)


def test_the_smallest_world_has_all_sides():
    source = source_of(num_users=10, num_items=10, num_clusters=1, interactions_per_user=4.0)
    data = prepared(source)
    made = source.side(data)
    assert made["impressions_candidates"].shape[1] == data.num_items // 2
    assert len(made["item_images"]) == len(source.titles(data.items.ids)) == data.num_items
    assert source.ceiling(data)["cases"] == data.num_users


def test_users_features_belong_to_their_block():
    source = source_of(num_users=9000, num_items=200, interactions_per_user=4.0, side=["features"])
    data = prepared(source)
    made = source.side(data)["user_features"]
    later = users_of(data.users.ids) >= 8192
    reverse = content.gather(
        np.arange(10)[::-1], 4, lambda block: np.arange(4 * block, 4 * block + 4), (), np.int64
    )
    assert reverse.tolist() == list(range(10))[::-1]
    assert later.sum() > 700
    assert not np.array_equal(made[:10], made[later][:10])
