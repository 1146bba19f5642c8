"""What `method.loss=auto` becomes: the full softmax or a sample of it, whichever this device does faster."""

from __future__ import annotations

from typing import Any

import torch
from effrec_kernels.rates import rates_of_device
from effrec_kernels.work import break_even_negatives

from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.distributed import World
from effrec_cli.methods.next_item.choice import Choice
from effrec_cli.methods.next_item.windows import Step
from effrec_cli.precision import resolve_precision
from effrec_cli.schema import Config

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cheaper_loss(
    config: Config, windows: NextItemBatches, num_items: int, dim: int, world: World
) -> Choice[str]:
    """Returns the cheaper of `cce` and `cce_sampled`; the full softmax where they cost the same.

    A function of the settings, the data's shape and the device's properties: nothing is timed, so a run that
    is repeated on such a device chooses the same. Who computes (`method.kernel`) is not looked at, for it
    changes no result.

    Args:
        config: of the run.
        windows: what it is fed.
        num_items: V, size of the catalogue.
        dim: D, the model's width.
        world: the processes that share a step's rows, and the device of each.
    """
    own = config.method
    step = Step.of(windows)
    rows = max(1, step.targets // (world.size * config.run.accumulate))
    sequence = step.targets // step.windows
    group_rows = {"row": 1, "tile": own.tile_rows, "sequence": sequence, "batch": rows}[own.sharing]
    precision = resolve_precision(config.run.precision, world.device)
    dtype = _DTYPES[precision]
    rates = rates_of_device(world.device, dtype, num_items, dim)
    sizes: dict[str, Any] = {"group_rows": max(1, min(group_rows, rows)), "item_bytes": dtype.itemsize}
    most = break_even_negatives(rows, num_items, dim, rates, **sizes)
    loss, less = ("cce_sampled", "less") if own.num_negatives <= most else ("cce", "no less")
    return Choice(
        loss,
        f"{loss}, for {own.num_negatives:,} negatives cost {less} than all {num_items:,} items: up to "
        f"N = {most:,} would ({rows:,} rows of width {dim}, sharing={own.sharing}, {world.device.type} "
        f"{precision})",
    )
