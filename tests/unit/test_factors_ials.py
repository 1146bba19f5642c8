"""Implicit alternating least squares against its definition. Numbers: papers/cadc, section 5."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from factor_helpers import auc, drawn, implicit_objective, normal_equations, offsets, planted, sparse

from effrec_cli.errors import ConfigError
from effrec_cli.models.factors import sides, spans
from effrec_cli.models.factors.ials import IALS, fold
from effrec_cli.models.factors.matrix import Interactions
from effrec_cli.models.factors.solvers import Plan

SOLVERS = ["cholesky", "cg", "blocks"]
SETTINGS = {"dim": 6, "reg": 0.05, "unobserved_weight": 0.2, "seed": 3, "block": 4, "dtype": torch.float64}
BOTH = [0.0, 1.0]
SMALL = 2000
"""Bytes of working memory: a few rows at once, and long rows in pieces."""


def fitted(cells, sweeps=0, **more):
    model = IALS(sparse(cells), **{**SETTINGS, **more})
    for _ in range(sweeps):
        model.sweep()
    return model


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("exponent", BOTH)
@pytest.mark.parametrize("chunk_bytes", [None, SMALL])
def test_no_half_sweep_raises_the_objective(solver, exponent, chunk_bytes):
    """Test 1."""
    cells = drawn(60, 200)
    model = fitted(cells, solver=solver, frequency_exponent=exponent, chunk_bytes=chunk_bytes)
    before = model.objective()
    for _ in range(6):
        for half in (model.sweep_users, model.sweep_items):
            half()
            after = model.objective()
            assert after <= before * (1 + 1e-12)
            before = after
    assert before < 0.6 * float(cells.sum()), "something was learnt"


@pytest.mark.parametrize("exponent", BOTH)
@pytest.mark.parametrize("chunk_bytes", [None, SMALL])
@pytest.mark.parametrize("share", [0.2, 0.01])
def test_a_half_sweep_solves_the_normal_equations(exponent, chunk_bytes, share):
    """Test 1: to 1e-6, by brute force; few cells are solved for in their own space."""
    cells = drawn(60, 200, share)
    model = fitted(cells, 1, solver="cholesky", frequency_exponent=exponent, chunk_bytes=chunk_bytes)
    model.sweep_users()
    true = normal_equations(cells, model.items, 0.05, 0.2, exponent)
    assert (model.users - true).norm() < 1e-6 * true.norm()
    model.sweep_items()
    true = normal_equations(cells.T, model.users, 0.05, 0.2, exponent)
    assert (model.items - true).norm() < 1e-6 * true.norm()


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_optimum_is_a_fixed_point(solver):
    """Test 1."""
    model = fitted(drawn(), 400, solver="cholesky", reg=0.1)
    again = fitted(drawn(), solver=solver, reg=0.1)
    again.users.copy_(model.users)
    again.items.copy_(model.items)
    again.sweep()
    assert (again.users - model.users).norm() < 1e-6 * model.users.norm()
    assert (again.items - model.items).norm() < 1e-6 * model.items.norm()


@pytest.mark.parametrize("solver", ["cg", "blocks"])
def test_all_solvers_come_to_the_exact_one(solver):
    """Test 1: a solver is chosen by cost because all reach one objective."""
    cells = drawn()
    exact = fitted(cells, 60, solver="cholesky").objective()
    assert fitted(cells, 60, solver=solver).objective() == pytest.approx(exact, rel=1e-3)


def test_wide_vectors_take_a_step_more():
    steps = [fitted(drawn(), dim=dim, solver="cg").plan.cg_steps for dim in (64, 65)]
    assert steps == [2, 3]
    assert fitted(drawn(), dim=65, cg_steps=1).plan.cg_steps == 1


def test_many_steps_of_conjugate_gradients_are_exact():
    model, exact = (fitted(drawn(), solver=solver, cg_steps=30) for solver in ("cg", "cholesky"))
    for each in (model, exact):
        each.sweep()
    assert torch.allclose(model.users, exact.users, rtol=0, atol=1e-8)
    assert torch.allclose(model.items, exact.items, rtol=0, atol=1e-8)


@pytest.mark.parametrize("exponent", BOTH)
def test_the_gramian_stands_for_the_sum_over_all_cells(exponent):
    """Test 2: 30 x 40, and both exponents of the regulariser."""
    cells = drawn()
    model = fitted(cells, 2, frequency_exponent=exponent)
    true = implicit_objective(cells, model.users, model.items, 0.05, 0.2, exponent)
    assert model.objective() == pytest.approx(true, rel=1e-12)
    other = implicit_objective(cells, model.users, model.items, 0.05, 0.2, 1 - exponent)
    assert abs(model.objective() - other) > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_planted_groups_are_found(solver):
    """Test 3: cells of a user's group that he has not met come before those of others."""
    same, met = planted()
    model = IALS(sparse(met), dim=8, reg=0.01, unobserved_weight=0.1, solver=solver)
    for _ in range(10):
        model.sweep()
    assert auc(model.users @ model.items.T, same & ~met, ~same) > 0.99


