"""Settings of the reader for the user's own csv or parquet."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.fields import setting


@dataclass
class TableConfig(DatasetConfig):
    """One table of interactions, or ready-made parts of it.

    Attributes:
        path: csv or parquet file (or folder of parquet files) with the interactions, or the training part.
        valid_path: the validation part, for `split.kind=files`.
        test_path: the test part, for `split.kind=files`.
        items_path: optional table of items, with the `item` and `title` columns.
        user: name of the user column.
        item: name of the item column.
        time: name of the time column; None keeps file order.
        rating: name of the rating column.
        label: name of the 0/1 label column.
        title: name of the title column.
        separator: csv separator; `tab` for a tab.
        ids: how ids are read: `integer`, `text`, or `auto` by what the first rows look like.
        time_unit: of whole-number times: `s`, `ms`, `us`, `ns`, or `auto` by their size.
        bad_rows: `error` stops at a malformed row, `drop` counts and skips it.
    """

    path: str | None = None
    valid_path: str | None = None
    test_path: str | None = None
    items_path: str | None = None
    user: str = "user"
    item: str = "item"
    time: str | None = None
    rating: str | None = None
    label: str | None = None
    title: str | None = None
    separator: str = ","
    ids: str = setting("auto", choices=("auto", "integer", "text"))
    time_unit: str = setting("auto", choices=("auto", "s", "ms", "us", "ns"))
    bad_rows: str = setting("error", choices=("error", "drop"))
