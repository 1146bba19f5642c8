"""Parts of sparse tables: selection, first places, the plan of updates, watched gradients, served forms."""

import pytest
import torch
from effrec_kernels import RowSparse, packed_scores
from effrec_kernels.packed import pack, unpack

from effrec_cli.errors import ConfigError
from effrec_cli.methods.sparse.plan import POLICIES, Plan, Policy, plan_of, turns_for
from effrec_cli.models.bpr_mf import BPRMF
from effrec_cli.models.sparse import start
from effrec_cli.models.sparse.choose import limit
from effrec_cli.models.sparse.growth import GradientScores, RandomScores
from effrec_cli.models.sparse.served import ServedTable, pruned, restored, served
from effrec_cli.models.sparse.tables import DenseTable, PackedTable, Shape
from effrec_cli.schema.method_dsl import DSLConfig


def taken(numbers, sizes, count, *, largest):
    def blocks():
        return iter(numbers.split(sizes))

    return torch.cat(list(limit(blocks, count, largest=largest).taken(blocks())))


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 40, 99, 100])
@pytest.mark.parametrize("seed", range(3))
def test_selection_finds_what_a_stable_sort_does(count, largest, seed):
    draw = torch.Generator().manual_seed(seed)
    # Many equals, zeros, and numbers across all exponents.
    numbers = torch.randint(0, 12, (100,), generator=draw).float() * 10.0 ** torch.randint(-30, 30, (100,))
    order = numbers.sort(descending=largest, stable=True).indices[:count]
    expected = torch.zeros(100, dtype=torch.bool).index_fill_(0, order, True)
    for sizes in (100, 17, [0, 3, 97]):
        assert torch.equal(taken(numbers, sizes, count, largest=largest), expected)


