"""Settings that every dataset shares: filters, split, parts and sample."""

from __future__ import annotations

from dataclasses import dataclass, field

from effrec_cli.schema.fields import setting
from effrec_cli.schema.sample import SampleConfig


@dataclass
class FilterConfig:
    """Which rows stay.

    Attributes:
        min_rating: rows rated lower are dropped; None keeps all.
        min_item_count: items with fewer rows are dropped.
        min_user_count: users with fewer rows are dropped.
        max_user_count: of each user the last so many rows stay, before items and users are counted; None is
            all (papers/iisan section 5.3: 13).
        k_core: `once` filters items then users one time (papers' way), `iterative` until nothing changes.
        duplicates: `keep` all rows of one (user, item), the `first` or the `last` in time.
    """

    min_rating: float | None = None
    min_item_count: int = setting(1, low=1)
    min_user_count: int = setting(3, low=1)
    max_user_count: int | None = setting(None, low=1)
    k_core: str = setting("once", choices=("once", "iterative"))
    duplicates: str = setting("keep", choices=("keep", "first", "last"))


@dataclass
class SplitConfig:
    """What is held out.

    Attributes:
        kind: `leave_one_out` holds out each user's last row for test and the one before for validation;
            `global_time` holds out what comes after a moment (papers/cce section 3.3: last item of each
            user active after it; validation on the last item of some other users); `files` takes the
            ready-made parts of `dataset=table`.
        test_share: share of rows after the moment (global_time).
        valid_user_share: share of users kept for validation (global_time).
        seed: draws the validation users (global_time).
    """

    kind: str = setting("leave_one_out", choices=("leave_one_out", "global_time", "files"))
    test_share: float = setting(0.1, above=0, high=0.9)
    valid_user_share: float = setting(0.05, above=0, high=0.9)
    seed: int = setting(42, low=0)


@dataclass
class PartsConfig:
    """How answers and impressions are parted.

    Where the source brings ready-made parts, `cold_item_share` and `seed` alone are read for answers, and for
    impressions `valid_share` alone, unless one of the parts is for validation. Read when a task is fed, not
    when data are prepared: other parts need no other prepared folder.

    Attributes:
        test_share: share held out for the result: the last answers of each user, the last impressions of all.
        valid_share: share held out for model selection, just before those.
        cold_item_share: share of the answered or clicked items that are taken out of training, so that what a
            model makes of new items is known.
        seed: draws these items.
    """

    test_share: float = setting(0.1, above=0, high=0.5)
    valid_share: float = setting(0.1, above=0, high=0.4)
    cold_item_share: float = setting(0.05, low=0, high=0.5)
    seed: int = setting(42, low=0)


@dataclass
class DatasetConfig:
    """What all dataset schemas start from.

    Attributes:
        name: name of the dataset, as in `dataset=NAME`.
        family: the registered reader.
        filter: which rows stay.
        split: what is held out.
        parts: what is held out of answers and impressions.
        sample: which training rows are kept; all, unless it says less.
    """

    name: str = ""
    family: str = ""
    filter: FilterConfig = field(default_factory=FilterConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    parts: PartsConfig = field(default_factory=PartsConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
