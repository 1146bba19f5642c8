"""Settings of images of items, which several dataset families take."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.fields import setting


@dataclass
class ImagesConfig(DatasetConfig):
    """A dataset whose items may have an image each.

    Attributes:
        images: folder of image files named by raw item id (sub-folders too), a .tar of them, or a parquet
            file, or folder of them, with a column of ids and one of images' bytes; None: no images.
        image_item: the parquet's column of ids; None takes the one that names items in the log.
        image_size: side, in pixels, of the square that each image is resized to.
        bad_images: `error` stops where an item has no image that can be decoded, `zero` makes it black,
            `drop` leaves the item and its rows out before anything is filtered.
    """

    images: str | None = None
    image_item: str | None = None
    image_size: int = setting(224, low=1, high=2048)
    bad_images: str = setting("error", choices=("error", "zero", "drop"))
