"""How wide a sequence model is where its settings leave it open."""

from __future__ import annotations

import math
from typing import Any

from effrec_cli.errors import ConfigError


def width_for(num_items: int) -> int:
    """Returns the width D for a catalogue: the power of two from sqrt(V) / 2 up, at least 32, at most 256.

    1,000 items get 32, 10,000 get 64, 27,000 (ml-20m) 128, 176,000 (Beauty) and more 256, the paper's.
    """
    wanted = 2 ** math.ceil(math.log2(math.sqrt(num_items) / 2))
    return int(min(256, max(32, wanted)))


def check_heads(settings: dict[str, Any]) -> None:
    """Refuses a width that its heads cannot share.

    Args:
        settings: of a model, with its `dim` and `num_heads`.

    Raises:
        ConfigError: the one is no multiple of the other.
    """
    dim, heads = settings["dim"], settings.get("num_heads", 1)
    if dim % heads:
        raise ConfigError(
            f"Width {dim} does not divide into {heads} heads.",
            where=f"model.num_heads={heads}",
            fix=f"model.dim={-(-dim // heads) * heads}, or another number of heads",
        )
