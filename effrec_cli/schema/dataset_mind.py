"""Settings of the reader for MIND, the Microsoft News data."""

from __future__ import annotations

from dataclasses import dataclass, field

from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.fields import setting


@dataclass
class MindConfig(DatasetConfig):
    """One release of MIND: news, and impressions with clicks, in a training and a dev part.

    Attributes:
        path: folder that holds the two parts, read where it is; None reads what `effrec data import` took.
        text: what an item says: its `title`, `title_abstract`, or `title_abstract_body` where news.tsv has
            been given a ninth column with the body (MIND is published without).
        archives: what its publisher calls the files to get.
        license: what the publisher asks for.
        bad_rows: `error` stops at a malformed row, `drop` counts and skips it.
    """

    path: str | None = None
    text: str = setting("title", choices=("title", "title_abstract", "title_abstract_body"))
    archives: list[str] = field(default_factory=list)
    license: str = ""
    bad_rows: str = setting("error", choices=("error", "drop"))
