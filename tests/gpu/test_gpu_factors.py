"""Factorisations on a GPU: what a CPU finds, in bounded memory. Numbers: papers/cadc, section 5."""

import pytest
import torch

from effrec_cli.models.factors.bpr import BPR
from effrec_cli.models.factors.explicit_als import ExplicitALS
from effrec_cli.models.factors.ials import IALS
from effrec_cli.models.factors.matrix import Interactions
from effrec_cli.models.factors.rsvd import RandomizedSVD

pytestmark = pytest.mark.gpu

SOLVERS = ["cholesky", "cg", "blocks"]
CHUNK = 1 << 20


def cells(rows=400, columns=3000, share=0.03):
    """Rows of 0 to 3000 cells."""
    draw = torch.Generator().manual_seed(1)
    met = torch.rand(rows, columns, generator=draw) < share * torch.rand(rows, 1, generator=draw) * 2
    met[5], met[:, 9], met[3], met[:, 6] = True, True, False, False
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), met.sum(1).cumsum(0)])
    values = torch.randint(1, 6, (int(offsets[-1]),), generator=draw).float()
    return Interactions(offsets, met.nonzero()[:, 1].int(), columns, values)


def relative(found, true):
    return float((found.cpu().double() - true.double()).norm() / true.double().norm())


def both(gpu, make, sweeps=2):
    """Returns the same factorisation there and here."""
    models = [make(cells().to(device)) for device in (gpu, "cpu")]
    for model in models:
        for _ in range(sweeps):
            model.sweep()
    return models


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("chunk_bytes", [None, CHUNK])
@pytest.mark.parametrize("kind", [IALS, ExplicitALS])
def test_least_squares_are_those_of_a_cpu(gpu, kind, solver, chunk_bytes):
    """Test 4: to 1e-4, by scores; exact solvers also by vectors."""
    make = lambda matrix: kind(matrix, dim=32, solver=solver, chunk_bytes=chunk_bytes)  # noqa: E731
    there, here = both(gpu, make)
    assert relative(there.users @ there.items.T, here.users @ here.items.T) < 1e-4
    assert there.users[3, :-2].count_nonzero() == 0
    assert there.objective() == pytest.approx(here.objective(), rel=1e-5)
    matrix = cells()
    found = there.fold_in(matrix.offsets.to(gpu), matrix.columns.to(gpu))
    assert relative(found, here.fold_in(matrix.offsets, matrix.columns)) < 1e-3


def test_a_decomposition_is_that_of_a_cpu(gpu):
    """Test 4: singular values, and scores."""
    there, here = both(gpu, lambda matrix: RandomizedSVD(matrix, dim=16), sweeps=1)
    assert relative(there.singular_values, here.singular_values) < 1e-4
    assert relative(there.users @ there.items.T, here.users @ here.items.T) < 1e-3


def test_steps_of_bpr_are_those_of_a_cpu(gpu):
    """Test 4: the draws are made on the CPU, so that the same pairs are seen."""
    there, here = both(gpu, lambda matrix: BPR(matrix, dim=16), sweeps=1)
    assert relative(there.users, here.users) < 1e-3
    assert relative(there.items, here.items) < 1e-3


def test_a_sweep_works_in_the_memory_that_it_is_given(gpu):
    """No matrices of all rows at once: 20,000 x 64 x 64 would be 328 MB."""
    draw = torch.Generator().manual_seed(2)
    columns = torch.randint(5000, (20_000 * 40,), generator=draw, dtype=torch.int32)
    matrix = Interactions.distinct(torch.arange(0, 20_000 * 40 + 1, 40), columns, 5000).to(gpu)
    model = IALS(matrix, dim=64, solver="cholesky", chunk_bytes=16 << 20)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model.sweep()
    assert torch.cuda.max_memory_allocated() - before < 4 * (16 << 20) + 5 * model.users.nbytes
