"""What a device does a second, read from its properties: the same on every process, and never measured.

The figures decide which loss is cheaper, so their ratios matter and their common factor does not.
"""

from __future__ import annotations

from typing import Any

import torch

from .work import FLOAT32_BYTES, Logits, Rates

# One core of an AMD EPYC with AVX-512, float32, torch 2.13, 2026-11-20: forward and backward of the losses of
# this package, fitted over M 400 to 4,000, V 1,000 to 100,000, N 31 to 511 and D 32 to 256. They meet the
# measured break-even N within a factor of 1.5. More cores speed all of it up alike, and so does another CPU.
CPU = Rates(gather=30e9, add=30e9, products=112e9, logit_s=Logits(full=2.2e-9, row=22e-9, shared=4e-9))

# Dense operations of a multiprocessor in a clock with 16-bit operands and float32 sums, by compute
# capability, and in float32 without tensor cores; from the vendor's architecture papers (tensor rate of a
# whole chip / multiprocessors / boost clock). Newer ones count as the newest here.
_HALF_PER_CLOCK = {(8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096, (10, 0): 8192, (12, 0): 1024}
_FLOAT_PER_CLOCK = {(8, 0): 128, (8, 6): 256}
# TF32 operands go half as fast as 16-bit ones.
_TF32_SHARE = 0.5
# Of the tensor rate, what large matrix products reach; of the bandwidth, what adding to rows leaves: a row is
# read and written.
_PRODUCT_SHARE, _ADD_SHARE = 0.7, 0.5
# Bytes a second of a device that does not tell.
_BANDWIDTH = 2e12
# A table within the L2 cache is read that much faster (papers/cce section 2.5: 2 to 3 times).
_CACHED_FACTOR = 2.5
# Bytes that `linear_cross_entropy` moves for a logit between its products: written, its largest found,
# shifted, exponentiated, summed, scaled, rounded and read twice more.
_LOGIT_BYTES = 46


def rates_of_device(device: torch.device, dtype: torch.dtype, items: int, dim: int) -> Rates:
    """Returns the rates at which losses over a table [V, D] run on a device.

    Args:
        device: a CPU, whose rates are constants, or a CUDA device, whose properties are read.
        dtype: of the operands of products: autocast's where it is on.
        items: V.
        dim: D.
    """
    return (
        CPU if device.type != "cuda" else _cuda(torch.cuda.get_device_properties(device), dtype, items * dim)
    )


def _cuda(properties: Any, dtype: torch.dtype, numbers: int) -> Rates:
    """Returns the rates of a GPU for a table of that many numbers.

    Kernels of sampled losses make and use logits in registers while rows are read: no time besides.
    """
    # kHz, two transfers a clock; bits. A virtual device may tell neither.
    bandwidth = 2 * properties.memory_clock_rate * 1e3 * properties.memory_bus_width / 8 or _BANDWIDTH
    cache = properties.L2_cache_size
    gather = bandwidth * (_CACHED_FACTOR if numbers * dtype.itemsize <= cache else 1)
    add = bandwidth * _ADD_SHARE * (_CACHED_FACTOR if numbers * FLOAT32_BYTES <= cache else 1)
    clocks = properties.multi_processor_count * properties.clock_rate * 1e3
    products = clocks * _operations(properties, dtype) * _PRODUCT_SHARE
    return Rates(gather, add, products, Logits(full=_LOGIT_BYTES / bandwidth))


def _operations(properties: Any, dtype: torch.dtype) -> float:
    """Returns the operations of a multiprocessor in a clock."""
    capability = properties.major, properties.minor
    half = _newest(_HALF_PER_CLOCK, capability)
    if dtype.itemsize < FLOAT32_BYTES:
        return half
    if torch.get_float32_matmul_precision() != "highest":
        return half * _TF32_SHARE
    return _newest(_FLOAT_PER_CLOCK, capability)


def _newest(table: dict[tuple[int, int], int], capability: tuple[int, int]) -> int:
    """Returns the figure of the capability, or of the newest before it; of the oldest where there is none."""
    return table[max((known for known in table if known <= capability), default=min(table))]
