"""Whether a step draws so few rows of the item table that only they should move."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from torch import nn

from effrec_cli.backbone import model_for
from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.data.types import RecData
from effrec_cli.errors import ConfigError
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


def rows_of_step(config: Config, data: RecData) -> int:
    """Returns how many rows of the item table a step of method cce draws, counted as often as it does.

    Each group's negatives, the targets, and the items that are read; about as many as an average step has.

    Args:
        config: checked settings, `method.batch_size` known.
        data: what is trained on.
    """
    own, longest = config.method, config.model.max_length
    batches = NextItemBatches(data, own.batch_size, longest, own.window, config.seed)
    held = np.minimum(batches.num_targets, longest) if own.window == "last" else batches.num_targets
    targets = math.ceil(int(held.sum()) / batches.steps_per_epoch)
    windows = math.ceil(batches.num_samples / batches.steps_per_epoch)
    groups = {"tile": math.ceil(targets / own.tile_rows), "sequence": windows, "batch": 1, "row": targets}
    return int(groups[own.sharing] * own.num_negatives + 2 * targets)


def pays(config: Config, data: RecData) -> bool:
    """Returns whether rows alone should move: they can, and a step draws few against the catalogue."""
    possible = not any(row_sparse_problems(config)) and _gives_rows(config)
    return possible and rows_of_step(config, data) <= LARGEST_SHARE * data.num_items


def give_rows(model: nn.Module, config: Config) -> None:
    """Makes the gradient of the model's look-up rows.

    Raises:
        ConfigError: the model has no such look-up.
    """
    if not _gives_rows(config):
        raise ConfigError(
            f"The look-up of model={config.model.name} has no gradient of rows.",
            where=PATH,
            fix=f"{PATH}=false",
        )
    cast(Any, model).give_rows()


def _gives_rows(config: Config) -> bool:
    return hasattr(model_for("next_item", config.model.name), "give_rows")
