"""What each mode of a sample keeps, and that nothing else of the dataset changes (papers/cadc section 5)."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from data_helpers import as_cases, prepared
from sampling_helpers import MODES, QUICK, config, counts_by, log, raw_rows, whole

from effrec_cli.data.sampling import sample
from effrec_cli.data.sampling.forgetting import Proxy, forgotten_most, rarity
from effrec_cli.data.sampling.modes import _smallest_of_items, caps
from effrec_cli.data.sampling.propensity import keep_probabilities
from effrec_cli.data.sampling.rows import Rows
from effrec_cli.data.sampling.sample import keep
from effrec_cli.errors import ConfigError

RATES = (0.02, 0.1, 0.3, 0.7)


@pytest.mark.parametrize("mode", MODES)
def test_kept_rows_are_training_rows_and_what_is_judged_stays(mode):
    """Tests 5 and 9: no kept row is a validation or test row; cases and histories are those of the whole."""
    data, rows = sample(whole(), config(0.3, mode)), raw_rows(whole())
    kept = raw_rows(data)
    assert kept
    assert set(kept) < set(rows)
    for part, same in ((data.valid, whole().valid), (data.test, whole().test)):
        assert as_cases(data, part) == as_cases(whole(), same)
        held = {
            (
                str(data.users.ids[user]),
                str(data.items.ids[data.sequences.items[at]]),
                data.sequences.times[at],
            )
            for user, at in zip(part.users, part.target_start, strict=True)
        }
        assert not held & set(kept)
    assert data.protocol == whole().protocol
    assert (data.num_interactions, data.num_users, data.num_items) == (
        whole().num_interactions,
        whole().num_users,
        whole().num_items,
    )
    assert raw_rows(data.unsampled()) == rows


@pytest.mark.parametrize("mode", MODES)
def test_other_test_rows_change_no_sample(mode):
    """Test 5: perturbing what is held out leaves every decision as it is."""
    held = np.concatenate([whole().valid.target_start, whole().test.target_start])
    items, times = whole().sequences.items.copy(), whole().sequences.times.copy()
    items[held], times[held] = (items[held] + 1) % whole().num_items, times[held] + 1
    changed = replace(whole(), sequences=replace(whole().sequences, items=items, times=times))
    assert (
        keep(changed, config(0.3, mode)).positions.tolist()
        == keep(whole(), config(0.3, mode)).positions.tolist()
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_smaller_rate_keeps_part_of_what_a_larger_one_does(mode):
    """Test 7: nested across rates."""
    found = [set(keep(whole(), config(rate, mode)).positions.tolist()) for rate in RATES]
    assert all(small <= large for small, large in pairwise(found))
    assert len(found[0]) < len(found[-1])


@pytest.mark.parametrize("mode", ["exact", "head", "forgetting"])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 0.77, 1.0])
def test_exact_modes_keep_exactly_the_rounded_share(mode, rate):
    """Test 6: exactly round(rho n)."""
    assert sample(whole(), config(rate, mode)).num_train == round(rate * whole().num_train)


@pytest.mark.parametrize(("mode", "place"), [("per_user", 0), ("temporal", 0), ("per_item", 1)])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_stratified_modes_keep_one_of_each_and_the_share(mode, place, rate):
    """Test 9: at least one row, and within one of rho n."""
    before = counts_by(whole(), place)
    after = counts_by(sample(whole(), config(rate, mode)), place)
    assert after.keys() == before.keys()
    assert all(after[who] == max(1, round(rate * n)) for who, n in before.items())
    assert all(abs(after[who] - rate * n) <= 1 for who, n in before.items())


def test_forgetting_may_be_stratified_and_empties_no_user():
    stratified = replace(QUICK, per_user=True)
    before = counts_by(whole(), 0)
    after = counts_by(sample(whole(), config(0.01, "forgetting", forgetting=stratified)), 0)
    assert after == {who: max(1, round(0.01 * n)) for who, n in before.items()}


def test_per_item_finds_the_same_with_few_rows_at_hand():
    rows = Rows(whole(), 42, block_rows=150)
    assert _smallest_of_items(rows, 0.2, held=200).tolist() == _smallest_of_items(rows, 0.2).tolist()


def test_temporal_drops_the_oldest_of_each_user():
    kept = {}
    for user, _, time in raw_rows(sample(whole(), config(0.3, "temporal"))):
        kept.setdefault(user, []).append(time)
    every = {}
    for user, _, time in raw_rows(whole()):
        every.setdefault(user, []).append(time)
    assert all(sorted(times)[-len(kept[user]) :] == sorted(kept[user]) for user, times in every.items())


def test_user_keeps_whole_users_about_as_many_as_the_rate():
    before, after = counts_by(whole(), 0), counts_by(sample(whole(), config(0.3, "user")), 0)
    assert all(before[who] == n for who, n in after.items())
    assert abs(len(after) - 0.3 * len(before)) <= 4 * np.sqrt(len(before) * 0.3 * 0.7)


def test_head_cuts_the_heaviest_to_one_height_and_leaves_all_others_whole():
    before, after = counts_by(whole(), 0), counts_by(sample(whole(), config(0.6, "head")), 0)
    height = max(after.values())
    assert all(n in (before[who], height, height - 1) for who, n in after.items())
    assert all(after[who] == n for who, n in before.items() if n < height)
    hashes = np.arange(4, dtype=np.uint64)
    assert caps(np.array([10, 1, 6, 3]), 9, hashes).tolist() == [3, 1, 3, 2]
    assert caps(np.array([10, 1, 6, 3]), 10, hashes).tolist() == [3, 1, 3, 3]
    assert caps(np.array([10, 1, 6, 3]), 12, hashes).tolist() == [4, 1, 4, 3]
    assert caps(np.array([10, 1, 6, 3]), 2, hashes).tolist() == [1, 1, 0, 0]


def test_propensity_keeps_popular_rows_less_often_and_the_rate_of_all():
    counts = np.array([0, 1, 10, 1000, 1000])
    found = keep_probabilities(counts, config(0.1, "propensity", max_weight=50.0))
    assert (counts * found).sum() == pytest.approx(0.1 * counts.sum())
    assert found[2] / found[3] == pytest.approx(10.0)
    assert found.min() >= 1 / 50
    steep = keep_probabilities(counts, config(0.1, "propensity", power=3.0, max_weight=11.0))
    assert steep[3] == pytest.approx((0.1 * 2011 - 11) / 2000)
    assert steep[1] == steep[2] == 1
    assert keep_probabilities(counts, config(0.1, "propensity", power=0.0)).tolist() == pytest.approx(
        [0.1] * 5
    )


def test_no_row_weighs_more_than_the_largest_weight():
    counts = np.array([1] * 1000 + [500])
    found = keep_probabilities(counts, config(0.5, "propensity", power=3.0, max_weight=10.0))
    assert found[-1] == 0.1
    assert found[0] == pytest.approx((0.5 * 1500 - 0.1 * 500) / 1000)


def test_too_small_a_rate_for_the_largest_weight_is_refused():
    with pytest.raises(ConfigError, match="max_weight=100"):
        sample(whole(), config(0.001, "propensity"))


def test_the_importance_weighted_loss_is_unbiased():
    """Test 15: the mean over 1,000 samples is the loss over all rows within 3 standard errors."""
    data = prepared(log(users=30, items=12, seed=3))
    losses = np.random.default_rng(0).exponential(
        1 + np.arange(data.num_items)
    )  # popular items have small ones
    full = losses[data.sequences.items[np.concatenate([np.arange(*e) for e in ends_of(data)])]].mean()
    weighted, plain = [], []
    for seed in range(1000):
        kept = keep(data, config(0.1, "propensity", seed=seed))
        own = losses[data.sequences.items[kept.positions]]
        weighted.append((kept.weights * own).sum() / data.num_train)
        plain.append(own.mean())
    assert abs(np.mean(weighted) - full) <= 3 * np.std(weighted) / np.sqrt(1000)
    assert abs(np.mean(plain) - full) > 10 * np.std(plain) / np.sqrt(1000)


def ends_of(data):
    return zip(data.train_start, data.train_end, strict=True)


def test_weights_stand_beside_the_rows_they_belong_to():
    data = sample(whole(), config(0.3, "propensity"))
    probability = keep_probabilities(whole().train_counts(), config(0.3, "propensity"))
    rows = np.concatenate([np.arange(*ends) for ends in ends_of(data)])
    expected = (1 / probability[data.sequences.items[rows]]).astype(np.float32)
    assert data.train_weights.tolist() == expected.tolist()
    assert len(set(data.train_weights.tolist())) > 5
    assert sample(whole(), config(0.3)).train_weights is None


def test_the_proxy_is_plain_sgd_on_the_logistic_loss_of_pairs():
    import torch

    proxy = Proxy(3, 4, replace(QUICK, dim=2, lr=0.1), seed=1)
    tables = [each.clone().double().requires_grad_() for each in (proxy.users, proxy.items, proxy.biases)]
    users, items, negatives = np.array([0, 2, 0]), np.array([1, 3, 1]), np.array([[0, 2], [3, 1], [2, 2]])

    def score(user, item):
        return (tables[0][user] * tables[1][item]).sum() + tables[2][item]

    pairs = [(u, i, j) for u, i, row in zip(users, items, negatives, strict=True) for j in row]
    loss = sum(torch.log1p(torch.exp(score(u, j) - score(u, i))) for u, i, j in pairs)
    lost = [int(score(u, j) >= score(u, i)) for u, i, j in pairs]
    loss.backward()
    assert proxy.learn(users, items, negatives).tolist() == np.reshape(lost, (3, 2)).sum(1).tolist()
    for now, before in zip((proxy.users, proxy.items, proxy.biases), tables, strict=True):
        assert torch.allclose(now.double(), (before - 0.1 * before.grad).detach(), atol=1e-6)


@pytest.mark.parametrize("proxy", ["mf", "bias"])
def test_forgetting_keeps_rows_that_a_trained_proxy_gets_wrong(proxy):
    """Rows of unpopular items lose to drawn ones most often once the popular are learnt."""
    settings = replace(QUICK, proxy=proxy, epochs=15, lr=0.05)
    first, again = (sample(whole(), config(0.1, "forgetting", forgetting=settings)) for _ in range(2))
    assert raw_rows(first) == raw_rows(again)
    popularity = whole().train_counts()
    mean = np.average(popularity, weights=popularity)
    kept = first.train_counts()
    assert np.average(popularity, weights=kept) < 0.6 * mean


def test_the_propensity_variant_prefers_rare_users_and_items():
    """w = 1 + C (n + 1.5)^-0.55 with C = (ln N - 1) 2.5^0.55: the rarest, n = 1, weighs ln N."""
    assert rarity(np.array([1]), 1000)[0] == pytest.approx(np.log(1000))
    assert rarity(np.array([1, 5, 500]), 1000).tolist() == sorted(
        rarity(np.array([1, 5, 500]), 1000), reverse=True
    )
    rows = Rows(whole(), 42)
    plain, weighed = (forgotten_most(rows, replace(QUICK, propensity=on)) for on in (False, True))
    n, by_item = len(rows), whole().train_counts()
    position = np.concatenate([np.arange(*ends) for ends in ends_of(whole())])
    of_users = rarity(np.repeat(rows.counts, rows.counts), n)
    of_items = rarity(by_item[whole().sequences.items[position]], n)
    assert weighed == pytest.approx(plain * np.maximum(of_users, of_items))
    assert (of_users > of_items).any()
    assert (of_items > of_users).any()
    kept = [
        sample(whole(), config(0.1, "forgetting", forgetting=replace(QUICK, propensity=on)))
        for on in (False, True)
    ]
    popularity = [np.average(whole().train_counts(), weights=each.train_counts()) for each in kept]
    assert popularity[1] < popularity[0]


def test_a_sample_tells_what_it_kept_of_what():
    data = sample(whole(), config(0.3, "propensity", seed=5))
    told = data.sample
    assert told["parent"] == whole().content_hash != data.content_hash
    assert (told["mode"], told["rate"], told["seed"], told["power"]) == ("propensity", 0.3, 5, 0.5)
    assert (told["rows"], told["rows_kept"]) == (whole().num_train, data.num_train)
    assert (told["users_kept"], told["items_kept"]) == (len(counts_by(data, 0)), len(counts_by(data, 1)))
    assert (told["users"], told["items"]) == (len(counts_by(whole(), 0)), len(counts_by(whole(), 1)))
    assert told["bytes"] == 16 * whole().num_train  # item int32, time int64, rating float32
    assert told["bytes_kept"] == 20 * data.num_train  # and a weight


def test_a_sample_of_a_sample_is_refused():
    with pytest.raises(ConfigError, match="a sample already"):
        sample(sample(whole(), config(0.5)), config(0.1))
