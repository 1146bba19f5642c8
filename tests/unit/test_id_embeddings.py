"""What becomes of the factors in a network, by strategy (papers/cadc section 1.4)."""

import pytest
import torch

from effrec_cli.models.id_embeddings import SD, STRATEGIES, drawn, power_of_two, scale_of

FROZEN = ("init_frz", "concat", "residual")


def factors(rows=50, dim=8):
    return 3 * torch.randn(rows, dim, generator=torch.Generator().manual_seed(1)) + 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_tables_that_move_are_parameters(strategy):
    ids = STRATEGIES[strategy](factors(), 5)
    names = {name for name, _ in ids.named_parameters()}
    assert names == {"init_upd": {"table"}, "two_rate": {"table"}, "concat": {"own"}}.get(strategy, set())
    assert ids.trained is (strategy not in FROZEN)
    assert ids.slow is (strategy == "two_rate")
    assert "table" in ids.state_dict(), "a saved network brings its tables"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tables_start_at_the_factors_scaled_to_a_fixed_deviation(strategy):
    table = factors()
    ids = STRATEGIES[strategy](table, 5)
    torch.testing.assert_close(ids.table.detach(), table * float(ids.scale))
    sd = ids.table.detach().double().std(correction=0)
    assert sd == pytest.approx(SD, rel=1e-5) or (strategy == "residual" and SD / 1.42 < sd < SD * 1.42)


def test_residual_scales_without_rounding():
    table = factors()
    ids = STRATEGIES["residual"](table, 5)
    assert torch.equal(ids.table / float(ids.scale), table)
    assert [power_of_two(x) for x in (0.3, 0.5, 1.0, 3.1)] == [0.25, 0.5, 1.0, 4.0]


def test_zeros_are_left_as_they_are():
    assert scale_of(torch.zeros(4, 3)) == 1.0
    assert not STRATEGIES["init_frz"](torch.zeros(4, 3), 5)(torch.arange(4)).any()


def test_drawn_tables_have_the_same_deviation_and_no_factors():
    torch.manual_seed(0)
    ids = drawn(4000, 8)
    assert float(ids.table.detach().std()) == pytest.approx(SD, rel=0.02)
    folded = ids(torch.tensor([-1, 3]), torch.ones(2, 8))
    assert not folded[0].any(), "there is nothing that a folded-in vector would fit"
    assert torch.equal(folded[1], ids.table[3])


@pytest.mark.parametrize("strategy", ["init_frz", "concat", "two_rate"])
def test_folded_vectors_stand_where_a_row_is_not_known_in_the_tables_scale(strategy):
    table = factors()
    ids = STRATEGIES[strategy](table, 5)
    rows = torch.tensor([4, -1, 9])
    found = ids(rows, table[[0, 7, 0]])
    assert found.shape == (3, ids.width) == (3, 13 if strategy == "concat" else 8)
    torch.testing.assert_close(found[[0, 2]], ids(torch.tensor([4, 9])))
    torch.testing.assert_close(found[1, :8], ids(torch.tensor([7]))[0, :8])
    assert not found[1, 8:].any()


def test_concat_reads_the_factors_beside_what_trains():
    ids = STRATEGIES["concat"](factors(), 5)
    ids(torch.tensor([3, 3, 8])).sum().backward()
    assert ids.table.grad is None
    assert ids.own.grad[3].eq(2).all()
    assert ids.own.grad[8].eq(1).all()
    assert not ids.own.grad[0].any()


def test_twins_share_what_is_frozen_and_part_where_it_moves():
    table = factors()
    for strategy in FROZEN:
        ids = STRATEGIES[strategy](table, 5)
        assert ids.twin() is ids
    ids = STRATEGIES["init_upd"](table, 5)
    twin = ids.twin()
    assert torch.equal(twin.table, ids.table)
    assert twin.table is not ids.table
    assert twin.table.data_ptr() != ids.table.data_ptr()
    assert STRATEGIES["two_rate"](table, 5).twin().slow
    one = drawn(30, 8)
    assert not torch.equal(one.table, one.twin().table)
