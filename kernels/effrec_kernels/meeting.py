"""How ranks come to a call: each says what it brings, and all refuse it where one of them would.

A rank that left before the others have heard of it would leave them waiting for it, so all that can be wrong
with one rank's arguments is found inside `Brought`'s making, and told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .checksum import checksum
from .ranks import Ranks, gather_into, place

# The numbers that ranks tell each other; one that refuses its arguments tells _REFUSED in place of each.
_FIRST, _COUNT, _ROWS, _BOUNDARIES, _OPTIONS, _VALUES = range(6)
_REFUSED = -1


@dataclass(frozen=True)
class Slice:
    """The items of one rank.

    Attributes:
        first: number of the first in the catalogue.
        count: how many there are.
    """

    first: int
    count: int


@dataclass(frozen=True)
class Brought:
    """What a rank comes to a call with, its own arguments found right.

    Attributes:
        num_items: V.
        mine: this rank's items.
        rows: how many rows it brings.
        boundaries: how many boundaries of sequences.
        replicated: whether all ranks bring the same rows.
        device: where its tensors are.
        options: what must be the same on all ranks; its `repr` is compared.
        same: tensors by name that must be: dtypes, shapes and a checksum of their bits are compared.
    """

    num_items: int
    mine: Slice
    rows: int
    boundaries: int
    replicated: bool
    device: torch.device
    options: Any
    same: Mapping[str, Tensor]

    def numbers(self) -> list[int]:
        """Returns what it tells the others, but for what only the device knows."""
        described = {name: (one.dtype, one.shape, one.device.type) for name, one in self.same.items()}
        compared = repr((self.num_items, self.replicated, self.options, described)).encode()
        options = int.from_bytes(hashlib.blake2b(compared, digest_size=8).digest(), "big", signed=True)
        return [self.mine.first, self.mine.count, self.rows, self.boundaries, options, 0]

    def told(self, device: torch.device) -> Tensor:
        """Returns `numbers` and the checksum, int64 [6] on `device`."""
        if self.device != device:
            raise ValueError(f"tensors are on {self.device}, but the group's ranks meet on {device}")
        told = torch.tensor(self.numbers(), dtype=torch.int64, device=device)
        told[_VALUES:] = checksum(list(self.same.values()), device)
        return told


def meet(group: dist.ProcessGroup | None, device: torch.device, bring: Callable[[], Brought]) -> Ranks:
    """Returns the ranks, once each has been heard: one all-gather of 48 bytes, read on the host.

    Args:
        group: None is the default one.
        device: where ranks meet (`meeting_place`).
        bring: returns what this rank brings, or raises where its arguments are wrong.

    Raises:
        ValueError: on every rank, where arguments do not fit together, or slices do not make up the
            catalogue. A rank whose own arguments are wrong raises what is wrong with them.
    """
    rank, size = place(group)
    brought, everyone = _heard(group, size, device, bring)
    _check_agreement(everyone, brought)
    check_slices([Slice(one[_FIRST], one[_COUNT]) for one in everyone], brought.num_items)
    rows, boundaries = (tuple(one[at] for one in everyone) for at in (_ROWS, _BOUNDARIES))
    return Ranks(group, rank, size, rows, boundaries, brought.replicated)


def _heard(
    group: dist.ProcessGroup | None, size: int, device: torch.device, bring: Callable[[], Brought]
) -> tuple[Brought, list[list[int]]]:
    """Returns what this rank brings and the numbers that each tells; raises own faults once all know."""
    fault = None
    try:
        brought = bring()
        if size == 1:
            return brought, [brought.numbers()]
        told = brought.told(device)
    except Exception as found:
        if size == 1:
            raise
        fault = found
        told = torch.full((_VALUES + 1,), _REFUSED, dtype=torch.int64, device=device)
    gathered = told.new_empty(size * len(told))
    gather_into(gathered, told, group)
    everyone = gathered.view(size, -1).tolist()
    if fault is not None:
        raise fault
    return brought, everyone


def meeting_place(group: dist.ProcessGroup | None, *tensors: Any) -> torch.device:
    """Returns the device on which a rank tells the others, whatever is wrong with its tensors.

    One forgotten on the CPU must not make a rank wait there, while others meet on their GPUs.
    """
    devices = [tensor.device for tensor in tensors if isinstance(tensor, Tensor)]
    away = [device for device in devices if device.type not in ("cpu", "meta")]
    if away:
        return away[0]
    if dist.is_available() and dist.is_initialized() and dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _check_agreement(everyone: Sequence[Sequence[int]], brought: Brought) -> None:
    """Raises ValueError where a rank refused its arguments, or has others than rank 0."""
    for rank, one in enumerate(everyone):
        if one[_FIRST] == _REFUSED:
            raise ValueError(f"rank {rank} was given arguments that it refuses; its own error says which")
    first = everyone[0]
    for rank, one in enumerate(everyone):
        if brought.replicated and one[_ROWS] != first[_ROWS]:
            raise ValueError(
                f"with replicated=True all ranks bring the same rows, but rank 0 brings {first[_ROWS]} and "
                f"rank {rank} brings {one[_ROWS]}"
            )
        if one[_OPTIONS] != first[_OPTIONS]:
            raise ValueError(
                f"ranks 0 and {rank} were given different options: all but rows, their weights and the slice "
                "must be the same on every rank: dtypes, seed, step, a row_offset that is a number, and what "
                "wants a gradient"
            )
        if one[_VALUES] != first[_VALUES]:
            raise ValueError(
                f"ranks 0 and {rank} were given different values: every rank must bring the same "
                f"{', '.join(brought.same)}"
            )


def check_slices(slices: Sequence[Slice], num_items: int) -> None:
    """Raises ValueError unless the ranks' slices make up the catalogue, each item on one rank."""
    end = 0
    for first, count, rank in sorted((one.first, one.count, rank) for rank, one in enumerate(slices)):
        if first < end:
            raise ValueError(
                f"{_named(first, min(end, first + count))} are on rank {rank} and on another one"
            )
        if first > end:
            raise ValueError(f"{_named(end, first)} are on no rank")
        end = first + count
    if end != num_items:
        what = "are on no rank" if end < num_items else f"are beyond the catalogue of {num_items}"
        raise ValueError(f"{_named(*sorted((end, num_items)))} {what}")


def _named(first: int, after: int) -> str:
    return f"items {first} to {after - 1}"
