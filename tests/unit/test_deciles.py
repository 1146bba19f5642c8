"""Metrics of the test cases by deciles of training rows."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranking_helpers import TableScorer, full_order, make_data, settings

from effrec_cli.data.sampling import sample
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation import deciles as of_deciles
from effrec_cli.evaluation.deciles import deciles, tally_of
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.schema.sample import SampleConfig

CPU = torch.device("cpu")


def drawn(num_users=47, num_items=30, most_targets=1, seed=3):
    """Returns data whose items are of very unlike frequency, and scores that put targets high up."""
    draw = np.random.default_rng(seed)
    chance = np.arange(1, num_items + 1) / np.arange(1, num_items + 1).sum()
    histories = [draw.choice(num_items, draw.integers(0, 12), p=chance).tolist() for _ in range(num_users)]
    targets = [draw.choice(num_items, draw.integers(1, most_targets + 1)).tolist() for _ in range(num_users)]
    table = draw.normal(size=(num_users, num_items))
    for user, items in enumerate(targets):
        table[user, items] += 1
    return make_data(histories, targets, num_items), table


def found(data, table, *, world=None, **more):
    asked = settings(**more)
    scorer = TableScorer(table)
    tally = tally_of(data, data.test, asked, CPU)
    metrics = rank_cases(scorer, data, data.test, asked, world=world, tally=tally)
    return metrics, tally.by_frequency()


def places(data, table):
    """Returns of each case the places of its distinct targets, by item; infinite where it is not listed."""
    told = []
    for user, row in enumerate(table):
        history = data.sequences.items[data.test.history_start[user] : data.test.history_end[user]]
        scores = row.copy()
        scores[history] = -np.inf
        order = full_order(scores.tolist())
        wanted = data.sequences.items[data.test.target_start[user] : data.test.target_end[user]]
        told.append(
            {item: order.index(item) + 1 if item in order else math.inf for item in set(wanted.tolist())}
        )
    return told


def gain(place, k):
    return 1 / math.log2(1 + place) if place <= k else 0.0


def oracle(pairs):
    """Returns the records of (training rows, gains by metric): each goes where its tie's middle lies."""
    groups = {}
    ordered = sorted(rows for rows, _ in pairs)
    for rows, gains in pairs:
        first, number = ordered.index(rows), ordered.count(rows)
        decile = int((first + number / 2) / len(ordered) * 10) + 1
        groups.setdefault(decile, []).append((rows, gains))
    return [
        {
            "decile": decile,
            "rows": [min(rows for rows, _ in group), max(rows for rows, _ in group)],
            "cases": len(group),
            **{name: np.mean([gains[name] for _, gains in group]) for name in group[0][1]},
        }
        for decile, group in sorted(groups.items())
    ]


def same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.pop("rows") == other.pop("rows")
        assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("most_targets", [1, 4])
@pytest.mark.parametrize(("ks", "k"), [((1, 10, 20), 10), ((1, 3), 3), ((100,), 100)])
def test_each_group_is_the_mean_over_its_cases(most_targets, ks, k):
    data, table = drawn(most_targets=most_targets)
    _, by_frequency = found(data, table, ks=ks)
    rows, counts = data.train_end - data.train_start, data.train_counts()
    of_users, of_items = [], []
    for user, told in enumerate(places(data, table)):
        ideal = sum(gain(place, k) for place in range(1, min(k, len(told)) + 1))
        ndcg = sum(gain(place, k) for place in told.values()) / ideal
        hit = float(min(told.values()) <= k)
        of_users.append((rows[user], {f"ndcg@{k}": ndcg, f"hr@{k}": hit}))
        of_items += [
            (counts[item], {f"ndcg@{k}": gain(place, k), f"hr@{k}": float(place <= k)})
            for item, place in told.items()
        ]
    same(by_frequency["users"], oracle(of_users))
    same(by_frequency["items"], oracle(of_items))


def test_groups_weighed_by_their_cases_give_the_metric_of_all():
    metrics, by_frequency = found(*drawn())
    for groups in by_frequency.values():
        assert sum(group["cases"] for group in groups) == 47
        for name in ("ndcg@10", "hr@10"):
            mean = sum(group["cases"] * group[name] for group in groups) / 47
            assert mean == pytest.approx(metrics[name], abs=1e-9)


