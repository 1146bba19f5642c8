"""Settings of the reader for Amazon reviews as they are published."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_table import LONGEST_TITLE
from effrec_cli.schema.fields import setting
from effrec_cli.schema.item_images import ImagesConfig


@dataclass
class AmazonConfig(ImagesConfig):
    """Reviews and metadata of one category, a JSON object a line.

    Attributes:
        path: reviews, .json or .jsonl, packed by gzip or not.
        items_path: metadata with the titles; None: items without titles.
        layout: which keys they have: `2018` (reviewerID, asin, unixReviewTime, overall), `2023` (user_id,
            parent_asin, timestamp, rating), or `auto` by the first review.
        title_chars: characters of a title that are kept.
        bad_rows: `error` stops at a malformed line, `drop` counts and skips it.
    """

    path: str | None = None
    items_path: str | None = None
    layout: str = setting("auto", choices=("auto", "2018", "2023"))
    title_chars: int = setting(LONGEST_TITLE, low=1)
    bad_rows: str = setting("error", choices=("error", "drop"))
