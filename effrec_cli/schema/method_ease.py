"""Settings of method ease."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting


@dataclass
class EASEConfig:
    """Embarrassingly shallow autoencoder (Steck 2019).

    Attributes:
        name: always `ease`.
        l2: ridge strength on the diagonal of the item-item matrix.
        last: only the last so many items of a history count; None, as published, counts all.
        max_items: refuses catalogues larger than this, since memory grows with its square.
    """

    name: str = "ease"
    l2: float = setting(100.0, above=0)
    last: int | None = setting(5, low=1)
    max_items: int = setting(40000, low=1)
