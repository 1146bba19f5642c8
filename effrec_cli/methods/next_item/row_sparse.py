"""Whether a step draws so few rows of the item table that only they should move."""

from __future__ import annotations

import math
from typing import Any, cast

from effrec_kernels.buckets import bucket_sizes
from torch import nn

from effrec_cli.backbone import model_for
from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.errors import ConfigError
from effrec_cli.methods.next_item.choice import Choice
from effrec_cli.methods.next_item.losses import tile_stride
from effrec_cli.methods.next_item.windows import Step
from effrec_cli.schema import Config
from effrec_cli.schema.row_sparse import PATH, row_sparse_problems

LARGEST_SHARE = 1 / 4
"""Of the catalogue, that a step may draw where moving rows alone is chosen by itself.

A drawn row moves about 56 bytes a number: its slot cleared, written, summed by pieces and read for the
norm (28), then Adam's 28. A row of the table, dense, moves 36: cleared and read for the norm (8), then Adam's
28. In memory slots, pieces and sums are 12 bytes a drawn number; dense, head and look-up have a gradient
each, 8 bytes a number of the table. So a quarter of the rows is 40 % of the bytes moved and of those held:
enough to be worth that what no one drew stands still.
"""


def rows_of_step(config: Config, windows: NextItemBatches, num_items: int, shares: int = 1) -> int:
    """Returns how many rows of the item table a step of method cce draws, counted as often as it does.

    Each group's negatives and the targets, or what SCE's buckets hold; and the items that are read, in an
    average step. A group that the border of two micro-batches cuts draws in both. Padding is not counted:
    where windows are read with it, each of its places is a row more.

    Args:
        config: checked settings.
        windows: what is trained on.
        num_items: V, size of the catalogue.
        shares: micro-batches that the step is cut into, those of all ranks.
    """
    step, own = Step.of(windows), config.method
    if own.loss == "sce":
        targets = math.ceil(step.targets / shares)
        number, rows = bucket_sizes(targets, own.sce_buckets, own.sce_targets)
        return shares * number * (rows + min(own.sce_items, num_items)) + step.items
    return _groups(config, step, shares) * int(own.num_negatives) + step.targets + step.items


def _groups(config: Config, step: Step, shares: int) -> int:
    """Returns how many groups draw negatives of their own, over all shares."""
    own = config.method
    if own.sharing == "tile":
        stride = tile_stride(step.targets, own.tile_rows, config.model.max_length)
        stretches = math.ceil(step.targets / (own.tile_rows * stride))
        return stride * (stretches + shares - 1)  # a border cuts all tiles of its stretch
    return {"row": step.targets, "sequence": step.windows, "batch": shares}[own.sharing]


def pays(config: Config, windows: NextItemBatches, num_items: int) -> Choice[bool]:
    """Returns whether rows alone should move: they can, and a step draws few against the catalogue.

    Counted as if the step were not cut, so that ranks and micro-batches change nothing of what is learnt.
    """
    refusal = _refusal(config)
    if refusal is not None:
        why = refusal.removeprefix(f"{PATH.rpartition('.')[2]}=").rstrip(".")
        return Choice(False, f"false, for {why[0].lower()}{why[1:]}")
    drawn, most = rows_of_step(config, windows, num_items), math.floor(LARGEST_SHARE * num_items)
    few = drawn <= most
    value, than = ("true", "no more than") if few else ("false", "more than")
    return Choice(few, f"{value}, for a step draws {drawn:,} rows, {than} a quarter of {num_items:,} items")


def _refusal(config: Config) -> str | None:
    """Returns why rows alone cannot move under these settings; None where they can."""
    first = next(row_sparse_problems(config), None)
    if first is not None:
        return first.what
    return None if _gives_rows(config) else _no_rows(config)


def give_rows(model: nn.Module, config: Config) -> None:
    """Makes the gradient of the model's look-up rows.

    Raises:
        ConfigError: the model has no such look-up.
    """
    if not _gives_rows(config):
        raise ConfigError(_no_rows(config), where=PATH, fix=f"{PATH}=false")
    cast(Any, model).give_rows()


def _gives_rows(config: Config) -> bool:
    return hasattr(model_for("next_item", config.model.name), "give_rows")


def _no_rows(config: Config) -> str:
    return f"The look-up of model={config.model.name} has no gradient of rows."
