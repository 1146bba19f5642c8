"""Settings of the reader for the files that LightGCN and papers after it are judged on."""

from __future__ import annotations

from dataclasses import dataclass, field

from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.fields import setting


@dataclass
class PublishedConfig:
    """What a dataset is published with; files that differ are read, and this is said.

    Attributes:
        users: distinct users of both parts; None is not compared, here and below.
        items: distinct items of both parts.
        train: rows of the training part.
        test: rows of the test part.
    """

    users: int | None = None
    items: int | None = None
    train: int | None = None
    test: int | None = None


@dataclass
class LightGCNConfig(DatasetConfig):
    """A training and a test file of whole numbers, without times (papers/dsl section 2.2).

    Attributes:
        path: folder with `train.txt` and `test.txt`, or with `NAME.train` and `NAME.test`; None reads what
            `effrec data import` took.
        layout: `lists` has a user and all that user's items a line, `pairs` a user and one item; `auto` looks
            at the first lines of the training file.
        item_offset: what was added to items' ids; None finds out for `pairs`, where it may be the number of
            users, and is 0 for `lists`.
        bad_rows: `error` stops at a malformed line, `drop` counts and skips it; of items in lists only
            themselves.
        published: users, items and rows to compare the files with.
    """

    path: str | None = None
    layout: str = setting("auto", choices=("auto", "lists", "pairs"))
    item_offset: int | None = setting(None, low=0)
    bad_rows: str = setting("error", choices=("error", "drop"))
    published: PublishedConfig = field(default_factory=PublishedConfig)
