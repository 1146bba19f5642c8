"""Settings of the reader for the user's own csv or parquet."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting
from effrec_cli.schema.item_images import ImagesConfig

LONGEST_TITLE = 512
"""Characters of a title that are kept unless settings say more; one long text widens the array of all."""


@dataclass
class TableConfig(ImagesConfig):
    """One table of interactions, or ready-made parts of it.

    Attributes:
        path: csv or parquet file (or folder of parquet files) with the interactions, or the training part.
        valid_path: the validation part, for `split.kind=files`.
        test_path: the test part, for `split.kind=files` and `files_random`.
        items_path: optional table of items, with the `item` and `title` columns.
        items_item: name of its item column; None is that of `item`.
        user: name of the user column; None, with no `item` either, of labelled rows that name nobody.
        item: name of the item column.
        time: name of the time column; None keeps file order.
        rating: name of the rating column.
        label: name of the 0/1 label column.
        correct: name of the column that says whether the user answered the item right, 0 or 1; every row is
            then an answer, for task knowledge_tracing.
        label_above: the number above which a `label` or `correct` counts as 1, others as 0, as 0 does where
            these are written -1 and 1; None takes 0 and 1 alone.
        dense: columns of numbers of labelled rows, which may be missing; for task ctr.
        categorical: columns of labelled rows of which each value is one of several, whatever is written.
        log1p: read a number x of `dense` as sign(x) ln(1 + |x|), as is usual for counts.
        min_category_count: a value that fewer training rows have is not known.
        rare_buckets: how many learned vectors the values of a column share that are not known, by their
            hash; 0 takes all of them, and a missing one, for one value.
        columns: names of all columns, in order, of a text file without a header line; [] reads them from it.
        title: name of the column of titles, or of items' texts.
        title_chars: characters of a title that are kept.
        separator: csv separator; `tab` for a tab.
        ids: how ids are read: `integer`, `text`, or `auto` by what the first rows look like.
        time_unit: of whole-number times: `s`, `ms`, `us`, `ns`, or `auto` by their size.
        bad_rows: `error` stops at a malformed row, `drop` counts and skips it.
    """

    path: str | None = None
    valid_path: str | None = None
    test_path: str | None = None
    items_path: str | None = None
    items_item: str | None = None
    user: str | None = "user"
    item: str | None = "item"
    time: str | None = None
    rating: str | None = None
    label: str | None = None
    correct: str | None = None
    label_above: float | None = None
    dense: list[str] = setting([])
    categorical: list[str] = setting([])
    log1p: bool = False
    min_category_count: int = setting(2, low=1)
    rare_buckets: int = setting(0, low=0)
    columns: list[str] = setting([])
    title: str | None = None
    title_chars: int = setting(LONGEST_TITLE, low=1)
    separator: str = ","
    ids: str = setting("auto", choices=("auto", "integer", "text"))
    time_unit: str = setting("auto", choices=("auto", "s", "ms", "us", "ns"))
    bad_rows: str = setting("error", choices=("error", "drop"))
