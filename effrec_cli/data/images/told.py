"""What the user is told of items without a usable image."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from effrec_cli.data.atomic import disk_faults, make_folder
from effrec_cli.data.images.fill import Bad
from effrec_cli.data.images.found import Store
from effrec_cli.errors import DataError

_SHOWN = 5
_WHY = {
    "images_missing": "without one",
    "images_damaged": "with one that cannot be decoded",
    "images_too_large": "with one that is too large",
    "images_twice": "with more than one",
}


def refuse_if_none(store: Store, item_ids: NDArray[Any], bad: Mapping[int, Bad], where: str) -> None:
    """Raises DataError where not one image is called as an item is: then names do not fit, or the path.

    Under every rule: a dataset of nothing but black images is nobody's wish.
    """
    if len(bad) < len(item_ids) or any(each.kind != "missing" for each in bad.values()):
        return
    names = list(islice(store.names(), _SHOWN))
    found = f"images are called {', '.join(map(repr, names))}" if names else "no images are found there"
    ids = ", ".join(repr(str(each)) for each in item_ids[:_SHOWN])
    raise DataError(
        "None of the items has an image.",
        where=f"{where}: {found}; items {ids}",
        fix="name image files by item id, with .jpg, .jpeg, .png or .webp, or the parquet's column of ids "
        "by dataset.image_item=COLUMN",
    )


def refuse(bad: Mapping[str, Bad], counts: Mapping[str, int], where: str, path: Path) -> None:
    """Raises DataError about items without a usable image: how many, why, which first, and where all are."""
    make_folder(path.parent)
    write_list(path, bad)
    reasons = ", ".join(f"{counts[key]:,} {text}" for key, text in _WHY.items() if counts.get(key))
    total = counts["images"] + len(bad)
    first = "; ".join(f"'{name}': {each.what}" for name, each in islice(bad.items(), _SHOWN))
    raise DataError(
        f"{len(bad):,} of {total:,} items have no usable image: {reasons}.",
        where=f"{where}: {first}{'; and more' if len(bad) > _SHOWN else ''}. {path} names all",
        fix="mend them, or dataset.bad_images=zero makes them black, drop leaves these items out",
    )


def write_list(path: Path, bad: Mapping[str, Bad]) -> None:
    """Writes a line for each item: its id, the kind of fault, and what is wrong."""
    with disk_faults(path), path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(["item", "kind", "what"])
        writer.writerows([name, each.kind, each.what] for name, each in bad.items())
