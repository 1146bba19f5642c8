"""Settings that every dataset shares: filters, split, parts and sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem, unused_problems
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


READ_BY = {
    "leave_one_out": (),
    "global_time": ("test_share", "valid_user_share", "seed"),
    "files": (),
    "files_random": ("valid_share", "seed"),
    "random": ("valid_share", "test_share", "seed"),
    "strong": ("valid_user_share", "test_user_share", "fold_in", "seed"),
}
"""The settings that each kind of split reads."""

READY_MADE = ("files", "files_random")
"""The kinds that take the parts that a source brings; to all others its rows are of one part."""

DRAWN = ("files_random", "random", "strong")
"""The kinds by which a user's rows leave their order in time: a hash says which of them come first."""


@dataclass
class SplitConfig:
    """What is held out; each kind of split refuses settings that it would not read.

    Attributes:
        kind: `leave_one_out` holds out each user's last row for test and the one before for validation;
            `global_time` holds out what comes after a moment (papers/cce section 3.3: last item of each
            user active after it; validation on the last item of some other users); `files` takes the
            ready-made parts of `dataset=table` or `dataset=lightgcn`; `files_random` takes their test part,
            and draws validation from each user's training rows (the benchmark of LightGCN, papers/dsl
            section 2.2); `random` draws both from each user's rows; `strong` draws users whom training never
            sees, and ranks for them from some of their rows (strong generalisation).
        test_share: share of rows after the moment (global_time), or of each user's items (random).
        valid_share: share of each user's items kept for validation (random), of training ones (files_random).
        valid_user_share: share of users kept for validation (global_time, strong).
        test_user_share: share of users kept for the test (strong).
        fold_in: share of such a user's items that are history; the others are the targets (strong).
        seed: draws users (global_time, strong) and items (files_random, random, strong).
    """

    kind: str = setting("leave_one_out", choices=tuple(READ_BY))
    test_share: float = setting(0.1, above=0, high=0.9)
    valid_share: float = setting(0.1, above=0, high=0.9)
    valid_user_share: float = setting(0.05, above=0, high=0.9)
    test_user_share: float = setting(0.05, above=0, high=0.9)
    fold_in: float = setting(0.8, above=0, high=0.99)
    seed: int = setting(42, low=0)


def split_problems(split: SplitConfig) -> Iterator[Problem]:
    """Yields settings that the kind of split would not read, and shares that leave nothing to train on."""
    names = [each.name for each in fields(split) if each.name != "kind"]
    readers = {name: tuple(kind for kind, read in READ_BY.items() if name in read) for name in names}
    yield from unused_problems(split, {name: ("kind", kinds) for name, kinds in readers.items()}, PATH)
    for kind, (first, second) in _TOGETHER.items():
        given = getattr(split, first) + getattr(split, second)
        if split.kind == kind and given >= 1:
            what = f"{first} and {second} leave nothing to train on: together they are {given:g}."
            yield Problem(f"{PATH}.{first}", what, fix=f"{PATH}.{first}=0.1 {PATH}.{second}=0.1")


PATH = "dataset.split"
_TOGETHER = {"random": ("valid_share", "test_share"), "strong": ("valid_user_share", "test_user_share")}
"""Shares that are taken from one whole."""


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
