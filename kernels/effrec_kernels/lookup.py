"""The input side of a table spread over ranks: which of its rows a rank holds, and looking rows up."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from .checks import check_table
from .looks import check_numbers
from .meeting import Brought, Slice, meet, meeting_place
from .ranks import Ranks, place
from .rng import MAX_ITEMS
from .values import whole_number, yes_or_no


def vocab_parallel_range(num_items: int, *, group: dist.ProcessGroup | None = None) -> range:
    """Returns the items of this rank where V are dealt out evenly, in rank order: its rows of the table.

    Raises:
        ValueError: there are fewer items than ranks.
    """
    rank, size = place(group)
    num_items = whole_number("num_items", num_items)
    if num_items < size:
        raise ValueError(f"{num_items} items are too few for {size} ranks: each holds one or more")
    return range(num_items * rank // size, num_items * (rank + 1) // size)


@torch.compiler.disable
def vocab_parallel_embedding(
    ids: Tensor,
    local_items: Tensor,
    *,
    num_items: int,
    first_item: int,
    group: dist.ProcessGroup | None = None,
    replicated: bool = False,
) -> Tensor:
    """Returns rows `ids` of a table spread over ranks: each rank looks up what it holds, and they are summed.

    All ranks of the group call it together.

    Args:
        ids: int [...], this rank's, in [0, V); their number may differ between ranks.
        local_items: [V_r, D], the rows of the table from `first_item` on. Its gradient stays on this rank.
        num_items: V.
        first_item: number of this rank's first item. The ranks' slices, in any order, make up [0, V).
        group: the ranks; None is the default group.
        replicated: all ranks bring the same ids, which are compared and not gathered, and the same gradient
            flows back.

    Returns:
        [..., D] in the table's dtype, bit for bit the rows of the whole table.

    Memory: the rows of all ranks' K = sum K_r ids, [K, D], in forward and in backward.

    A rank sends, numbers having c bytes: an all-gather of 48 bytes, which the host waits for, one of 8 K_r
    and a reduce-scatter of K D c; in backward an all-gather of K_r D c. Ranks with fewer ids than others send
    as many. With `replicated`: 48 bytes and an all-reduce of K D c, and nothing in backward.

    Raises:
        ValueError: on all ranks, where slices overlap or leave gaps, or ranks differ in what they pass.
        TypeError: ids are no integers, or the slice is a DTensor.
        IndexError: an id is outside the catalogue (looked for on a CPU; on CUDA with EFFREC_DEBUG=1).
    """

    def bring() -> Brought:
        number = whole_number("num_items", num_items, 1, MAX_ITEMS)
        yes_or_no("replicated", replicated)
        check_table("local_items", local_items)
        check_numbers("ids", ids, number)
        mine = Slice(whole_number("first_item", first_item, 0, MAX_ITEMS), len(local_items))
        if ids.device != local_items.device:
            raise ValueError(f"ids are on {ids.device}, local_items on {local_items.device}")
        wants = torch.is_grad_enabled() and local_items.requires_grad
        compared = (local_items.shape[1:], local_items.dtype, wants)
        same = {"ids": ids} if replicated else {}
        return Brought(number, mine, ids.numel(), 0, replicated, local_items.device, compared, same)

    ranks = meet(group, meeting_place(group, local_items, ids), bring)
    at = ranks.gather(ids.flatten().long()) - first_item
    # Of no ids the width would be anyone's guess.
    return _LookUp.apply(local_items, at, ranks).view(*ids.shape, local_items.shape[1])


class _LookUp(torch.autograd.Function):
    """Rows of a slice by numbers counted from its first, of which many are elsewhere."""

    @staticmethod
    def forward(ctx: Any, items: Tensor, at: Tensor, ranks: Ranks) -> Tensor:
        """Returns own rows [K_r, D]: one rank has each, and the others add zeros."""
        elsewhere = (at < 0) | (at >= len(items))
        at = at.masked_fill(elsewhere, 0)
        ctx.save_for_backward(at, elsewhere)
        ctx.ranks, ctx.num_rows, ctx.dtype = ranks, len(items), items.dtype
        found = items.detach().index_select(0, at).masked_fill_(elsewhere[:, None], 0)
        return ranks.sum_to_owners(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None, None]:
        """Returns the gradient of the slice, [V_r, D]."""
        at, elsewhere = ctx.saved_tensors
        given = ctx.ranks.gather(upstream[0].contiguous()).masked_fill(elsewhere[:, None], 0)
        gradient = torch.ops.aten.embedding_dense_backward(given, at, ctx.num_rows, -1, False)
        return gradient.to(ctx.dtype), None, None
