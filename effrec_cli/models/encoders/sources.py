"""Where taps of items come from: backbones that run, or arrays in which they were kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.models.encoders.kept_taps import RESIDENCES, KeptTaps, StoredTaps
from effrec_cli.models.encoders.reader import TapReader
from effrec_cli.models.taps import Taps, TapShape

Int64 = NDArray[np.int64]
__all__ = ["RESIDENCES", "BackboneTaps", "CachedTaps", "HostImages", "ItemReader", "StoredTaps"]


class HostImages(nn.Module):
    """Images that stay where they are, such as on the disk; only those asked for are put on the device.

    Args:
        images: uint8 [V, height, width, 3], memory-mapped or not.
    """

    _anchor: Tensor

    def __init__(self, images: NDArray[np.uint8]) -> None:
        super().__init__()
        self.images = images
        self.register_buffer("_anchor", torch.zeros(0), persistent=False)

    def forward(self, items: Tensor, width: int) -> tuple[Tensor, None]:
        """Returns the pixels of items [n], uint8 [n, height, width, 3]; nothing in them is padding."""
        return self.put(self.gather(items.cpu().numpy())), None

    def gather(self, items: Int64) -> Tensor:
        """Returns the pixels of items [n] on the host; may run in a thread of its own."""
        return torch.from_numpy(np.take(self.images, items, axis=0))

    def put(self, pixels: Tensor) -> Tensor:
        """Returns pixels on the device."""
        device = self._anchor.device
        if device.type == "cuda":
            return pixels.pin_memory().to(device, non_blocking=True)
        return pixels.to(device)


class ItemReader(nn.Module):
    """Reads the taps of items by their row numbers.

    Args:
        rows: contents of all items: a `TokenRows`, `ImageRows` or `HostImages`.
        costs: int64 [V], tokens of each item.
        reader: contents to taps.
        batch_tokens: padded tokens that are read at once; an item that has more is read alone.

    Attributes:
        costs: as above.
    """

    def __init__(self, rows: nn.Module, costs: Int64, reader: TapReader, batch_tokens: int) -> None:
        super().__init__()
        self.rows, self.costs, self.reader, self.batch_tokens = rows, costs, reader, batch_tokens

    @property
    def dim(self) -> int:
        """Width D of a tap."""
        return self.reader.dim

    @property
    def taps(self) -> tuple[int, ...]:
        """The hidden states that are read."""
        return self.reader.taps

    @property
    def leads(self) -> bool:
        """Whether the first tap is the same for all items, if all begin with one token."""
        return self.reader.leads

    def chunks(self, items: Int64) -> Iterator[Int64]:
        """Yields items [n], longest first, as many at once as `batch_tokens` allows."""
        return (items[places] for places in self._places(items))

    def _places(self, items: Int64) -> Iterator[Int64]:
        """Yields where the items of each chunk stand in `items`."""
        order = np.argsort(-self.costs[items], kind="stable")
        first = 0
        while first < len(order):
            longest = max(1, int(self.costs[items[order[first]]]))
            last = first + max(1, self.batch_tokens // longest)
            yield order[first:last]
            first = last

    def load(self, items: Int64) -> Any:
        """Returns what reading the items needs from the host; may run in a thread of its own."""
        return items, self.rows.gather(items) if isinstance(self.rows, HostImages) else None

    def read(self, loaded: Any) -> Tensor:
        """Returns the taps, at least float32 [n, T, D], of items that were loaded, without gradients."""
        items, pixels = loaded
        if pixels is not None:
            assert isinstance(self.rows, HostImages)
            return self.reader.read(self.rows.put(pixels), None)
        at = torch.from_numpy(items).to(self.reader.device)
        return self.reader.read(*self.rows(at, int(self.costs[items].max())))

    def forward(self, items: Tensor) -> Tensor:
        """Returns the taps, at least float32 [n, T, D], of items int64 [n], without gradients."""
        chosen = items.cpu().numpy()
        places = list(self._places(chosen))
        if not places:
            return torch.zeros(0, len(self.taps), self.dim, device=items.device)
        found = torch.cat([self.read(self.load(chosen[at])) for at in places])
        back = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
        return found.index_select(0, back.to(found.device))


class BackboneTaps(nn.Module):
    """Taps of items from backbones that run at every call.

    A call waits for the device once, to learn how long the items are.

    Args:
        text: reads texts, or None where there are none.
        image: reads images, or None.
        backbones: by modality, JSON-able facts of its backbone.

    Attributes:
        backbones: as above.
    """

    def __init__(
        self,
        text: ItemReader | None,
        image: ItemReader | None,
        backbones: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbones = backbones or {}
        self.text, self.image = text, image

    @property
    def shape(self) -> TapShape:
        """What a side network must know of the taps."""
        return _shape(self.text, self.image)

    def prepare(self) -> None:
        """Does nothing; kept sources get ready here."""

    def forward(self, items: Tensor) -> Taps:
        """Returns the taps of items int64 [n], without gradients; each is at least float32 [n, D]."""
        return Taps(*(() if each is None else each(items).unbind(1) for each in (self.text, self.image)))


class CachedTaps(nn.Module):
    """Taps of items from arrays in which they were kept; no backbone is needed.

    Args:
        text: what was kept of the texts, or None.
        image: what was kept of the images, or None.
        residence: where the arrays stay: `device`, `ram` of the host, `disk` (memory-mapped), or `auto`: the
            first of these of whose free memory they take up no more than a quarter.
        free_bytes: the memory that may be taken on a device.
        say: receives a line about where they are.
        backbones: by modality, JSON-able facts of the backbone that gave them.

    Attributes:
        backbones: as above.
        resident: where the arrays are; None before `prepare`.
    """

    def __init__(
        self,
        text: StoredTaps | None,
        image: StoredTaps | None,
        *,
        residence: str,
        free_bytes: Callable[[torch.device], int],
        say: Callable[[str], None],
        backbones: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbones = backbones or {}
        self.text, self.image = (None if kept is None else KeptTaps(kept) for kept in (text, image))
        self._residence, self._free_bytes, self._say = residence, free_bytes, say
        self.resident: str | None = None

    @property
    def shape(self) -> TapShape:
        """What a side network must know of the taps."""
        return _shape(self.text, self.image)

    def prepare(self) -> None:
        """Puts the arrays where they stay, once, by the device that the module is on by now."""
        if self.resident is not None:
            return
        parts = [part for part in (self.text, self.image) if part is not None]
        size = sum(part.nbytes for part in parts)
        self.resident = self._residence
        if self._residence == "auto":
            self.resident = self._fitting(size, parts[0].device)
        for part in parts:
            part.settle(self.resident)
        self._say(f"Kept taps: {size >> 20:,} MiB, {_PLACES[self.resident]}.")

    def _fitting(self, size: int, device: torch.device) -> str:
        for place, where in (("device", device), ("ram", torch.device("cpu"))):
            if size <= _FREE_SHARE * self._free_bytes(where):
                return place
        return "disk"

    def forward(self, items: Tensor) -> Taps:
        """Returns the taps of items int64 [n] on the device; waits for it unless they are resident there.

        Each is float32 [n, D] (float64 once the module was put to that), or [1, D] where all items have the
        same.
        """
        self.prepare()
        return Taps(*(() if each is None else each(items) for each in (self.text, self.image)))


_FREE_SHARE = 0.25
_PLACES = {
    "device": "on the device",
    "ram": "in the host's memory",
    "disk": "read from the disk as they are asked for",
}


def _shape(text: Any, image: Any) -> TapShape:
    return TapShape(*(value for each in (text, image) for value in _sizes(each)))


def _sizes(source: Any) -> tuple[int, int]:
    """Returns width and number of a source's taps, zeros where there is none."""
    return (0, 0) if source is None else (source.dim, len(source.taps))
