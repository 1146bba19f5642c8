"""What the columns of a table hold, judged by the text of their first values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from effrec_cli.data.kinds import MICROSECONDS, Fraction, Kind, MalformedError, Moment, Text, Whole

# A number with a leading zero or a plus is a name: as a number it would not come back as written.
_PLAIN_WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,17})")
_UNITS = {"s": 1, "ms": 1000, "us": MICROSECONDS, "ns": 1000 * MICROSECONDS}


def id_kind(samples: Sequence[str], asked: str) -> Kind:
    """Returns how ids are read: as asked (`integer` or `text`), or by what all samples look like."""
    if asked != "auto":
        return Whole() if asked == "integer" else Text()
    filled = [text.strip() for text in samples if text.strip()]
    return Whole() if filled and all(_PLAIN_WHOLE.fullmatch(text) for text in filled) else Text()


def time_kind(samples: Sequence[str], unit: str) -> tuple[Kind, int]:
    """Returns how times are read and their ticks per second.

    Whole numbers are seconds, or what `unit` says; `auto` takes numbers of more than eleven digits for
    milliseconds, micro- or nanoseconds, whichever puts them between the years 1973 and 5138.
    """
    filled = [text.strip() for text in samples if text.strip()]
    if not filled or _all(Whole(), filled):
        ticks = _UNITS[unit] if unit != "auto" else _ticks(filled)
        return Whole(), ticks
    if _all(Fraction(), filled):
        return Fraction(), MICROSECONDS
    zoned = any(re.search(r"([zZ]|[+-]\d\d(:?\d\d)?)$", text[10:]) for text in filled)
    return Moment(zoned), MICROSECONDS


def _all(kind: Kind, samples: Sequence[str]) -> bool:
    try:
        for text in samples:
            kind.careful(text)
    except MalformedError:
        return False
    return True


def _ticks(samples: Sequence[str]) -> int:
    largest = max((abs(int(text)) for text in samples), default=0)
    for unit, least in (("ns", 10**17), ("us", 10**14), ("ms", 10**11)):
        if largest >= least:
            return _UNITS[unit]
    return 1
