"""Features as they are kept: in full, in 16 bits, or in 8 with a scale for each item and tap."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
"""What a kept value may be, by the name of the setting."""
STORED = {"fp32": "<f4", "fp16": "<f2", "bf16": "<u2", "int8": "i1", "fp8": "u1"}
"""What its bits are in an array on the disk, for which numpy has no name of some of these."""
_HELD = {1: torch.int8, 2: torch.int16, 4: torch.int32}
_LARGEST = {"int8": 127.0, "fp8": 448.0}


@dataclass(frozen=True)
class Coded:
    """Features of n items as they are kept, on any device.

    Attributes:
        codes: [n, T', D], bits as integers of their width.
        scales: float32 [n, T'], or None.
        error: float32 [n, T'], |x - kept| / |x| by Euclidean length.
        whole: bool [n]; whether all that the backbone gave of an item is finite.
        fits: bool [n]; whether all that is kept of it is.
        constant: float32 [C, n]; how far the constant taps are from what they shall be, as a share of the
            latter's largest value.
    """

    codes: Tensor
    scales: Tensor | None
    error: Tensor
    whole: Tensor
    fits: Tensor
    constant: Tensor

    def fetched(self) -> Coded:
        """Returns it on the host; from a GPU without waiting, so that an event has to be waited for."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: _fetched(each) for name, each in found.items() if each is not None})


def _fetched(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        return tensor
    made = torch.empty_like(tensor, device="cpu", pin_memory=tensor.device.type == "cuda")
    return made.copy_(tensor, non_blocking=True)


def coded(values: Tensor, dtype: str, constant: Tensor) -> Coded:
    """Returns features as they are kept.

    Args:
        values: float [n, T, D]; the first C taps are those that all items should have in common.
        dtype: one of `DTYPES`.
        constant: float32 [C, D], what these should be; they are not kept.
    """
    values = values.float()
    shared, values = values[:, : len(constant)], values[:, len(constant) :]
    codes, scales = _codes(values, dtype)
    kept = codes.float() if scales is None else codes.float() * scales[..., None]
    length = values.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    away = (shared - constant).abs().amax(-1) / constant.abs().amax(-1).clamp(min=1e-30)
    return Coded(
        codes.contiguous().view(_HELD[codes.element_size()]),
        scales,
        (values - kept).norm(dim=-1) / length,
        values.isfinite().flatten(1).all(1),
        kept.isfinite().flatten(1).all(1),
        away.T,
    )


def _codes(values: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    """Returns the values [n, T', D] in their type, and what they are to be multiplied by, or None."""
    if dtype not in _LARGEST:
        return values.to(DTYPES[dtype]), None
    largest = _LARGEST[dtype]
    # So small a largest value that nothing is lost by keeping zeros would make the scale 0 or subnormal.
    scales = (values.abs().amax(-1) / largest).clamp(min=1e-30)
    raised = (values / scales[..., None]).clamp(-largest, largest)
    return (raised.round() if dtype == "int8" else raised).to(DTYPES[dtype]), scales
