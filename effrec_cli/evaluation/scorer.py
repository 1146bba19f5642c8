"""What anything that ranks the catalogue looks like to the protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Histories:
    """The items that each of B users has met, oldest first, in CSR form.

    Attributes:
        items: int64 [total] item row numbers.
        offsets: int64 [B + 1].
    """

    items: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def to(self, device: torch.device) -> Histories:
        """Returns a copy on `device`."""
        return Histories(self.items.to(device), self.offsets.to(device))

    def last(self, length: int) -> tuple[Tensor, Tensor]:
        """Returns each history's last `length` items, left-aligned and padded with 0.

        Returns:
            ids int64 [B, length] and lengths int64 [B].
        """
        full = self.offsets[1:] - self.offsets[:-1]
        lengths = full.clamp(max=length)
        start = self.offsets[1:] - lengths
        column = torch.arange(length, device=self.items.device)
        inside = column < lengths[:, None]
        index = torch.where(inside, start[:, None] + column, 0)
        source = self.items if len(self.items) else self.items.new_zeros(1)
        return torch.where(inside, source[index], 0), lengths


class Scorer(Protocol):
    """Scores users against the whole catalogue, a block of users at a time.

    Attributes:
        num_items: V, the size of the catalogue.
        device: where scores are computed.
    """

    num_items: int
    device: torch.device

    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns scores float [B, num_items]; a higher score ranks first. The caller may overwrite them.

        Args:
            users: int64 [B] user row numbers (-1 for a user that training never saw).
            histories: their items, on `device`.
        """
        ...
