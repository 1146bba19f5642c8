import math

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Success, nDCG
from ranking_helpers import ALL_METRICS, TableScorer, full_order, make_data, settings

from effrec_cli.errors import ConfigError, DataError, NonFiniteError, OutOfMemoryError
from effrec_cli.evaluation.ranking import protocol_of, rank_cases

KS = (1, 2, 5, 40)
SEEN = ("exclude", "exclude_but_target", "keep")


def ranked(data, table, seen="exclude"):
    """Returns each case's full ranking by brute force."""
    lists = []
    for user, row in enumerate(np.array(table, dtype=np.float64)):
        history, targets = (
            set(data.sequences.items[start[user] : end[user]].tolist())
            for start, end in (
                (data.test.history_start, data.test.history_end),
                (data.test.target_start, data.test.target_end),
            )
        )
        hidden = {"exclude": history, "exclude_but_target": history - targets, "keep": set()}[seen]
        scores = row.copy()
        scores[list(hidden)] = -np.inf
        lists.append(full_order(scores.tolist()))
    return lists


def oracle(data, lists, ks):
    """Returns the per-case means of `ir_measures`, which get strictly falling scores and so see no ties."""
    relevant = [
        set(data.sequences.items[a:b].tolist())
        for a, b in zip(data.test.target_start, data.test.target_end, strict=True)
    ]
    judged = {str(q): {str(item): 1 for item in items} for q, items in enumerate(relevant)}
    run = {
        str(q): {str(item): -float(place) for place, item in enumerate(lists[q])} for q in range(len(lists))
    }
    run = {q: scores or {"none": 0.0} for q, scores in run.items()}
    measures = {"ndcg": nDCG, "hr": Success, "recall": R, "mrr": RR, "map": AP, "precision": P}
    wanted = {f"{name}@{k}": measure @ k for name, measure in measures.items() for k in ks}
    values = {key: [] for key in wanted}
    names = {measure: key for key, measure in wanted.items()}
    for metric in ir_measures.iter_calc(list(wanted.values()), judged, run):
        values[names[metric.measure]].append((int(metric.query_id), metric.value))
    for k in ks:
        # trec_eval divides AP@k by all relevant items, we by as many as k places can hold.
        key = f"map@{k}"
        values[key] = [(q, v * len(relevant[q]) / min(k, len(relevant[q]))) for q, v in values[key]]
    return {key: sum(v for _, v in pairs) / len(lists) for key, pairs in values.items()}


@st.composite
def worlds(draw):
    num_items = draw(st.integers(2, 30))
    item = st.integers(0, num_items - 1)
    num_users = draw(st.integers(1, 5))
    histories = [draw(st.lists(item, max_size=num_items + 3)) for _ in range(num_users)]
    targets = [draw(st.lists(item, min_size=1, max_size=6)) for _ in range(num_users)]
    score = st.sampled_from([-2.0, 0.0, 0.25, 1.0, 3.0])
    table = [[draw(score) for _ in range(num_items)] for _ in range(num_users)]
    return make_data(histories, targets, num_items), table


@given(world=worlds(), seen=st.sampled_from(SEEN), rows=st.integers(1, 6))
@hypothesis_settings(max_examples=120, deadline=None)
def test_every_metric_equals_ir_measures_on_rankings_with_ties(world, seen, rows):
    data, table = world
    found = rank_cases(TableScorer(table), data, data.test, settings(KS, seen=seen, block_rows=rows))
    lists = ranked(data, table, seen)
    for key, value in oracle(data, lists, KS).items():
        assert found[key] == pytest.approx(value, abs=1e-9), key


@given(world=worlds())
@hypothesis_settings(max_examples=60, deadline=None)
def test_coverage_and_surprisal_equal_brute_force(world):
    data, table = world
    found = rank_cases(TableScorer(table), data, data.test, settings(KS))
    lists = ranked(data, table)
    met = [{int(item) for item in data.train_items(user)} for user in range(data.num_users)]
    users = sum(bool(items) for items in met)
    counts = [max(1, sum(item in items for items in met)) for item in range(data.num_items)]
    weight = [math.log2(users / n) / math.log2(users) if users > 1 else 1.0 for n in counts]
    for k in KS:
        listed = {item for items in lists for item in items[:k]}
        assert found[f"coverage@{k}"] == pytest.approx(len(listed) / data.num_items)
        means = [np.mean([weight[item] for item in items[:k]]) if items else 0.0 for items in lists]
        assert found[f"surprisal@{k}"] == pytest.approx(np.mean(means), abs=1e-9)


