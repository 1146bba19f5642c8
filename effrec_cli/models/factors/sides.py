"""One side of a factorisation against the other: its rows made ready once, and solved for at each sweep."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from effrec_cli.errors import ConfigError
from effrec_cli.models.factors.conjugate import conjugate
from effrec_cli.models.factors.matrix import Interactions
from effrec_cli.models.factors.packets import Packet, packets
from effrec_cli.models.factors.solvers import Plan, solve
from effrec_cli.models.factors.spans import Span, spans
from effrec_cli.models.factors.workers import single_threaded, spread

CPU_CHUNK_BYTES = 4 << 20
"""Stays in the cache of a core: gathered rows are read at once by the product that needs them."""
CUDA_CHUNK_BYTES = 512 << 20
_TWO_STEPS = 64
"""Dimensions up to which two steps of `cg` lower the objective as much a sweep as an exact solution."""
EXACT_UP_TO = 256
"""On a GPU, dimensions up to which `solver=auto` is `cholesky`."""


def chunk_bytes_for(device: torch.device) -> int:
    """Returns the working memory that suits a device, in bytes."""
    return CUDA_CHUNK_BYTES if device.type == "cuda" else CPU_CHUNK_BYTES


def plan_for(
    solver: str,
    dim: int,
    device: torch.device,
    *,
    block: int,
    cg_steps: int | None,
    chunk_bytes: int | None,
) -> Plan:
    """Returns how rows are solved, `auto` settled: `cg` on a CPU, `cholesky` on a GPU up to `EXACT_UP_TO`.

    Raises:
        ConfigError: no such solver.
    """
    gpu = device.type == "cuda"
    if solver == "auto":
        solver = "cholesky" if gpu and dim <= EXACT_UP_TO else "cg"
    if solver not in ("cholesky", "cg", "blocks"):
        what = f"There is no solver called '{solver}'."
        raise ConfigError(what, where="solver", fix="choose from: auto, cholesky, cg, blocks")
    steps = cg_steps or (2 if dim <= _TWO_STEPS else 3)
    return Plan(solver, block, steps, chunk_bytes or chunk_bytes_for(device))


class Side:
    """The rows of one side.

    Args:
        matrix: their cells; `values` are targets.
        dim: d.
        dtype: of the tables.
        plan: how rows are solved.
    """

    def __init__(self, matrix: Interactions, dim: int, dtype: torch.dtype, plan: Plan) -> None:
        self.plan, self.degrees = plan, matrix.degrees()
        element = dtype.itemsize
        self.spans: list[Span] = []
        self.packets: list[Packet] = []
        if plan.solver == "cg":
            self.spans = spans(matrix, dim, element, plan.chunk_bytes)
        else:
            size = lambda length: plan.row_bytes(length, dim, element)  # noqa: E731
            self.packets = packets(matrix, size, plan.chunk_bytes)

    def solve(
        self,
        own: Tensor,
        other: Tensor,
        ridge: Tensor,
        unobserved_weight: float = 0.0,
        offset: Tensor | None = None,
    ) -> None:
        """Solves for the rows of `own` [N, d] in place.

        Worked on in the axes of the other side's Gramian, in which the weight of all cells is diagonal.

        Args:
            own: where the rows stand.
            other: [M, d], all of the other side.
            ridge: [N], strength of the regulariser of each row.
            unobserved_weight: a0, weight of the other side's Gramian.
            offset: [M], taken off the targets of the cells of each column.

        Raises:
            ConfigError: a system has no solution in this precision: the regulariser is too weak.
        """
        with torch.no_grad(), single_threaded(own.device) as threads:
            wide = other.double()
            spectrum, axes = torch.linalg.eigh(wide.T @ wide)
            spectrum = (unobserved_weight * spectrum.clamp_(min=0)).to(own.dtype)
            turn = _Turn(own, other, ridge, spectrum, axes.to(own.dtype), self)
            turn.offset = None if offset is None else _padded(offset)
            turn.run(threads)
            whole = bool(own.isfinite().all())
        if not whole:
            what = "The normal equations of the factorisation are not positive definite in this precision."
            raise ConfigError(what, where="reg", fix="a larger reg or unobserved_weight")


def exact_side(matrix: Interactions, table: Tensor) -> Side:
    """Returns rows that are solved once, exactly, against `table` [M, d]."""
    plan = plan_for(
        "cholesky", table.shape[1], table.device, block=table.shape[1], cg_steps=1, chunk_bytes=None
    )
    return Side(matrix, table.shape[1], table.dtype, plan)


class _Turn:
    """One solution of a side: the other side's table turned into its axes."""

    def __init__(
        self, own: Tensor, other: Tensor, ridge: Tensor, spectrum: Tensor, axes: Tensor, side: Side
    ) -> None:
        self.own, self.ridge, self.spectrum, self.axes, self.side = own, ridge, spectrum, axes, side
        turned = other @ axes
        self.table = _padded(turned)
        self.offset: Tensor | None = None
        self.squares = self.table.square() if side.spans else None

    def run(self, threads: int) -> None:
        """Solves for all rows."""
        if self.squares is not None:
            spread(self._span, self.side.spans, threads)
        spread(self._packet, self.side.packets, threads)

    def _span(self, span: Span) -> None:
        assert self.squares is not None
        own, plan = self.own[span.rows], self.side.plan
        if self.offset is not None:
            span = replace(span, values=self._targets(span.columns, span.values))
        diagonal = self.ridge[span.rows][:, None] + self.spectrum
        start, steps = own @ self.axes, plan.cg_steps
        found = conjugate(span, self.table, self.squares, diagonal, start, steps, plan.chunk_bytes)
        torch.mm(found, self.axes.T, out=own)

    def _packet(self, packet: Packet) -> None:
        rows = packet.rows
        if self.offset is not None:
            packet = replace(packet, values=self._targets(packet.columns, packet.values))
        diagonal = self.ridge[rows][:, None] + self.spectrum
        found = solve(packet, self.table, diagonal, self.own[rows] @ self.axes, self.side.plan)
        self.own[rows] = found @ self.axes.T

    def _targets(self, columns: Tensor, values: Tensor | None) -> Tensor:
        assert self.offset is not None
        assert values is not None
        return values - self.offset[columns]


def _padded(table: Tensor) -> Tensor:
    """Returns the table with zeros behind it, which padding points at."""
    return torch.cat([table, table.new_zeros(1, *table.shape[1:])])
