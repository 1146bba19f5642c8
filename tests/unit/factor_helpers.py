"""Small matrices and the objectives of factorisations, written out cell by cell."""

import torch

from effrec_cli.models.factors.matrix import Interactions


def drawn(rows=30, columns=40, share=0.2, seed=0):
    """Returns a bool matrix with an empty row, an empty column, a full row and a full column."""
    cells = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < share
    cells[7], cells[:, 9] = True, True
    cells[3], cells[:, 5] = False, False
    return cells


def sparse(cells, values=None):
    """Returns a bool matrix, and values float [U, V], as `Interactions`."""
    columns = cells.nonzero()[:, 1].int()
    return Interactions(offsets(cells), columns, cells.shape[1], None if values is None else values[cells])


def offsets(cells):
    return torch.cat([torch.zeros(1, dtype=torch.int64), cells.sum(1).cumsum(0)])


def planted(groups=5, users=12, items=10, share=0.5, seed=1):
    """Returns which group users and items are of, and who met what: half of his group's items."""
    user_group = torch.arange(groups).repeat_interleave(users)
    item_group = torch.arange(groups).repeat_interleave(items)
    same = user_group[:, None] == item_group
    met = same & (torch.rand(same.shape, generator=torch.Generator().manual_seed(seed)) < share)
    return same, met


def auc(scores, positive, negative):
    """Returns the share of pairs (a cell of `positive`, one of `negative`) that scores order rightly."""
    high, low = scores[positive], scores[negative]
    return (high[:, None] > low).double().mean().item()


def implicit_objective(cells, users, items, reg, weight, exponent):
    """Returns the objective of IALS, by loops over all cells."""
    total = 0.0
    for u, row in enumerate(cells):
        for i, met in enumerate(row):
            score = float(users[u] @ items[i])
            total += weight * score**2 + ((1 - score) ** 2 if met else 0.0)
    for table, degrees, others in ((users, cells.sum(1), len(items)), (items, cells.sum(0), len(users))):
        for vector, degree in zip(table, degrees.tolist(), strict=True):
            total += reg * (degree + weight * others) ** exponent * float(vector @ vector)
    return total


def normal_equations(cells, items, reg, weight, exponent):
    """Returns the users' solutions against `items`, each from its own system."""
    found = torch.zeros(len(cells), items.shape[1], dtype=items.dtype)
    for u, row in enumerate(cells):
        own = items[row]
        ridge = reg * (float(row.sum()) + weight * len(items)) ** exponent
        matrix = own.T @ own + weight * items.T @ items + ridge * torch.eye(items.shape[1], dtype=items.dtype)
        found[u] = torch.linalg.solve(matrix, own.sum(0))
    return found
