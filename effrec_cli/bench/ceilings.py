"""What the device can do at best: the figures that every other one is judged against."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from effrec_kernels.work import Rates

from effrec_cli.bench.clock import median_seconds
from effrec_cli.bench.suites import Cell, Options, Trial

UNITS = {"bandwidth": "GB/s", "rate": "TFLOP/s"}

MIB = 1 << 20


def cells(options: Options) -> list[Cell]:
    """Returns copying, matrix products and the gathering of rows, in sizes that fill the device."""
    gpu = options.device.type == "cuda"
    copy = 4096 * MIB if gpu else (64 if options.quick else 512) * MIB
    side = 8192 if gpu else (512 if options.quick else 2048)
    rows = 1 << 23 if gpu else (1 << 17 if options.quick else 1 << 20)
    products = ("bfloat16", "float32") if gpu else ("float32",)
    repeats = 2 if options.quick else 5
    return [
        Cell("copy", ("torch",), {"bytes": copy}, repeats),
        *(
            Cell(f"matrix product {dtype}", ("torch",), {"side": side, "dtype": dtype}, repeats)
            for dtype in products
        ),
        Cell("gather rows", ("torch",), {"rows": rows, "dim": 128, "dtype": "float32"}, repeats),
    ]


def trial(cell: Cell, peer: str, device: torch.device) -> Trial:
    """Returns the work of a cell."""
    make = {"copy": _copy, "gather rows": _gather}.get(cell.name, _product)
    return make(cell.parameters, device)


def _copy(parameters: dict[str, int], device: torch.device) -> Trial:
    """Returns a copy of float32 numbers; every byte is read once and written once."""
    source = torch.randn(parameters["bytes"] // 4, device=device)
    target = torch.empty_like(source)
    return _rate("bandwidth", 2 * source.nbytes / 1e9, lambda: target.copy_(source), device)


def _gather(parameters: dict[str, int], device: torch.device) -> Trial:
    """Returns the gathering of random rows, half as many as a table larger than the caches has.

    The bytes read and those written are counted, as for the copy.
    """
    table = torch.randn(parameters["rows"], parameters["dim"], device=device)
    ids = torch.randint(len(table), (len(table) // 2,), device=device)
    out = table.new_empty(len(ids), table.shape[1])
    work = partial(torch.index_select, table, 0, ids, out=out)
    return _rate("bandwidth", 2 * out.nbytes / 1e9, work, device)


def _product(parameters: dict[str, int], device: torch.device) -> Trial:
    """Returns a square matrix product of random numbers."""
    side, dtype = parameters["side"], getattr(torch, str(parameters["dtype"]))
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return _rate("rate", 2 * side**3 / 1e12, lambda: torch.mm(left, right, out=out), device)


def rates_of(table: torch.Tensor) -> Rates:
    """Returns the rates at which a device gathers rows of `table`, adds to float32 rows, and multiplies.

    Random rows of the table as it is are gathered and added, so what of it fits the caches is faster.
    """
    device, table = table.device, table.detach()
    ids = torch.randint(len(table), (1 << 20,), device=device)
    out = table.new_empty(len(ids), table.shape[1])
    sums = torch.zeros(table.shape, dtype=torch.float32, device=device)
    slopes = out.float()
    side = 4096 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device, dtype=table.dtype) for _ in range(2))
    gather = median_seconds(partial(torch.index_select, table, 0, ids, out=out), device)
    add = median_seconds(partial(sums.index_add_, 0, ids, slopes), device)
    product = median_seconds(partial(torch.mm, left, right), device)
    return Rates(out.nbytes / gather, slopes.nbytes / add, 2 * side**3 / product)


def _rate(name: str, amount: float, work: Callable[[], object], device: torch.device) -> Trial:
    """Returns a trial that says how much of `amount` a second is done."""
    return lambda: {name: amount / median_seconds(work, device)}
