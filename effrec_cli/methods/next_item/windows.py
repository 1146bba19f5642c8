"""What method cce is fed: windows over the users' training items, and how much of them a step holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from effrec_cli.backbone import model_for
from effrec_cli.data.cloze import ClozeBatches
from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.data.types import RecData
from effrec_cli.schema import Config


def windows_for(config: Config, data: RecData, window: str | None = None) -> NextItemBatches:
    """Returns windows over the users' training items, some of them masked where the model asks for it.

    Args:
        config: of the run; `method.batch_size` is known.
        data: what is trained on.
        window: `slide` or `last`; None is what `method.window` says.
    """
    own = config.method
    given = (data, own.batch_size, config.model.max_length, window or own.window, config.seed)
    masking = masking_of(config)
    if not masking:
        return NextItemBatches(*given)
    return ClozeBatches(*given, mask_token=data.num_items, **masking)


def masking_of(config: Config) -> dict[str, Any]:
    """Returns how training masks, by the settings' names; nothing where the model reads no masks."""
    masked = getattr(model_for("next_item", config.model.name), "masked", False)
    return {name: getattr(config.model, name) for name in ("mask_ratio", "last_only")} if masked else {}


@dataclass(frozen=True)
class Step:
    """What an average optimizer step holds, over all ranks and micro-batches; rounded up.

    Attributes:
        windows: windows that are read.
        items: items in them, masks included.
        targets: rows with a loss; where they are drawn, as many as there are on average.
    """

    windows: int
    items: int
    targets: int

    @classmethod
    def of(cls, batches: NextItemBatches) -> Step:
        """Returns the average step of an epoch."""
        epoch = batches.num_samples, batches.items_per_epoch, batches.targets_per_epoch
        return cls(*(math.ceil(number / batches.steps_per_epoch) for number in epoch))
