"""The order of rows: by user, then part, then time, then place in the file."""

from __future__ import annotations

import numpy as np

from effrec_cli.data.rows import Rows
from effrec_cli.data.types import Int64


def sort_rows(rows: Rows) -> None:
    """Orders rows in place by (user, part of a ready-made split, time, place in the file).

    Rows without times keep the order of the file inside a user. The tie rule matters: most rating sites
    write whole seconds, and many users rate several items within one.
    """
    key = _packed_key(rows)
    if key is None:
        columns = [c for c in (rows.times, rows.parts, rows.users) if c is not None]
        order = np.lexsort(columns)
    elif bool(np.all(key[1:] >= key[:-1])):
        return
    else:
        order = np.argsort(key, kind="stable")
    rows.take(order)


def _packed_key(rows: Rows) -> Int64 | None:
    """Returns user, part and time in one integer, or None where they need more than 63 bits.

    One stable sort of one key is about twice as fast as a lexsort, and far faster on rows already grouped
    by user.
    """
    if not len(rows):
        return np.empty(0, np.int64)
    low = int(rows.times.min()) if rows.times is not None else 0
    span = int(rows.times.max()) - low if rows.times is not None else 0
    time_bits, part_bits = span.bit_length(), 0 if rows.parts is None else 2
    if int(rows.users.max()).bit_length() + part_bits + time_bits > 63:
        return None
    key = rows.users.astype(np.int64)
    if rows.parts is not None:
        key <<= part_bits
        key |= rows.parts
    if rows.times is not None:
        key <<= time_bits
        key |= rows.times - low
    return key


def offsets_of(users: np.ndarray, num_users: int) -> Int64:
    """Returns int64 [num_users + 1]: where each user's rows begin in the ascending `users`."""
    return np.searchsorted(users, np.arange(num_users + 1, dtype=users.dtype)).astype(np.int64)
