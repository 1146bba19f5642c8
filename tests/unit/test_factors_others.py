"""Randomised SVD, BPR and ALS on ratings against their definitions. Numbers: papers/cadc, section 5."""

import pytest
import torch
from factor_helpers import auc, drawn, offsets, planted, sparse

from effrec_cli.models.factors import bpr, explicit_als, rsvd
from effrec_cli.models.factors.bpr import BPR
from effrec_cli.models.factors.explicit_als import ExplicitALS
from effrec_cli.models.factors.rsvd import RandomizedSVD

DOUBLE = {"dtype": torch.float64}
SOLVERS = ["cholesky", "cg", "blocks"]


def swept(model, times=1):
    for _ in range(times):
        model.sweep()
    return model


def decomposed(cells, **more):
    return swept(RandomizedSVD(sparse(cells), **{"dim": 8, **DOUBLE, **more}))


def ratings(cells, seed=2):
    return torch.randint(1, 6, cells.shape, generator=torch.Generator().manual_seed(seed)).double()


def rated(cells, values, sweeps=1, **more):
    settings = {"dim": 6, "reg": 2.0, "block": 2, **DOUBLE, **more}
    return swept(ExplicitALS(sparse(cells, values), **settings), sweeps)


def test_singular_values_are_those_of_the_exact_decomposition():
    """Test 3: within 1 %."""
    _, met = planted()
    cells = met | drawn(*met.shape, share=0.02)
    true = torch.linalg.svdvals(cells.double())[:8]
    found = decomposed(cells, user_exponent=0.0, item_exponent=0.0)
    assert ((found.singular_values - true).abs() < 0.01 * true).all()
    plain = decomposed(cells, user_exponent=0.0, item_exponent=0.0, power_iterations=0, oversampling=0)
    assert not ((plain.singular_values - true).abs() < 0.01 * true).all(), "the power iterations are needed"


@pytest.mark.parametrize(("user", "item"), [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)])
def test_a_whole_decomposition_gives_the_scaled_matrix_back(user, item):
    cells = drawn()
    found = decomposed(cells, dim=40, user_exponent=user, item_exponent=item)
    scale = cells.sum(1).clamp(min=1).double() ** -user
    assert torch.allclose(found.users @ found.items.T, scale[:, None] * cells, atol=1e-8)
    assert found.users.shape[1] == 40
    assert found.users[:, 30:].count_nonzero() == 0


def test_scaled_values_are_those_of_the_scaled_matrix():
    cells = drawn(60, 50).double()
    rows, columns = cells.sum(1).clamp(min=1) ** -0.5, cells.sum(0).clamp(min=1) ** -0.5
    true = torch.linalg.svdvals(rows[:, None] * cells * columns)[:4]
    found = decomposed(cells.bool(), item_exponent=0.5, power_iterations=40).singular_values[:4]
    assert torch.allclose(found, true, rtol=1e-6)


def test_a_training_user_is_folded_into_his_own_vector():
    cells = drawn()
    model = decomposed(cells)
    twice = torch.cat([row.nonzero()[:, 0].repeat(2) for row in cells])
    assert torch.allclose(model.fold_in(offsets(cells) * 2, twice), model.users, atol=1e-10)
    saved = {name: each for name, each in model.state().items() if name != "users"}
    assert torch.equal(rsvd.fold(saved, offsets(cells) * 2, twice), model.fold_in(offsets(cells) * 2, twice))


@pytest.mark.parametrize("kind", ["rsvd", "bpr"])
def test_planted_groups_are_found(kind):
    """Test 3."""
    same, met = planted()
    model = decomposed(met, dim=5) if kind == "rsvd" else swept(BPR(sparse(met), dim=8, lr=0.2), 40)
    assert auc(model.users @ model.items.T, same & ~met, ~same) > 0.99
    columns = met.nonzero()[:, 1]
    assert auc(model.fold_in(offsets(met), columns) @ model.items.T, same & ~met, ~same) > 0.99


def test_vectors_of_who_met_nothing_are_zero():
    """Test 4."""
    model = decomposed(drawn())
    assert model.users[3].count_nonzero() == model.items[5].count_nonzero() == 0
    assert bool(model.users.isfinite().all())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_no_half_sweep_over_ratings_raises_the_objective(solver, exponent):
    """Test 1."""
    cells = drawn(60, 200)
    model = rated(cells, ratings(cells), 0, solver=solver, frequency_exponent=exponent, chunk_bytes=2000)
    before = model.objective()
    for _ in range(5):
        for half in (model.sweep_users, model.sweep_items):
            half()
            assert model.objective() <= before * (1 + 1e-12)
            before = model.objective()


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_the_objective_of_ratings_is_the_definition(exponent):
    """Test 2."""
    cells = drawn()
    values = ratings(cells)
    model = rated(cells, values, 2, frequency_exponent=exponent)
    mean = values[cells].mean()
    total = (values - mean - model.users @ model.items.T)[cells].square().sum()
    for table, degrees, ones in ((model.users, cells.sum(1), -2), (model.items, cells.sum(0), -1)):
        assert (table[:, ones] == 1).all()
        free = table.square().sum(1) - 1
        total += 2.0 * (degrees.double() ** exponent * free)[degrees > 0].sum()
    assert model.objective() == pytest.approx(total.item(), rel=1e-12)


