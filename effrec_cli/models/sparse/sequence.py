"""Sequence models over a table of items that may be sparse: it is their input and their head."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from effrec_cli.models.sasrec import SASRec
from effrec_cli.models.sparse.tables import IdTable


def reading(kind: type[SASRec], table: IdTable, settings: dict[str, Any]) -> SASRec:
    """Returns a sequence model that looks items up in a table [V, D], on the CPU.

    All that is no item is drawn from torch's generator as `kind` draws it; the vector of masked items, where
    there is one, as the table's.

    Args:
        kind: of model.
        table: of items.
        settings: those of `kind`, but for the number of items.
    """
    # With a dense table of one item, which gives way: nothing of V D is made.
    model = cast(Any, kind(1, **settings))
    model.items = table
    if hasattr(model, "mask_token"):
        model.mask_token = table.shape.rows
        nn.init.normal_(model.mask_vector, std=table.shape.deviation)
    return cast(SASRec, model)