@pytest.mark.parametrize("block", [1 << 18, 30])
@pytest.mark.parametrize("density", [0.02, 0.25, 0.37, 1.0])
def test_places_at_first_are_exactly_as_many_as_the_budget(density, block, monkeypatch):
    monkeypatch.setattr(start, "BLOCK", block)
    for structure, expected in (("row", 50 * max(1, round(12 * density))), ("global", round(600 * density))):
        masks = torch.cat(list(start.mask_blocks(50, 12, density, structure, seed=3)))
        again, other = (torch.cat(list(start.mask_blocks(50, 12, density, structure, s))) for s in (3, 4))
        assert int(masks.sum()) == start.budget(50, 12, density, structure) == expected
        assert torch.equal(masks, again)
        assert density == 1 or not torch.equal(masks, other)
        if structure == "row":
            assert masks.sum(1).unique().tolist() == [expected // 50]


def test_places_at_first_are_anywhere():
    every = torch.stack(
        [torch.cat(list(start.mask_blocks(6, 5, 0.4, "global", seed))) for seed in range(400)]
    ).float()
    # 12 of 30: a place is live with probability 0.4, so within five deviations of its mean.
    assert ((every.mean(0) - 0.4).abs() < 5 * (0.24 / 400) ** 0.5).all()
    assert every.sum((1, 2)).unique().tolist() == [12.0]


@pytest.mark.parametrize("density", [1e-9, 1e-4, 0.25, 0.9999, 1.0])
@pytest.mark.parametrize("size", [250_000, 250_000_000])
def test_shares_of_tables_of_a_milliard_numbers_are_exact(density, size):
    blocks = [(low, low + size) for low in range(0, 1_000_000_001 // 4, size)] + [(250_000_000, 250_000_001)]
    live = start.budget(250_000_001, 4, density, "global")
    shares = start._shares(blocks, 4, live, seed=3)
    assert sum(shares) == live
    assert all(0 <= share <= 4 * (high - low) for share, (low, high) in zip(shares, blocks, strict=True))
    assert shares == start._shares(blocks, 4, live, seed=3)


def test_shares_drawn_both_ways_are_alike(monkeypatch):
    blocks, draws = [(0, 3), (3, 10), (10, 30)], 4000

    def drawn():
        return torch.tensor([start._shares(blocks, 2, 25, seed) for seed in range(draws)]).double()

    usual = drawn()
    monkeypatch.setattr(start, "_MOST", 0)
    other = drawn()
    assert not torch.equal(usual, other)
    for found in (usual, other):
        sizes = torch.tensor([6.0, 14, 40], dtype=torch.float64) / 60
        spread = (25 * sizes * (1 - sizes) * 35 / 59).sqrt()  # of a hypergeometric draw
        assert (found.sum(1) == 25).all()
        assert ((found.mean(0) - 25 * sizes).abs() < 5 * spread / draws**0.5).all()
        torch.testing.assert_close(found.std(0), spread, rtol=0.06, atol=0)


@pytest.mark.parametrize("structure", ["row", "global"])
def test_a_sparse_table_begins_as_part_of_the_dense_one(structure, monkeypatch):
    monkeypatch.setattr(start, "BLOCK", 40)
    torch.manual_seed(5)
    dense = DenseTable(Shape(21, 10))
    torch.manual_seed(5)
    sparse = PackedTable(Shape(21, 10, 0.3, structure, seed=9))
    mask = torch.cat(list(start.mask_blocks(21, 10, 0.3, structure, 9)))
    assert torch.equal(unpack(sparse.packed), dense.table * mask)


COSINE = Policy(drop_rate=0.5, final_rate=0.005, decay="cosine", stop=1.0)


def test_the_share_falls_as_the_paper_says():
    plan = Plan(COSINE, interval=10, turns=1, total=1000)
    assert plan.share(0) == 0.5
    assert plan.share(500) == pytest.approx(0.2525)
    assert plan.share(1000) == pytest.approx(0.005)
    shares = [plan.share(step) for step in range(0, 1001, 10)]
    assert shares == sorted(shares, reverse=True)
    linear = Plan(Policy(0.5, 0.1, "linear", 1.0), 10, 1, 1000)
    assert [linear.share(step) for step in (0, 500, 1000)] == pytest.approx([0.5, 0.3, 0.1])
    assert Plan(Policy(0.5, 0.1, "none", 1.0), 10, 1, 1000).share(999) == 0.5


def test_nothing_changes_after_the_stop():
    plan = Plan(Policy(0.5, 0.0, "cosine", stop=0.75), interval=10, turns=1, total=100)
    assert [step for step in range(101) if plan.due(step)] == [10, 20, 30, 40, 50, 60, 70]
    assert not any(plan.watches(step) for step in range(70, 100))


@pytest.mark.parametrize(("window", "first"), [(1.0, 0), (0.5, 5), (0.0, 9)])
def test_the_window_ends_with_the_update(window, first):
    plan = Plan(Policy(0.5, 0.0, "cosine", 1.0, window=window), interval=10, turns=2, total=100)
    assert [step for step in range(20) if plan.watches(step)] == [*range(first, 10), *range(10 + first, 20)]
    assert [plan.turn(step) for step in (0, 9, 10, 19, 20)] == [0, 0, 1, 1, 0]
    assert [plan.rows_of_turn(7, turn) for turn in (0, 1)] == [(0, 4), (4, 7)]


def test_random_growth_watches_nothing():
    plan = Plan(POLICIES["set"], interval=10, turns=1, total=100)
    assert plan.due(10)
    assert not any(plan.watches(step) for step in range(100))


@pytest.mark.parametrize(("live", "dim"), [(32, 128), (13, 128), (64, 128), (6, 128), (20, 1024)])
def test_turns_keep_gradients_below_the_table(live, dim):
    slot = 15 if dim <= 256 else 16
    turns = turns_for(live, dim, slot)
    assert 2 * dim / turns <= live * slot
    assert turns == 1 or 2 * dim / (turns - 1) > live * slot


@pytest.mark.parametrize(("update_every", "steps", "most"), [(1.0, 9, 9), (0.5, 9, 4), (0.01, 9, 1)])
def test_each_row_has_its_turn_between_two_updates(update_every, steps, most):
    own = DSLConfig(update_every=update_every)
    plan = plan_of(own, steps, 10 * steps, most)
    assert plan.interval * plan.turns <= max(1, update_every * steps)
    with pytest.raises(ConfigError, match=f"Rows take {most + 1} turns") as caught:
        plan_of(own, steps, 10 * steps, most + 1)
    assert caught.value.where == "method.turns"
    assert f"method.turns={most} or less" in caught.value.fix


def test_gradients_sum_with_their_sign_over_watched_rows():
    scores = GradientScores(6, 2, 2, 5, torch.device("cpu"))
    scores.add(RowSparse(torch.tensor([1, 2, 4]), torch.tensor([[9.0, 9], [1, -2], [3, 0]]), 6))
    scores.add(RowSparse(torch.tensor([2, 5]), torch.tensor([[-1.0, -2], [9, 9]]), 6))
    assert not scores.touched.any(), "a step's gradients count once it is done"
    scores.settle(16, torch.tensor(2.0))
    assert scores.touched.tolist() == [False, False, True, False, True, False]
    assert scores.block(1, 5).tolist() == [[0, 0], [0, 2], [0, 0], [1.5, 0]]
    scores.add(RowSparse(torch.tensor([3]), torch.tensor([[torch.inf, 1.0]]), 6))
    scores.forget_step()
    scores.settle(16)
    assert not scores.touched[3]
    scores.add(RowSparse(torch.tensor([3]), torch.tensor([[torch.nan, 1.0]]), 6))
    scores.settle(16)
    assert scores.block(3, 4).tolist() == [[0, 1]]


def test_random_scores_are_those_of_seed_and_rows_alone():
    one, two, other = (RandomScores(9, 4, 0, 9, seed, torch.device("cpu")) for seed in (1, 1, 2))
    assert torch.equal(one.block(3, 6), two.block(3, 6))
    assert not torch.equal(one.block(3, 6), other.block(3, 6))
    assert not torch.equal(one.block(3, 6), one.block(4, 7))
    assert (one.block(0, 9) > 0).all()


@pytest.mark.parametrize("structure", ["row", "global"])
def test_pruning_keeps_the_largest(structure):
    table = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    table[:, 1] = table[:, 0]
    kept = unpack(pruned(table, 0.25, structure))
    if structure == "row":
        order = table.abs().sort(dim=1, descending=True, stable=True).indices[:, :2]
        expected = torch.zeros_like(table).scatter_(1, order, table.gather(1, order))
    else:
        order = table.abs().flatten().sort(descending=True, stable=True).indices[:18]
        expected = torch.zeros(72).index_copy_(0, order, table.flatten()[order]).view(9, 8)
    assert torch.equal(kept, expected)


@pytest.mark.parametrize("values", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("form", ["dense", "row", "global"])
def test_served_tables_read_as_they_were_rounded(form, values):
    torch.manual_seed(0)
    shape = Shape(7, 6, 0.5, "row" if form == "dense" else form)
    table = DenseTable(shape) if form == "dense" else PackedTable(shape)
    exact = table.weights.detach() if form == "dense" else unpack(table.packed).detach()
    kept = served(table, values)
    with torch.no_grad():
        read = kept(torch.arange(-1, 7))
    assert read.dtype == torch.float32
    assert not read[0].any()
    slack = {"fp32": 0.0, "bf16": 2**-8, "int8": 1 / 254}[values] * exact.abs().amax(1, keepdim=True)
    assert ((read[1:] - exact).abs() <= slack + 1e-9).all()
    if kept.packed is not None:
        users = torch.randn(3, 6)
        torch.testing.assert_close(packed_scores(users, kept.packed), users @ read[1:].T)
    network = BPRMF(DenseTable(Shape(7, 6)), DenseTable(Shape(7, 6)))
    state = kept.state_dict().items()
    restored(network, {f"{side}.{name}": tensor for side in ("users", "items") for name, tensor in state})
    with torch.no_grad():
        assert torch.equal(network.items(torch.arange(-1, 7)), read)


def test_a_row_of_zeros_is_served_as_one():
    table = DenseTable(Shape(3, 4))
    table.table.data[1] = 0
    with torch.no_grad():
        assert not served(table, "int8")(torch.tensor([1])).any()


def test_a_served_table_does_not_train():
    with pytest.raises(TypeError, match="does not train"):
        _ = ServedTable(4, {"table": torch.zeros(2, 4)}).weights


def test_a_global_table_may_have_rows_without_numbers():
    mask = torch.zeros(3, 4, dtype=torch.bool).index_fill_(0, torch.tensor([1]), True)
    packed = pack(torch.ones(3, 4), mask, ragged=True)
    parts = {"values": packed.values, "columns": packed.columns, "offsets": packed.offsets}
    with torch.no_grad():
        assert ServedTable(4, parts)(torch.arange(3)).sum(1).tolist() == [0, 4, 0]
