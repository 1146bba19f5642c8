"""What a dataset says of its items beside who met them: texts, ready-made tokens, images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.tokens import TokenTable
from effrec_cli.data.types import RecData
from effrec_cli.errors import DataError


@dataclass(frozen=True)
class Contents:
    """The contents of V items; at least one of the three is there.

    Attributes:
        texts: strings [V], or None.
        tokens: the items' tokens in the dataset's own vocabulary, or None.
        images: uint8 [V, height, width, 3], or None.
    """

    texts: NDArray[Any] | None = None
    tokens: TokenTable | None = None
    images: NDArray[np.uint8] | None = None

    @property
    def blank(self) -> int:
        """How many texts say nothing."""
        return 0 if self.texts is None else sum(not text.strip() for text in self.texts.tolist())

    def __len__(self) -> int:
        return next((len(kind) for kind in (self.texts, self.tokens, self.images) if kind is not None), 0)


def contents_of(data: RecData) -> Contents:
    """Returns the contents of a dataset's items: titles, and tokens and images from its side arrays.

    Raises:
        DataError: the dataset has none of them.
    """
    contents = Contents(data.items.titles, _tokens(data), data.side.get("item_images"))
    if contents.texts is None and contents.tokens is None and contents.images is None:
        raise DataError(
            f"Dataset '{data.name}' says nothing of its items: it has neither titles nor images.",
            where="dataset",
            fix="take a dataset with titles (of a table: dataset.title=COLUMN), or dataset=synthetic "
            "dataset.side=[text]",
        )
    return contents


def _tokens(data: RecData) -> TokenTable | None:
    """Returns the tokens that a dataset brings ready-made, or None."""
    flat, offsets = data.side.get("item_tokens"), data.side.get("item_token_offsets")
    if flat is None or offsets is None:
        return None
    return TokenTable(flat, offsets, len(data.side["item_vocabulary"]))
