"""What fitting a factorisation holds, by the size of the training rows."""

from __future__ import annotations

from typing import Any

import torch

from effrec_cli.methods.factors.rows import BYTES_A_ROW
from effrec_cli.methods.factors.tuned import Size
from effrec_cli.models.factors.sides import chunk_bytes_for

_TABLES = 5
"""Times the vectors' size while they are fitted: now, best, a side turned and squared, and some room."""


def fitting_bytes(settings: Any, size: Size, device: torch.device) -> int:
    """Returns the most bytes that fitting holds: vectors, the rows both ways round, and working memory.

    Args:
        settings: of `schema.factors`.
        size: of the training rows.
        device: where to fit.
    """
    mib = settings.chunk_mib
    chunk = chunk_bytes_for(device) if mib is None else int(mib * 2**20)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    vectors = 4 * (size.users + size.items) * int(settings.dim)
    return _TABLES * vectors + BYTES_A_ROW * size.rows + threads * chunk
