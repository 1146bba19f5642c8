"""Item vectors from taps by a side network: the method's own way, whatever gives the taps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.models.side.network import SideNetwork
from effrec_cli.models.taps import Taps

BUCKET = 64
"""A compiled side network sees numbers of items that are multiples of this: few graphs."""


class SideItemEncoder(nn.Module):
    """Encodes items by their row numbers, from taps of frozen backbones or of a cache.

    Args:
        source: gives `Taps` of item rows int64 [n] on the device.
        side: taps to vectors.
        num_items: V.
        compiled: run the side network through `torch.compile`.

    Attributes:
        dim: width d of the vectors.
        costs: int64 [V] of ones: to a side network an item is a row, however long its text.
        keeps: always False: what is kept is the source's, and the same for all ranks and runs.
        kept: always None.
    """

    kept = None

    def __init__(self, source: Any, side: SideNetwork, num_items: int, *, compiled: bool = False) -> None:
        super().__init__()
        self.source, self.side = source, side
        self.dim, self.keeps = side.dim, False
        self.costs: NDArray[np.int64] = np.ones(num_items, dtype=np.int64)
        # Of the method: a compiled module would be one of this one's, and its weights twice in the state.
        self._compiled = torch.compile(side.forward) if compiled else None

    def forward(self, items: Tensor, width: int) -> Tensor:
        """Returns the items' vectors, float32 [n, d] (float64 where the weights are).

        Args:
            items: int64 [n] on the device.
            width: for encoders that pad tokens; it changes nothing.
        """
        if self._compiled is None:
            return self.side(self.source(items))
        count = len(items)
        filled = torch.nn.functional.pad(items, (0, -count % BUCKET))
        vectors: Tensor = self._compiled(_of_any_number(_whole(self.source(filled), len(filled))))
        return vectors[:count]

    def prepare(self) -> None:
        """Puts a cache where it stays."""
        self.source.prepare()

    def may_keep(self) -> bool:
        """Returns False: nothing of this run's own is kept between steps."""
        return False

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns what trains: `side`, its blocks, gates and width transformation, and `head`."""
        head = list(self.side.heads.parameters())
        own = {id(each) for each in head}
        return {"side": [each for each in self.side.parameters() if id(each) not in own], "head": head}


def _whole(taps: Taps, count: int) -> Taps:
    """Returns taps with a row for each item, so that a graph is not made anew where all share one."""
    return Taps(*(tuple(tap.expand(count, -1) for tap in each) for each in (taps.text, taps.image)))


def _of_any_number(taps: Taps) -> Taps:
    """Returns taps, marked so that the first graph made is one for any number of items."""
    from torch._dynamo import maybe_mark_dynamic  # takes seconds, and few runs compile

    for tap in (*taps.text, *taps.image):
        maybe_mark_dynamic(tap, 0)
    return taps