def test_without_ties_groups_are_equal_and_a_tie_goes_whole_to_where_its_middle_lies():
    assert deciles(np.arange(40)[::-1], np.ones(40, np.int64)).cases.tolist() == [4] * 10
    assert deciles(np.arange(13), np.ones(13, np.int64)).cases.sum() == 13
    # Cases 1 to 6 of ten have two rows: their middle lies in the fourth group.
    tied = deciles(np.array([0, 2, 2, 2, 5, 6, 7]), np.array([1, 2, 2, 2, 1, 1, 1]))
    assert tied.cases.tolist() == [1, 0, 0, 0, 6, 0, 0, 1, 1, 1]
    assert tied.of.tolist() == [0, 4, 4, 4, 7, 8, 9]
    assert tied.rows[4] == (2, 2)
    # Who has no case neither counts nor stretches a group.
    idle = deciles(np.array([9, 1, 3, 9]), np.array([0, 1, 1, 0]))
    assert [rows for rows, cases in zip(idle.rows, idle.cases, strict=True) if cases] == [(1, 1), (3, 3)]


def test_neither_blocks_nor_the_pieces_of_counting_change_a_bit(monkeypatch):
    data, table = drawn(most_targets=3)
    whole = found(data, table)
    assert found(data, table, block_rows=5) == whole
    monkeypatch.setattr(of_deciles, "_CASES", 7)
    assert found(data, table, block_rows=1) == whole


def test_catalogues_and_lists_shorter_than_the_cut_off():
    data = make_data([[0, 1], [0]], [[2], [1]], 3)
    _, by_frequency = found(data, np.array([[0.0, 0, 0], [3, 2, 1]]), ks=(10,))
    assert [group["hr@10"] for group in by_frequency["users"]] == [1.0, 1.0]
    assert [group["rows"] for group in by_frequency["items"]] == [[0, 0], [1, 1]]


def test_metrics_that_are_not_measured_are_not_told():
    data, table = drawn()
    _, by_frequency = found(data, table, metrics=["recall", "hr"])
    assert set(by_frequency["users"][0]) == {"decile", "rows", "cases", "hr@10"}
    same(
        by_frequency["items"],
        [
            {name: value for name, value in group.items() if name != "ndcg@10"}
            for group in found(data, table)[1]["items"]
        ],
    )
    assert tally_of(data, data.test, settings(metrics=["recall"]), CPU) is None
    with pytest.raises(ConfigError, match="nothing to measure"):
        tally_of(data, data.test, settings(ks=()), CPU)


def test_runs_on_samples_have_the_groups_of_the_whole():
    data, table = drawn()
    part = sample(data, SampleConfig(rate=0.3))
    assert part.num_train < data.num_train / 2
    assert found(part, table)[1] == found(data, table)[1]


def one_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    told = [found(*drawn(users, most_targets=3), world=World(rank, 2)) for users in (33, 1)]
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def test_two_ranks_tell_what_one_process_tells(tmp_path):
    torch.multiprocessing.spawn(one_rank, (str(tmp_path),), nprocs=2)
    alone = json.loads(json.dumps([found(*drawn(users, most_targets=3)) for users in (33, 1)]))
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


class Short(TableScorer):
    """Runs out of memory where it is asked for more than three cases."""

    def score(self, users, histories):
        if len(users) > 3:
            raise torch.OutOfMemoryError
        return super().score(users, histories)


def test_a_block_that_does_not_fit_is_counted_once():
    data, table = drawn()
    asked = settings(block_rows=24)
    tally = tally_of(data, data.test, asked, CPU)
    rank_cases(Short(table), data, data.test, asked, tally=tally)
    assert tally.by_frequency() == found(data, table)[1]


def test_no_user_trains_on_anything():
    data, table = drawn()
    bare = replace(data, train_end=data.train_start)
    _, by_frequency = found(bare, table)
    for groups in by_frequency.values():
        assert [(group["decile"], group["rows"], group["cases"]) for group in groups] == [(6, [0, 0], 47)]
