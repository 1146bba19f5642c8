"""A source made of Python rows, and short ways to prepare it."""

from dataclasses import replace

import numpy as np

from effrec_cli.data import cache
from effrec_cli.data.arrange import arrange
from effrec_cli.data.source import RawChunk
from effrec_cli.schema.dataset_base import DatasetConfig, FilterConfig, SplitConfig


def quiet(line):
    """Hears what is said and keeps it to itself."""


class ListSource:
    """Rows (user, item, time, rating) from a list, a few to a chunk; or parts {part: rows}."""

    def __init__(self, rows, *, columns=("time", "rating"), chunk=7):
        self.parts = rows if isinstance(rows, dict) else {None: rows}
        self.columns, self.chunk = columns, chunk

    def ensure(self, say):
        return None

    def fingerprint(self):
        return {"rows": repr(self.parts), "columns": self.columns}

    def chunks(self):
        for part, rows in self.parts.items():
            for at in range(0, len(rows), self.chunk):
                users, items, times, ratings = zip(*rows[at : at + self.chunk], strict=True)
                yield RawChunk(
                    np.array(users),
                    np.array(items),
                    np.array(times, dtype=np.int64) if "time" in self.columns else None,
                    np.array(ratings, dtype=np.float32) if "rating" in self.columns else None,
                    part,
                )

    def titles(self, item_ids):
        return None

    def side(self, data):
        return {}

    def ceiling(self, data):
        return None

    def stats(self):
        return {}


def settings(*, split="leave_one_out", min_user_count=1, **others):
    """Settings of a dataset called `list`; keywords go to its filter or its split."""
    split_keys = set(SplitConfig.__dataclass_fields__)
    filters = FilterConfig(min_user_count=min_user_count)
    filters = replace(filters, **{k: v for k, v in others.items() if k not in split_keys})
    splits = SplitConfig(kind=split, **{k: v for k, v in others.items() if k in split_keys})
    return DatasetConfig(name="list", family="list", filter=filters, split=splits)


def prepared(rows, *, columns=("time", "rating"), **keywords):
    """Returns rows prepared in memory."""
    arranged = arrange(ListSource(rows, columns=columns), settings(**keywords), quiet)
    arrays = {name: array for name, array in arranged.arrays.items() if array is not None}
    manifest = {"name": "list", "content_hash": "", "protocol": arranged.protocol, "stats": arranged.stats}
    return cache.assemble(manifest, arrays, folder=None)


def history(data, part, case):
    """Raw item ids of a case's history."""
    return raw_items(data, part.history_start[case], part.history_end[case])


def target(data, part, case):
    """Raw item ids of a case's targets."""
    return raw_items(data, part.target_start[case], part.target_end[case])


def raw_items(data, start, end):
    """Raw ids of the items at positions `start` to `end`."""
    return [data.items.ids[row].item() for row in data.sequences.items[start:end]]


def as_cases(data, part):
    """A part as {raw user: (history, target)}."""
    return {
        data.users.ids[user].item(): (history(data, part, case), target(data, part, case))
        for case, user in enumerate(part.users)
    }


def as_training(data):
    """Training items as {raw user: [raw items]}, users without any left out."""
    found = {
        data.users.ids[user].item(): raw_items(data, data.train_start[user], data.train_end[user])
        for user in range(data.num_users)
    }
    return {user: items for user, items in found.items() if items}