def test_users_and_biases_solve_their_normal_equations():
    """Test 1: to 1e-6, by brute force."""
    cells = drawn()
    values = ratings(cells)
    model = rated(cells, values, 2, solver="cholesky")
    model.sweep_users()
    items, mean = model.items, values[cells].mean()
    for user, row in enumerate(cells):
        inputs = torch.cat([items[row][:, :-2], torch.ones(int(row.sum()), 1).double()], 1)
        targets = values[user][row] - mean - items[row][:, -2]
        true = torch.linalg.solve(inputs.T @ inputs + 2 * torch.eye(5).double(), inputs.T @ targets)
        assert torch.allclose(torch.cat([model.users[user, :-2], model.users[user, -1:]]), true, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_ratings_of_low_rank_that_are_all_seen_are_reconstructed(solver):
    """Test 3: to 1e-4, as the regulariser goes to 0."""
    draw = torch.Generator().manual_seed(4)
    left, right = (torch.randn(size, 4, generator=draw, dtype=torch.float64) for size in (30, 20))
    values = left @ right.T + 3
    model = rated(torch.ones(30, 20, dtype=torch.bool), values, 60, reg=1e-7, solver=solver)
    assert (model.mean + model.users @ model.items.T - values).abs().max() < 1e-4


def test_ratings_are_folded_in_as_users_are_solved():
    cells = drawn()
    values = ratings(cells)
    model = rated(cells, values, 3, solver="cholesky")
    model.sweep_users()
    columns = cells.nonzero()[:, 1]
    found = model.fold_in(offsets(cells), columns, values[cells])
    assert torch.allclose(found, model.users, atol=1e-8)
    liked = model.fold_in(offsets(cells), columns)
    assert torch.allclose(
        liked, model.fold_in(offsets(cells), columns, torch.full_like(values[cells], model.liked))
    )
    assert model.liked == pytest.approx((values[cells].mean() + values[cells].std(correction=0)).item())
    assert torch.equal(explicit_als.fold(model.state(), offsets(cells), columns), liked)


def test_a_draw_that_the_user_has_met_moves_nothing():
    model = BPR(sparse(torch.ones(3, 4, dtype=torch.bool)), dim=4, reg=1e-12)
    before = model.users.clone(), model.items.clone()
    swept(model)
    assert torch.allclose(model.users, before[0], atol=1e-6)
    assert torch.allclose(model.items, before[1], atol=1e-6)


def test_a_step_of_bpr_is_the_gradient_of_its_loss():
    """Each row moves along the sum of its pairs' gradients, as long as the first step of Adagrad is."""
    cells = torch.tensor([[True, False, False], [True, True, False]])
    model = BPR(sparse(cells), dim=3, reg=0.1, lr=0.05, batch_size=100, seed=1, **DOUBLE)
    users, items = model.users.clone().requires_grad_(), model.items.clone().requires_grad_()
    draw = torch.Generator()
    draw.set_state(model._draw.get_state())
    order = torch.randperm(3, generator=draw)
    others = torch.randint(3, (3,), generator=draw)
    loss = 0.0
    for at, other in zip(order.tolist(), others.tolist(), strict=True):
        user, item = cells.nonzero()[at].tolist()
        score = users[user] @ (items[item] - items[other])
        rows = users[user, :-1].square().sum() + items[item].square().sum() + items[other].square().sum()
        loss = loss + 0.05 * rows
        if not cells[user, other]:
            loss = loss - torch.nn.functional.logsigmoid(score)
    loss.backward()
    users.grad[:, -1] = 0
    swept(model)
    for table, drawn_before in ((model.users, users), (model.items, items)):
        slope = -drawn_before.grad
        step = 0.05 * slope / (slope.square().mean(1, keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(table - drawn_before.detach(), step, atol=1e-9)
    assert (model.users[:, -1] == 1).all()


@pytest.mark.parametrize("kind", ["rsvd", "bpr", "explicit_als"])
def test_two_fits_are_equal_bit_for_bit(kind):
    """Test 21."""
    cells = drawn()
    makers = {
        "rsvd": lambda seed: RandomizedSVD(sparse(cells), dim=6, seed=seed),
        "bpr": lambda seed: BPR(sparse(cells), dim=6, seed=seed),
        "explicit_als": lambda seed: ExplicitALS(sparse(cells, ratings(cells).float()), dim=6, seed=seed),
    }
    first, again, other = (swept(makers[kind](seed), 2) for seed in (1, 1, 2))
    assert torch.equal(first.users, again.users)
    assert torch.equal(first.items, again.items)
    assert not torch.equal(first.users, other.users)
    if kind == "bpr":
        columns = cells.nonzero()[:, 1]
        assert torch.equal(
            bpr.fold(first.state(), offsets(cells), columns), first.fold_in(offsets(cells), columns)
        )
