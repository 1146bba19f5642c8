"""What the columns of a table hold, judged by the text of their first values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from effrec_cli.data.kinds import MICROSECONDS, Fraction, Kind, MalformedError, Moment, Text, Whole

# A number with a leading zero or a plus is a name: as a number it would not come back as written.
_NUMBERED_NAME = re.compile(r"(\+|[+-]?0)[0-9]+")
_UNITS = {"s": 1, "ms": 1000, "us": MICROSECONDS, "ns": 1000 * MICROSECONDS}


def id_kind(samples: Sequence[str], asked: str) -> Kind:
    """Returns how ids are read: as asked (`integer` or `text`), or as most samples look.

    Most, not all: a stray value among numbers is a malformed row, to be told and not to be made an id.
    """
    if asked != "auto":
        return Whole() if asked == "integer" else Text()
    filled = [text.strip() for text in samples if text.strip()]
    named = any(_NUMBERED_NAME.fullmatch(text) for text in filled)
    return Whole() if not named and _most(Whole(), filled) else Text()


def time_kind(samples: Sequence[str], unit: str) -> tuple[Kind, int]:
    """Returns how times are read and their ticks per second.

    Whole numbers are seconds, or what `unit` says; `auto` takes numbers of more than eleven digits for
    milliseconds, micro- or nanoseconds, whichever puts them between the years 1973 and 5138.
    """
    filled = [text.strip() for text in samples if text.strip()]
    if not filled or _most(Whole(), filled):
        return Whole(), _ticks(filled) if unit == "auto" else _UNITS[unit]
    if _most(Fraction(), filled):
        return Fraction(), MICROSECONDS
    zoned = any(re.search(r"([zZ]|[+-]\d\d(:?\d\d)?)$", text[10:]) for text in filled)
    return Moment(zoned), MICROSECONDS


def _most(kind: Kind, samples: Sequence[str]) -> bool:
    """Returns whether more than half of the samples are of this kind."""
    return sum(_fits(kind, text) for text in samples) * 2 > len(samples)


def _fits(kind: Kind, text: str) -> bool:
    try:
        kind.careful(text)
    except MalformedError:
        return False
    return True


def _ticks(samples: Sequence[str]) -> int:
    largest = max((abs(int(text)) for text in samples if _fits(Whole(), text)), default=0)
    for unit, least in (("ns", 10**17), ("us", 10**14), ("ms", 10**11)):
        if largest >= least:
            return _UNITS[unit]
    return 1
