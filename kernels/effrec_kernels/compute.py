"""The loop over chunks of rows: losses, and their gradients where asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from . import chunks
from .full import Full
from .groups import rows_of_groups
from .objectives import Results, Upstream
from .parts import Part, Sums
from .picked import Dense, Gathered
from .problem import Problem
from .shared import Shared


class Route(Protocol):
    """A way from rows to losses."""

    def chunks(self, rows: Tensor) -> Iterable[Tensor]:
        """Yields the positions `rows` in the pieces that are to be computed together."""
        ...

    def __call__(self, part: Part, sums: Sums) -> Results:
        """Returns loss and log-sum-exp [m] of a piece, and adds its gradients to `sums`."""
        ...


def compute(problem: Problem, upstream: Upstream | None, sums: Sums) -> Results:
    """Returns loss and log-sum-exp [M] of all rows, or what the objective has in their place.

    They are zero where there is no target.

    Args:
        problem: what to compute.
        upstream: what flows back into each row; None for values alone.
        sums: where gradients are added; zeros on entry.
    """
    zeros = torch.zeros(len(problem.targets), dtype=problem.accumulate_dtype, device=problem.hidden.device)
    results = tuple(zeros.clone() for _ in range(3 if problem.objective == "apart" else 2))
    rows = _rows_to_visit(problem)
    if len(rows) == 0:
        return results
    # Autocast would round inside products whose operands and sums were chosen here.
    with torch.autocast(problem.hidden.device.type, enabled=False):
        route = choose_route(problem)
        for at in route.chunks(rows):
            valid = problem.targets.index_select(0, at) != problem.ignore_index
            found = route(_part(problem, at, valid, upstream), sums)
            for whole, piece in zip(results, found, strict=True):
                whole.index_copy_(0, at, piece.masked_fill_(~valid, 0))
    return results


def choose_route(problem: Problem) -> Route:
    """Returns the cheapest route for the problem."""
    if problem.num_negatives == 0:
        return Full(problem)
    many = rows_of_groups(problem) >= chunks.FEW_SHARED_ROWS
    if problem.sharing != "row" and (many or problem.sparse):
        return Shared(problem)
    # Where a row draws an item twice, the dense way adds up in no fixed order on a GPU.
    ordered = problem.deterministic and not problem.hidden.is_cpu
    if not ordered and chunks.dense_is_cheaper(
        problem.num_items, problem.num_negatives, problem.hidden.device
    ):
        return Dense(problem)
    return Gathered(problem)


def _rows_to_visit(problem: Problem) -> Tensor:
    """Returns the positions of rows to compute: those with a target, or all where counting would sync."""
    if problem.targets.device.type == "cpu":
        return problem.has_target.nonzero().squeeze(1)
    return torch.arange(len(problem.targets), device=problem.targets.device)


def _part(problem: Problem, at: Tensor, valid: Tensor, upstream: Upstream | None) -> Part:
    """Returns the chunk at positions `at`; rows without loss are blanked, so that nothing in them leaks.

    Products are divided by the temperature, so what flows back into them is, too.
    """
    hidden = problem.working(problem.hidden.index_select(0, at))
    targets = problem.targets.index_select(0, at).masked_fill_(~valid, 0)
    positives = targets.masked_fill(targets == len(problem.items), 0) if problem.is_slice else targets
    return Part(
        at=at,
        targets=targets,
        positives=positives,
        hidden=hidden.masked_fill(~valid[:, None], 0),
        upstream=None if upstream is None else upstream.take(at, valid) / problem.temperature,
    )
