"""The hash that decides a sample: uniform, of no order or block (papers/cadc section 5, tests 6 to 8)."""

import hashlib

import numpy as np
import pytest
from data_helpers import prepared
from sampling_helpers import config, counts_by, log, raw_rows, whole
from scipy.stats import chi2

from effrec_cli.data.sampling import kept_in_epoch, sample, sampled_hash, training_hashes
from effrec_cli.data.sampling.hashing import below, id_digests, key_of, row_hashes, told_apart
from effrec_cli.data.sampling.rows import Rows
from effrec_cli.data.sampling.sample import keep

HASHES = np.random.default_rng(1).integers(0, 2**64, 100_000, dtype=np.uint64)


def deviation(kept, expected, rate):
    """Returns the chi-square of counts that are binomial, and its degrees of freedom."""
    return ((kept - expected) ** 2 / (expected * (1 - rate))).sum(), len(kept)


def splitmix(word):
    """Returns SplitMix64 of a word, in Python's own integers (Steele, Lea and Flood 2014)."""
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) % 2**64
    return word ^ word >> 31


def test_a_row_has_the_same_hash_on_every_machine():
    """Test 7: SplitMix64 folded over seed, user, item and time; another hash would change all samples."""
    digest = int.from_bytes(hashlib.blake2b("ü".encode(), digest_size=8).digest(), "little")
    expected = splitmix(42)
    for word in (digest, 2**64 - 4, 6):
        expected = splitmix(expected ^ word)
    users, items = id_digests(np.array(["u1", "ü"])), id_digests(np.array([3, -4]))
    found = row_hashes(42, users, items, np.array([5, 6])).tolist()
    assert found[1] == expected
    assert found[0] == 7557338055658036581


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_kept_count_is_within_four_standard_deviations(rate, seed):
    """Test 6: sd = sqrt(n rho (1 - rho))."""
    data = whole()
    kept, n = sample(data, config(rate, seed=seed)).num_train, data.num_train
    assert abs(kept - rate * n) <= 4 * np.sqrt(n * rate * (1 - rate))


def test_a_rate_of_one_keeps_all_and_of_nought_none():
    """Test 6."""
    edges = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert below(edges, 1.0).tolist() == [True, True]
    assert below(edges, 0.0).tolist() == [False, False]
    assert below(edges, 0.5).tolist() == [True, False]
    assert below(np.array([2**63 - 1, 2**63], dtype=np.uint64), 0.5).tolist() == [True, False]
    assert raw_rows(sample(whole(), config(1.0))) == raw_rows(whole())
    assert sample(whole(), config(0.0)).num_train == 0


@pytest.mark.parametrize("mode", ["uniform", "exact", "per_user", "per_item", "user", "head", "propensity"])
def test_neither_the_order_of_the_file_nor_blocks_change_a_sample(mode):
    """Test 7: file order, chunks of reading and blocks of users."""
    rows, wanted = log(), config(0.2, mode)
    shuffled = [rows[at] for at in np.random.default_rng(5).permutation(len(rows))]
    expected = raw_rows(sample(whole(), wanted))
    assert raw_rows(sample(prepared(shuffled), wanted)) == expected
    positions = keep(whole(), wanted, block_rows=100).positions
    assert positions.tolist() == keep(whole(), wanted).positions.tolist()
    assert len(expected) == len(positions)


def test_a_block_holds_no_more_rows_than_it_may():
    """Test 10, in memory: the largest block does not grow with the data."""
    rows = Rows(whole(), 1, block_rows=100)
    assert sum(len(block) for block in rows) == len(rows) > 5000
    assert 50 < rows.largest <= 100


def test_the_same_seed_draws_the_same_and_others_overlap_by_chance():
    """Test 7: two seeds share about rho^2 n rows."""
    data, rate = whole(), 0.3
    first, again, other = (set(keep(data, config(rate, seed=s)).positions.tolist()) for s in (1, 1, 2))
    assert first == again
    shared, expected = len(first & other), rate**2 * data.num_train
    assert abs(shared - expected) <= 4 * np.sqrt(expected * (1 - rate**2))


def test_ids_are_read_as_what_they_are_not_as_numbers_or_texts():
    numbers = np.array([0, 7, -3, 2**62])
    assert id_digests(numbers.astype(str)).tolist() == id_digests(numbers).tolist()
    texts = np.array(["07", "+7", "7 ", "-0", "x", str(2**63), "99999999999999999999"])
    assert len(set(id_digests(texts).tolist()) | set(id_digests(numbers).tolist())) == len(texts) + len(
        numbers
    )
    assert (
        id_digests(np.array(["b", "a", "b"], dtype=object)).tolist()
        == id_digests(np.array(["b", "a", "b"])).tolist()
    )


