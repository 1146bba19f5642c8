"""Settings of the reader for files of one user's items a line."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_table import LONGEST_TITLE
from effrec_cli.schema.fields import setting
from effrec_cli.schema.item_images import ImagesConfig


@dataclass
class SequencesConfig(ImagesConfig):
    """Users' items in order, a user a line, and a file of titles: what IISAN was published with.

    Attributes:
        path: file without header, in each line a user, a tab and that user's items parted by spaces, the
            oldest first.
        items_path: file without header, in each line an item, a tab and its title; None: items without
            titles, whatever they are called.
        title_chars: characters of a title that are kept.
        ids: how ids are read: `integer`, `text`, or `auto` by what the first ones look like.
        bad_rows: `error` stops at a malformed line, `drop` counts and skips it; of items that `items_path`
            does not list, only themselves.
    """

    path: str | None = None
    items_path: str | None = None
    title_chars: int = setting(LONGEST_TITLE, low=1)
    ids: str = setting("auto", choices=("auto", "integer", "text"))
    bad_rows: str = setting("error", choices=("error", "drop"))