def test_a_matrix_that_is_seen_whole_is_reconstructed():
    """Test 3: to 1e-4, as both weights go to 0."""
    model = fitted(torch.ones(20, 30, dtype=torch.bool), 30, unobserved_weight=1e-9, reg=1e-9, dim=3)
    assert (model.users @ model.items.T - 1).abs().max() < 1e-4


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neither_chunks_nor_packets_change_what_is_found(solver, dtype, monkeypatch):
    """Test 4: rows one by one or together, in one piece or many, in the space of cells or dimensions."""
    cells, limit = drawn(60, 200), 1e-4 if dtype == torch.float32 else 1e-10
    whole = fitted(cells, 2, solver=solver, dtype=dtype)
    parts = fitted(cells, 2, solver=solver, dtype=dtype, chunk_bytes=SMALL)
    assert (parts.users - whole.users).norm() < limit * whole.users.norm()
    assert (parts.items - whole.items).norm() < limit * whole.items.norm()
    if solver == "cholesky":
        monkeypatch.setattr(Plan, "dual", lambda *lengths: False)
        primal = fitted(cells, 2, solver=solver, dtype=dtype)
        assert (primal.items - whole.items).norm() < limit * whole.items.norm()


def test_short_rows_are_solved_in_the_space_of_their_cells(monkeypatch):
    """Test 4: so that the comparison above compares something."""
    cells = drawn(60, 200, share=0.01)
    used = []
    dual = Plan.dual
    monkeypatch.setattr(Plan, "dual", lambda *asked: used.append(dual(*asked)) or used[-1])
    fitted(cells, 1, solver="cholesky")
    assert True in used
    assert False in used


