"""How an item table starts from a factorisation's vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from effrec_cli.errors import ConfigError, NonFiniteError


def start_from(table: Tensor, vectors: Tensor, trained: Tensor) -> None:
    """Sets rows of a table, as the model has drawn it, to vectors of the same deviation.

    One factor scales all vectors, so that the deviation of their numbers becomes that of the drawn table:
    what follows it was made for that. Rows that are not named, and rows behind the items', stay as drawn.

    Args:
        table: float [V or more, D], changed in place, on any device.
        vectors: float32 [V, D] on the CPU.
        trained: int64 [n], the items to set, those with a training row: the vectors of others say nothing.

    Raises:
        NonFiniteError: a vector holds something that is no number.
    """
    with torch.no_grad():
        chosen = vectors[trained]
        if not bool(chosen.isfinite().all()):
            raise NonFiniteError(
                "The factorisation has vectors that are no numbers.",
                where="method.factors",
                fix="a larger method.factors.reg",
            )
        found = float(chosen.std(correction=0)) if len(chosen) else 0.0
        wanted = float(table[: len(vectors)].std(correction=0))
        if found > 0:
            table.index_copy_(0, trained.to(table.device), (chosen * (wanted / found)).to(table))


def check_width(dim: int, asked: int | None) -> None:
    """Refuses vectors of another width than the model's.

    Args:
        dim: D, the model's.
        asked: `method.factors.dim`.

    Raises:
        ConfigError: they differ.
    """
    if asked not in (None, dim):
        raise ConfigError(
            f"The item table is {dim} wide for this catalogue, and so must be vectors that it starts from.",
            where=f"method.factors.dim={asked}",
            fix=f"method.factors.dim=null, or model.dim={asked}",
        )
