"""Tables of which a model reads all rows in a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effrec_cli.models.sparse.tables import DenseTable, MaskedTable


def whole(table: Any) -> Tensor:
    """Returns all vectors of a table [N, d], float32; gradients are dense, and of a masked table masked."""
    if isinstance(table, MaskedTable):
        return table.whole()
    if isinstance(table, DenseTable):
        return table.weights
    return table.look_up(torch.arange(table.shape.rows, device=next(table.buffers()).device))