def test_the_products_of_a_gpu_are_those_of_a_cpu():
    """Test 4: what cells score is gathered on a GPU, piece by piece."""
    cells = drawn(60, 200)
    model = fitted(cells, 1, solver="cg")
    parts = spans.spans(sparse(cells), 6, 8, 10_000)
    assert len(parts) > 1
    for span in parts:
        sampled = span.sampled(model.users[span.rows], model.items)
        gathered = span.gathered(model.users[span.rows], model.items, 3000)
        assert torch.allclose(sampled, gathered, rtol=0, atol=1e-12)
    true = model.users @ model.items.T
    found = torch.cat([span.predict(model.users[span.rows], model.items, 3000) for span in parts])
    assert torch.allclose(found, true[cells], rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_rows_without_cells_are_zero(solver, weight):
    """Test 4."""
    cells = drawn()
    cells[3:20] = False
    model = fitted(cells, 2, solver=solver, unobserved_weight=weight)
    assert model.users[3:20].count_nonzero() == 0
    assert model.items[~cells.any(0)].count_nonzero() == 0
    assert bool(model.users.isfinite().all())
    assert bool(model.users[2].any())


def test_a_matrix_without_cells_has_zero_vectors():
    model = fitted(torch.zeros(4, 5, dtype=torch.bool), 2)
    assert model.users.count_nonzero() == model.items.count_nonzero() == 0
    assert model.objective() == 0


def test_repeated_pairs_count_once_and_the_last_value_stays():
    """Test 4: the rule for duplicates."""
    told = Interactions.distinct(
        torch.tensor([0, 4, 4, 6]),
        torch.tensor([3, 1, 3, 1], dtype=torch.int32).repeat(2)[:6],
        5,
        torch.tensor([1.0, 2, 3, 4, 5, 6]),
    )
    assert told.offsets.tolist() == [0, 2, 2, 4]
    assert told.columns.tolist() == [1, 3, 1, 3]
    assert told.values.tolist() == [4.0, 3.0, 6.0, 5.0]


def test_transposing_twice_is_nothing():
    cells = drawn()
    matrix = sparse(cells, torch.arange(cells.numel()).view(cells.shape).float())
    turned = matrix.transposed()
    assert torch.equal(turned.offsets, offsets(cells.T))
    back = turned.transposed()
    assert all(
        torch.equal(getattr(back, name), getattr(matrix, name)) for name in ("columns", "offsets", "values")
    )


def test_folding_in_is_the_solution_of_a_user_and_of_an_item():
    cells = drawn()
    model = fitted(cells, 3, solver="cg", frequency_exponent=1.0)
    shuffled = torch.cat([cells[u].nonzero()[:, 0].flip(0).repeat(2) for u in range(len(cells))])
    twice = model.fold_in(offsets(cells) * 2, shuffled)
    true = normal_equations(cells, model.items, 0.05, 0.2, 1.0)
    assert (twice - true).norm() < 1e-8 * true.norm()
    by_item = sparse(cells.T)
    items = model.fold_in_items(by_item.offsets, by_item.columns)
    true = normal_equations(cells.T, model.users, 0.05, 0.2, 1.0)
    assert (items - true).norm() < 1e-8 * true.norm()
    saved = {name: tensor.clone() for name, tensor in model.state().items() if name != "users"}
    assert torch.equal(fold(saved, offsets(cells) * 2, shuffled), twice)


def test_a_regulariser_that_vanishes_is_refused():
    with pytest.raises(ConfigError, match="not positive definite"):
        fitted(drawn(), 9, reg=1e-30, unobserved_weight=1e-30, dim=32, solver="cholesky", dtype=torch.float32)


def test_an_unknown_solver_is_refused():
    with pytest.raises(ConfigError, match="solver called 'lu'"):
        fitted(drawn(), solver="lu")


def test_single_precision_is_near_double():
    """Test 4."""
    cells = drawn(60, 200)
    rough, fine = (fitted(cells, 2, dtype=dtype, solver="cg") for dtype in (torch.float32, torch.float64))
    rough.items.copy_(fitted(cells, dtype=torch.float64).items)
    rough.users.copy_(fitted(cells, dtype=torch.float64).users)
    for _ in range(2):
        rough.sweep()
    scores = fine.users @ fine.items.T
    assert (rough.users.double() @ rough.items.double().T - scores).norm() < 1e-4 * scores.norm()


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_fits_are_equal_bit_for_bit_on_one_thread_or_two(solver):
    """Test 21."""
    cells, before = drawn(60, 200), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            found.append(fitted(cells, 2, solver=solver, dtype=torch.float32, chunk_bytes=20_000))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(found[0].users, other.users)
        assert torch.equal(found[0].items, other.items)
    assert not torch.equal(found[0].users, fitted(cells, 2, solver=solver, seed=9, dtype=torch.float32).users)


def test_renumbering_users_and_items_renumbers_their_vectors():
    """Test 13."""
    cells, draw = drawn(), torch.Generator().manual_seed(5)
    users, items = (torch.randperm(size, generator=draw) for size in cells.shape)
    model, other = fitted(cells), fitted(cells[users][:, items])
    other.users.copy_(model.users[users])
    other.items.copy_(model.items[items])
    for each in (model, other):
        each.sweep()
        each.sweep()
    assert torch.allclose(other.users, model.users[users], atol=1e-8)
    assert torch.allclose(other.items, model.items[items], atol=1e-8)


def test_no_more_memory_is_worked_on_than_is_given():
    """Chunks hold as many rows as fit, and one at least."""
    cells = drawn(60, 200)
    plan = Plan("cholesky", 4, 2, 20_000)
    side = sides.Side(sparse(cells), 6, torch.float64, plan)
    assert sum(len(packet.rows) for packet in side.packets) == int(cells.any(1).sum())
    for packet in side.packets:
        bytes_of_one = plan.row_bytes(packet.columns.shape[1], 6, 8)
        assert len(packet.rows) == 1 or len(packet.rows) * bytes_of_one <= 20_000
        filled = int((packet.columns < 200).sum())
        assert filled >= packet.columns.numel() / 1.5, "little is padded"


SPLIT = Path(os.environ.get("EFFREC_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SPLIT = SPLIT / "ultragcn-ml-1m"


def read_split(name):
    """Returns each user's items: a line holds the user and the items."""
    lines = (SPLIT / name).read_text().splitlines()
    return {int(user): [int(item) for item in items] for user, *items in map(str.split, lines) if items}


@pytest.mark.skipif(not SPLIT.is_dir(), reason=f"{SPLIT} is not here")
def test_movielens_1m_is_ranked_as_well_as_in_the_pilot():
    """Test 19: NDCG@20 of at least 0.255, all users, full ranking."""
    train, test = read_split("train.txt"), read_split("test.txt")
    num_items = 1 + max(max(items) for part in (train, test) for items in part.values())
    lists = [train.get(user, []) for user in range(1 + max(train))]
    columns = torch.tensor([item for items in lists for item in items], dtype=torch.int32)
    starts = torch.tensor(np.cumsum([0, *map(len, lists)]))
    model = IALS(Interactions.distinct(starts, columns, num_items), reg=0.01, unobserved_weight=0.3)
    for _ in range(12):
        model.sweep()
    gains = 1 / np.log2(np.arange(2, 22))
    found = []
    for user, wanted in test.items():
        scores = model.items @ model.users[user]
        scores[lists[user]] = -torch.inf
        hits = np.isin(scores.topk(20).indices.numpy(), wanted)
        found.append((hits * gains).sum() / gains[: len(wanted)].sum())
    assert np.mean(found) >= 0.255
