"""Settings of the MovieLens reader."""

from __future__ import annotations

from dataclasses import dataclass, field

from effrec_cli.schema.fields import setting
from effrec_cli.schema.item_images import ImagesConfig


@dataclass
class MovieLensConfig(ImagesConfig):
    """A GroupLens release; its images, where you have some, are posters named by movieId.

    Attributes:
        layout: how its files are written: `csv` (ml-20m and later), `dat` (1m, 10m), `tab` (100k).
        urls: where the archive is, tried in order.
        archive_bytes: published size of the archive; None when not published.
        digest: `md5:...` or `sha256:...` as published; None records the digest on first use.
        license: what the publisher asks for, shown before a download.
        bad_rows: `error` stops at a malformed row, `drop` counts and skips it.
    """

    layout: str = setting("csv", choices=("csv", "dat", "tab"))
    urls: list[str] = field(default_factory=list)
    archive_bytes: int | None = None
    digest: str | None = None
    license: str = ""
    bad_rows: str = setting("error", choices=("error", "drop"))
