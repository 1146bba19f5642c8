"""Whether windows go through a model without their padding, settled where it was left open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from effrec_cli.schema import Config

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


def settle_packing(model: Any, config: Config, device: torch.device, engine: Engine) -> dict[str, str]:
    """Settles what `model.packed=auto` comes to on a device; returns what `choices` are to say of it.

    Args:
        model: that is to train, on `device`.
        config: of the run; what it came to is written there.
        device: where it trains.
        engine: by whose autocast.
    """
    if getattr(model, "packed", None) != "auto":
        return {}
    with engine.autocast():
        packed = model.packs(device, config.run.compile)
    model.packed = config.model.packed = packed
    return {"model.packed": f"{str(packed).lower()} on {device.type}"}