def test_a_worked_example():
    data = make_data([[0], [1]], [[2], [3, 4]], 6)
    table = [[9.0, 5, 4, 3, 2, 1], [1.0, 9, 2, 3, 8, 7]]
    found = rank_cases(TableScorer(table), data, data.test, settings((1, 2, 3)))
    # User 0 sees 1, 2, 3 ... with item 2 relevant; user 1 sees 4, 5, 3 ... with 3 and 4 relevant.
    assert found["hr@1"] == 0.5
    assert found["recall@3"] == 1.0
    assert found["recall@1"] == 0.25
    assert found["precision@3"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found["mrr@3"] == pytest.approx((0.5 + 1) / 2)
    ideal = 1 + 1 / math.log2(3)
    assert found["ndcg@3"] == pytest.approx((1 / math.log2(3) + (1 + 0.5) / ideal) / 2)
    assert found["map@3"] == pytest.approx((0.5 + (1 + 2 / 3) / 2) / 2)
    assert found["coverage@1"] == pytest.approx(2 / 6)


def test_a_target_in_the_excluded_history_is_a_miss_and_counts_as_relevant():
    data = make_data([[1, 1, 1]], [[1, 2]], 3)
    table = [[0.0, 3.0, 2.0]]
    hidden = rank_cases(TableScorer(table), data, data.test, settings((3,)))
    kept = rank_cases(TableScorer(table), data, data.test, settings((3,), seen="keep"))
    assert hidden["recall@3"] == 0.5
    assert kept["recall@3"] == 1.0


def test_a_target_in_the_history_competes_with_what_the_rule_lets_be_listed():
    """History 0, 1, 2, of which 1 is the target; 0 scores above it and so does 3, which is new."""
    data = make_data([[0, 1, 2, 1]], [[1]], 5)
    table = [[9.0, 7.0, 1.0, 8.0, 0.0]]
    ranks = {}
    for seen in SEEN:
        found = rank_cases(TableScorer(table), data, data.test, settings((1, 2, 3, 5), ["hr"], seen=seen))
        ranks[seen] = [found[f"hr@{k}"] for k in (1, 2, 3, 5)]
    assert ranks == {
        "exclude": [0, 0, 0, 0],
        "exclude_but_target": [0, 1, 1, 1],
        "keep": [0, 0, 1, 1],
    }


def test_the_first_eleven_ranks():
    """NDCG and hit rate at 10 of one relevant item, by its rank (papers/iisan section 8)."""
    for rank, ndcg in ((1, 1.0), (2, 0.630930), (3, 0.5), (10, 0.289065), (11, 0.0)):
        data = make_data([[15]], [[rank - 1]], 16)
        found = rank_cases(
            TableScorer(-np.arange(16.0)[None]), data, data.test, settings((10,), ["ndcg", "hr"])
        )
        assert found["ndcg@10"] == pytest.approx(ndcg, abs=1e-6)
        assert found["hr@10"] == float(rank <= 10)


def test_a_user_who_has_seen_everything_gets_an_empty_list():
    data = make_data([[0, 1, 2]], [[1]], 3)
    found = rank_cases(TableScorer([[1.0, 2.0, 3.0]]), data, data.test, settings((2,)))
    assert set(found.values()) == {0.0}


def test_a_constant_scorer_gains_nothing_from_popularity():
    draw = np.random.default_rng(0)
    targets = [[int(99 * draw.random() ** 4)] for _ in range(4000)]
    data = make_data([[] for _ in targets], targets, 100)
    found = rank_cases(TableScorer(np.zeros((4000, 100))), data, data.test, settings((10, 100)))
    keyed = full_order([0.0] * 100)[:10]
    assert found["hr@10"] == pytest.approx(np.mean([target[0] in keyed for target in targets]))
    assert found["coverage@10"] == pytest.approx(0.1)
    assert found["hr@100"] == 1.0


def random_world(num_users=57, num_items=400, seed=0):
    draw = np.random.default_rng(seed)
    histories = [draw.integers(0, num_items, draw.integers(0, 30)).tolist() for _ in range(num_users)]
    targets = [draw.integers(0, num_items, draw.integers(1, 4)).tolist() for _ in range(num_users)]
    return make_data(histories, targets, num_items), draw.normal(size=(num_users, num_items))


@pytest.mark.parametrize("rows", [1, 7, 56, 57, 1000])
def test_the_size_of_blocks_changes_no_bit(rows):
    data, table = random_world()
    whole = rank_cases(TableScorer(table), data, data.test, settings())
    scorer = TableScorer(table)
    assert rank_cases(scorer, data, data.test, settings(block_rows=rows)) == whole
    assert max(scorer.calls) <= rows
    assert sum(scorer.calls) == 57


def test_keys_follow_the_settings_and_the_scorer_gets_users_and_histories():
    data, table = random_world(5)
    seen = []

    class Watching(TableScorer):
        def score(self, users, histories):
            seen.append((users.tolist(), histories.items.tolist(), histories.offsets.tolist()))
            return super().score(users, histories)

    found = rank_cases(Watching(table), data, data.test, settings((5, 1, 5), ["mrr", "ndcg"], block_rows=2))
    assert list(found) == ["mrr@1", "mrr@5", "ndcg@1", "ndcg@5"]
    users, items, offsets = seen[1]
    assert users == [2, 3]
    assert items == [*data.train_items(2), *data.train_items(3)]
    assert offsets == [0, len(data.train_items(2)), len(items)]


def test_repeated_training_rows_of_a_user_count_once_for_surprisal():
    data = make_data([[0, 0, 0], [1], [1], [1]], [[2], [2], [2], [2]], 3)
    found = rank_cases(TableScorer([[0.0, 1.0, 0.0]] * 4), data, data.test, settings((1,), seen="keep"))
    assert found["surprisal@1"] == pytest.approx(math.log2(4 / 3) / math.log2(4))


def test_unknown_metric_names_the_nearest():
    data, table = random_world(3)
    with pytest.raises(ConfigError) as caught:
        rank_cases(TableScorer(table), data, data.test, settings(metrics=["ndgc"]))
    assert caught.value.nearest == "ndcg"
    with pytest.raises(ConfigError, match="at least 1"):
        rank_cases(TableScorer(table), data, data.test, settings((0, 10)))
    with pytest.raises(ConfigError, match="nothing to measure"):
        rank_cases(TableScorer(table), data, data.test, settings(metrics=[]))


def test_no_cases_and_broken_scores_are_errors():
    data, table = random_world(3)
    with pytest.raises(DataError, match="no case"):
        rank_cases(TableScorer(table), make_data([], [], 4), make_data([], [], 4).test, settings())
    table[1, 200] = np.nan
    with pytest.raises(NonFiniteError):
        rank_cases(TableScorer(table), data, data.test, settings())


class Greedy(TableScorer):
    """Runs out of memory on blocks above `most` rows."""

    most = 4

    def score(self, users, histories):
        if len(users) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().score(users, histories)


def test_blocks_halve_when_memory_runs_out():
    data, table = random_world()
    whole = rank_cases(TableScorer(table), data, data.test, settings())
    assert rank_cases(Greedy(table), data, data.test, settings(block_rows=40)) == whole
    hopeless = Greedy(table)
    hopeless.most = 0
    with pytest.raises(OutOfMemoryError, match="400 items"):
        rank_cases(hopeless, data, data.test, settings())


@pytest.mark.parametrize("seen", SEEN)
def test_the_protocol_says_how_it_was_measured(seen):
    data, _ = random_world(3)
    stamp = protocol_of(data, settings((10, 5), ALL_METRICS, seen=seen))
    assert stamp == {
        "split": {"kind": "made up"},
        "candidates": "full",
        "seen": seen,
        "ties": "score descending, then murmur3 finalizer of the item row ascending",
        "ks": [5, 10],
        "metrics": ALL_METRICS,
    }