def test_kept_rows_are_uniform_over_users_items_and_times():
    """Test 8: chi-square over deciles at p > 0.001, for three seeds."""
    data, rate = whole(), 0.2
    start, end = data.train_start, data.train_end
    position = np.concatenate([np.arange(low, high) for low, high in zip(start, end, strict=True)])
    user = np.repeat(np.arange(data.num_users), end - start)
    for values in (user, data.sequences.items[position], data.sequences.times[position]):
        decile = np.argsort(np.argsort(values, kind="stable")) * 10 // len(values)
        for seed in (1, 2, 3):
            hit = np.isin(position, keep(data, config(rate, seed=seed)).positions)
            kept, every = (np.bincount(decile, weights=w, minlength=10) for w in (hit, np.ones(len(hit))))
            assert chi2.sf(*deviation(kept, rate * every, rate)) > 0.001


def test_the_hash_does_not_go_with_the_parity_of_ids_or_times():
    """Test 8: the correlation of n independent values stays within 4 / sqrt(n)."""
    n = 40_000
    ids, ones = np.arange(n), np.ones(n, dtype=np.int64)
    seen = {
        "user": row_hashes(1, id_digests(ids), id_digests(ones), ones),
        "item": row_hashes(1, id_digests(ones), id_digests(ids), ones),
        "time": row_hashes(1, id_digests(ones), id_digests(ones), ids),
    }
    for hashes in seen.values():
        for bit in (0, 1, 63):
            flags = (hashes >> np.uint64(bit)) & np.uint64(1)
            for period in (2, 3, 8):
                assert abs(np.corrcoef(flags, ids % period)[0, 1]) < 4 / np.sqrt(n)
        assert len(np.unique(hashes)) == n


def test_rows_that_are_alike_are_kept_each_on_its_own():
    """Without times a pair's k-th occurrence has a hash of its own, in whatever order its rows stand."""
    alike = np.array([5, 9, 5, 5, 9, 1], dtype=np.uint64)
    apart = told_apart(alike)
    assert len(set(apart.tolist())) == 6
    assert apart[[0, 1, 5]].tolist() == [5, 9, 1]
    assert sorted(told_apart(alike[::-1]).tolist()) == sorted(apart.tolist())
    rows = [(1, item, 0, 1.0) for item in [4] * 2000 + [5] * 2000 + [6, 6]]
    data = sample(prepared(rows, columns=()), config(0.25))
    assert all(abs(count - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75) for count in counts_by(data, 1).values())


def test_an_epoch_keeps_a_part_of_its_own():
    first, second = (kept_in_epoch(HASHES, 0.3, epoch, seed=1) for epoch in (0, 1))
    n = len(HASHES)
    for kept in (first, second, kept_in_epoch(HASHES, 0.3, 0, seed=2)):
        assert abs(kept.sum() - 0.3 * n) <= 4 * np.sqrt(n * 0.3 * 0.7)
    assert abs((first & second).sum() - 0.09 * n) <= 4 * np.sqrt(n * 0.09 * 0.91)
    assert (kept_in_epoch(HASHES, 0.3, 0, seed=1) == first).all()
    assert not (kept_in_epoch(HASHES, 0.1, 0, seed=1) & ~first).any()
    assert kept_in_epoch(HASHES, 1.0, 3, seed=1).all()


def test_training_hashes_are_those_that_decide():
    data = whole()
    hashes = training_hashes(data, 42)
    position = np.concatenate(
        [np.arange(*ends) for ends in zip(data.train_start, data.train_end, strict=True)]
    )
    assert position[below(hashes, 0.1)].tolist() == keep(data, config(0.1, seed=42)).positions.tolist()


def test_the_hash_of_a_sample_says_what_decides_and_nothing_else():
    same = sampled_hash("a", config(0.1, power=0.5))
    assert sampled_hash("a", config(0.1, power=0.9)) == same
    others = [
        sampled_hash("b", config(0.1)),
        sampled_hash("a", config(0.2)),
        sampled_hash("a", config(0.1, seed=1)),
    ]
    others += [sampled_hash("a", config(0.1, "propensity", power=power)) for power in (0.5, 0.9)]
    assert len({same, *others}) == 6
    assert key_of(1, 2) != key_of(2, 1)
