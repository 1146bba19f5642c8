"""LightGCN: vectors of ids, averaged over the neighbours that training rows give them (He et al. 2020)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from effrec_cli.models.bpr_mf import BPRMF
from effrec_cli.models.pairs import PairModel, Parts
from effrec_cli.models.sparse.tables import IdTable
from effrec_cli.models.sparse.whole import whole


@dataclass(frozen=True)
class Graph:
    """Users and items who met in training, as a symmetric matrix S [U + V, U + V] in CSR form.

    S_ui = 1 / sqrt(d_u d_i) where they met, with d how many others each has met (equation 7).

    Attributes:
        starts: int32 [U + V + 1], where each row begins; int64 from 2^31 numbers on.
        columns: alike [E], which columns each row has; users first, then items.
        values: float32 [E].
    """

    starts: Tensor
    columns: Tensor
    values: Tensor


@torch.library.custom_op("effrec::propagate", mutates_args=())
def propagate(starts: Tensor, columns: Tensor, values: Tensor, table: Tensor, num_layers: int) -> Tensor:
    """Returns (T + S T + ... + S^l T) / (l + 1), float32 [N, d] (equations 7 and 8).

    S is symmetric, so the gradient of T is the same sum over that of the result: nothing is kept for it.

    Args:
        starts: of S, as of `Graph`.
        columns: likewise.
        values: likewise.
        table: T, float32 [N, d].
        num_layers: l.
    """
    matrix = _matrix(starts, columns, values)
    with torch.autocast(table.device.type, enabled=False):
        layer, total = table.contiguous(), table.clone(memory_format=torch.contiguous_format)
        for _ in range(num_layers):
            layer = matrix @ layer
            total += layer
        return total.div_(num_layers + 1)


def _matrix(starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    size = len(starts) - 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, (size, size), check_invariants=False)


@propagate.register_fake
def _(starts: Tensor, columns: Tensor, values: Tensor, table: Tensor, num_layers: int) -> Tensor:
    return torch.empty_like(table, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *graph, _, ctx.num_layers = inputs
    ctx.save_for_backward(*graph)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return None, None, None, propagate(*ctx.saved_tensors, gradient, ctx.num_layers), None


propagate.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.effrec.propagate)
def _flops(
    starts: torch.Size, columns: torch.Size, values: torch.Size, table: torch.Size, num_layers: int, **_: Any
) -> int:
    return 2 * num_layers * values[0] * table[1]


class LightGCN(PairModel):
    """score = <p_u, q_i> of vectors propagated over the graph (He et al. 2020, section 3).

    What trains are the vectors before. One propagation gives those of all users and items together.

    Args:
        users: vectors of users' ids.
        items: vectors of items' ids, as wide.
        graph: whom a vector is spread to; None where the tables hold propagated vectors, as a run keeps them.
        num_layers: l, how far.
    """

    has_vectors: ClassVar[bool] = True
    starts: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, users: IdTable, items: IdTable, graph: Graph | None, *, num_layers: int) -> None:
        super().__init__()
        self.users, self.items = users, items  # type: ignore[assignment]  # the base names another table
        self.num_layers = num_layers
        for name in ("starts", "columns", "values"):
            self.register_buffer(name, getattr(graph, name, None), persistent=False)

    def before_and_after(self) -> tuple[BPRMF, BPRMF]:
        """Returns matrix factorisations by the vectors that train, and by those after one propagation."""
        tables = whole(self.users), whole(self.items)
        return _product(*tables), _product(*self.spread(*tables))

    def spread(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Returns propagated vectors [U, d] and [V, d] of tables like them."""
        joined = torch.cat([users, items])
        found = propagate(self.starts, self.columns, self.values, joined, self.num_layers)
        after_users, after_items = found.split([len(users), len(items)])
        return after_users, after_items

    def multiply_adds(self, live: Tensor) -> dict[str, int]:
        """Returns what a propagation takes, in multiply-adds, and what one `of` dense tables would.

        The first round alone reads the tables: what it makes are sums over neighbours, and dense
        (papers/dsl section 3.1).

        Args:
            live: int64 [U + V], how many numbers of each row are not masked, users first.
        """
        of_round, first = len(self.columns) * self.users.width, int(live[self.columns.long()].sum())
        later = (self.num_layers - 1) * of_round
        return {"multiply_adds": first + later, "of": of_round + later}

    def user_parts(self, users: Tensor, folded: Tensor | None = None) -> Parts:
        """Returns the users' propagated vectors; each call propagates."""
        return self.before_and_after()[1].user_parts(users, folded)

    def item_parts(self, items: Tensor) -> Parts:
        """Returns the items' propagated vectors; each call propagates."""
        return self.before_and_after()[1].item_parts(items)

    def combine(self, users: Parts, items: Parts) -> Tensor:
        """Returns the products of vectors, [B, C]."""
        return torch.einsum("bd,bcd->bc", users[0], items[0].expand(len(users[0]), -1, -1))


class _Rows:
    """Reads rows of a tensor [N, d] as a table of ids does."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def __call__(self, rows: Tensor, folded: Tensor | None = None) -> Tensor:
        return F.embedding(rows, self.vectors)


def _product(users: Tensor, items: Tensor) -> BPRMF:
    return BPRMF(_Rows(users), _Rows(items))
