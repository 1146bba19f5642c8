"""Taps of one modality that were kept: on the device, in the host's memory, or on the disk."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

RESIDENCES = ("auto", "device", "ram", "disk")
_TYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
# Codes are held as integers of the same width: moving a module to another type of float leaves them alone.
_HELD: dict[int, type[np.signedinteger[Any]]] = {1: np.int8, 2: np.int16, 4: np.int32}
_BLOCK_BYTES = 64 << 20


class StoredTaps(Protocol):
    """What was kept of V items' taps, T of each: C that all items have in common, and T' that differ."""

    @property
    def rows(self) -> NDArray[Any]:
        """Codes [V, T', D] of the taps that differ, lowest first."""

    @property
    def scales(self) -> NDArray[np.float32] | None:
        """Float32 [V, T'], by which codes are multiplied; None leaves them as they are."""

    @property
    def constant(self) -> NDArray[np.float32]:
        """Float32 [C, D], the taps that all items have in common."""

    @property
    def constant_taps(self) -> tuple[int, ...]:
        """Where these stand among all T."""

    @property
    def taps(self) -> tuple[int, ...]:
        """The hidden states that the T taps are."""

    @property
    def dtype(self) -> str:
        """What codes are: fp32, fp16, bf16, int8 or fp8."""


class KeptTaps(nn.Module):
    """Gives the taps of items from what was kept; nothing of it is part of a model's state.

    Args:
        stored: the arrays.

    Attributes:
        dim: width D.
        taps: the hidden states that the taps are.
        nbytes: of all arrays.
    """

    constant: Tensor

    def __init__(self, stored: StoredTaps) -> None:
        super().__init__()
        held = _HELD[stored.rows.dtype.itemsize]
        # A view that is no memory map by type: a copy of this module would read a whole one.
        self._rows = np.asarray(stored.rows).view(held)
        self._scales = stored.scales
        self._type = _TYPES[stored.dtype]
        self._constant_taps = stored.constant_taps
        self.dim, self.taps = int(stored.rows.shape[2]), stored.taps
        self.nbytes = stored.rows.nbytes + (0 if stored.scales is None else stored.scales.nbytes)
        self.register_buffer("constant", torch.from_numpy(np.array(stored.constant)), persistent=False)
        self.register_buffer("codes", None, persistent=False)
        self.register_buffer("scales", None, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where taps are given."""
        return self.constant.device

    def settle(self, place: str) -> None:
        """Puts the arrays on the device (`device`), into memory (`ram`), or leaves them (`disk`)."""
        if place == "device":
            self.codes = _moved(self._rows, self.device)
            if self._scales is not None:
                self.scales = _moved(self._scales.view(np.int32), self.device)
        elif place == "ram":
            self._rows = np.array(self._rows)
            self._scales = None if self._scales is None else np.array(self._scales)

    def forward(self, items: Tensor) -> tuple[Tensor, ...]:
        """Returns each tap of items int64 [n], [n, D], or [1, D] where all items have the same."""
        values = iter(self._decoded(items).unbind(1))
        constant = iter(self.constant.unsqueeze(1))
        return tuple(
            next(constant if place in self._constant_taps else values) for place in range(len(self.taps))
        )

    def _decoded(self, items: Tensor) -> Tensor:
        """Returns the taps [n, T', D] that differ between items."""
        codes, scales = self._codes_of(items)
        values = codes.view(self._type).to(self.constant.dtype)
        return values if scales is None else values * scales.view(torch.float32)[..., None]

    def _codes_of(self, items: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.codes is not None:
            held = self.scales
            return self.codes.index_select(0, items), None if held is None else held.index_select(0, items)
        chosen = items.cpu().numpy()
        scales = None if self._scales is None else self._scales.view(np.int32)
        return self._taken(self._rows, chosen), None if scales is None else self._taken(scales, chosen)

    def _taken(self, array: NDArray[Any], items: NDArray[np.int64]) -> Tensor:
        taken = torch.from_numpy(np.take(array, items, axis=0))
        if self.device.type == "cuda":
            return taken.pin_memory().to(self.device, non_blocking=True)
        return taken.to(self.device)


def _moved(array: NDArray[Any], device: torch.device) -> Tensor:
    """Returns an array on a device, of which the host never holds more than a block twice."""
    made = torch.empty(array.shape, dtype=torch.from_numpy(np.zeros(0, array.dtype)).dtype, device=device)
    step = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for first in range(0, len(array), step):
        made[first : first + step].copy_(torch.from_numpy(np.array(array[first : first + step])))
    return made
