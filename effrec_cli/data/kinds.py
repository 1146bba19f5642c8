"""What a column may hold: how arrow reads it fast, and how one value is read with care.

Each kind has two readers of the same values. `fast` takes an arrow array and flags what it does not like;
`careful` takes the text of one value and says what is wrong with it. Where they differ, `careful` decides.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

LONGEST_ID = 256
"""Characters; a longer id is nearly always a wrong column, and one such id would widen all the others."""

MICROSECONDS = 1_000_000
_WHOLE = re.compile(r"[+-]?[0-9]+")


class MalformedError(ValueError):
    """One value is not what its column should hold; the message completes "this value ..."."""


class Kind(ABC):
    """One kind of column.

    Attributes:
        dtype: numpy dtype of the values read.
    """

    dtype: Any

    @abstractmethod
    def arrow_type(self) -> Any:
        """Returns the arrow type that `fast` expects."""

    @abstractmethod
    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns an arrow array's values, and which of them (nulls included) need the careful reader."""

    @abstractmethod
    def careful(self, text: str) -> Any:
        """Returns one value.

        Raises:
            MalformedError: the text is no such value.
        """


def _nulls(array: Any) -> Mask:
    if array.null_count == 0:
        return np.zeros(len(array), dtype=bool)
    return array.is_null().to_numpy(zero_copy_only=False)


def _filled(array: Any) -> NDArray[Any]:
    """Returns a numeric arrow array's values, 0 for null."""
    return (array.fill_null(0) if array.null_count else array).to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Whole(Kind):
    """A 64-bit whole number: an id, or a time in ticks.

    Attributes:
        low: smallest value allowed, or None.
    """

    low: int | None = None
    dtype = np.int64

    def arrow_type(self) -> Any:
        """Returns int64."""
        import pyarrow as pa

        return pa.int64()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns int64 values and flags those below `low`."""
        values, bad = _filled(array), _nulls(array)
        return (values, bad) if self.low is None else (values, bad | (values < self.low))

    def careful(self, text: str) -> int:
        """Returns the number."""
        text = text.strip()
        if not text:
            raise MalformedError("is missing")
        if not _WHOLE.fullmatch(text):
            raise MalformedError("is not a whole number")
        value = int(text)
        if not -(2**63) <= value < 2**63:
            raise MalformedError("does not fit into 64 bits")
        if self.low is not None and value < self.low:
            raise MalformedError(f"is below {self.low}")
        return value


@dataclass(frozen=True)
class Text(Kind):
    """A string: an id, or, where `required` is false, a title.

    Attributes:
        required: an empty string is malformed, and so is one too long for an id.
    """

    required: bool = True
    dtype = object

    def arrow_type(self) -> Any:
        """Returns string."""
        import pyarrow as pa

        return pa.string()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns an object array of str and flags empty or overlong ids.

        Each distinct string becomes a Python object once, which makes this and the encoding of ids fast.
        """
        missing, encoded = _nulls(array), array.dictionary_encode()
        if missing.any() and not self.required:
            return self.fast(array.fill_null(""))
        words, codes = encoded.dictionary, _filled(encoded.indices)
        if not len(words):
            return np.full(len(array), "", dtype=object), missing
        flagged = self._flagged(words)[codes] if self.required else np.zeros_like(missing)
        return words.to_numpy(zero_copy_only=False)[codes], missing | flagged

    def _flagged(self, words: Any) -> Mask:
        """Returns which of some strings cannot be ids."""
        import pyarrow.compute as pc

        length = _filled(pc.utf8_length(words))
        has_nul = _filled(pc.find_substring(words, "\0")) >= 0
        return (length == 0) | (length > LONGEST_ID) | has_nul

    def careful(self, text: str) -> str:
        """Returns the text as it is."""
        if self.required and not text:
            raise MalformedError("is missing")
        if self.required and len(text) > LONGEST_ID:
            raise MalformedError(f"has {len(text):,} characters, more than {LONGEST_ID} for an id")
        if self.required and "\0" in text:
            raise MalformedError("holds a NUL character")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise MalformedError("is not valid UTF-8")
        return text


@dataclass(frozen=True)
class Number(Kind):
    """A finite number: a rating."""

    dtype = np.float32

    def arrow_type(self) -> Any:
        """Returns float32."""
        import pyarrow as pa

        return pa.float32()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns float32 values and flags those that are not finite."""
        values = _filled(array)
        return values, _nulls(array) | ~np.isfinite(values)

    def careful(self, text: str) -> float:
        """Returns the number."""
        return _finite(text)


@dataclass(frozen=True)
class Label(Kind):
    """A label: 0 or 1."""

    dtype = np.int8

    def arrow_type(self) -> Any:
        """Returns float32, which reads 1 and 1.0 alike."""
        import pyarrow as pa

        return pa.float32()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns int8 values and flags all but 0 and 1."""
        values = _filled(array)
        bad = _nulls(array) | ((values != 0) & (values != 1))
        return (values == 1).astype(np.int8), bad

    def careful(self, text: str) -> int:
        """Returns the label; also reads true and false."""
        named = {"true": 1, "false": 0}.get(text.strip().lower())
        if named is not None:
            return named
        if _finite(text) not in (0.0, 1.0):
            raise MalformedError("is neither 0 nor 1")
        return int(_finite(text))


@dataclass(frozen=True)
class Above(Kind):
    """A label that is written as any number.

    Attributes:
        threshold: numbers above it are read as 1, others as 0.
    """

    threshold: float
    dtype = np.int8

    def arrow_type(self) -> Any:
        """Returns float64."""
        import pyarrow as pa

        return pa.float64()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns int8 values and flags numbers that are not finite."""
        values = _filled(array)
        return (values > self.threshold).astype(np.int8), _nulls(array) | ~np.isfinite(values)

    def careful(self, text: str) -> int:
        """Returns the label."""
        return int(_finite(text) > self.threshold)


@dataclass(frozen=True)
class Fraction(Kind):
    """A time in seconds with a fraction; read as microseconds."""

    dtype = np.int64

    def arrow_type(self) -> Any:
        """Returns float64."""
        import pyarrow as pa

        return pa.float64()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns int64 microseconds and flags what is not finite or out of range."""
        values = _filled(array) * MICROSECONDS
        bad = _nulls(array) | ~(np.abs(values) < 2.0**63)
        return np.where(bad, 0, np.rint(values)).astype(np.int64), bad

    def careful(self, text: str) -> int:
        """Returns microseconds."""
        value = round(_finite(text) * MICROSECONDS)
        if abs(value) >= 2**63:
            raise MalformedError("is too large for a time")
        return value


@dataclass(frozen=True)
class Moment(Kind):
    """A timestamp such as `2019-11-24 00:00:34.76` or `2019-11-24T00:00:34+01:00`; read as microseconds.

    Attributes:
        zoned: values carry a time zone; otherwise they are taken as UTC.
    """

    zoned: bool = False
    dtype = np.int64

    def arrow_type(self) -> Any:
        """Returns a timestamp in microseconds."""
        import pyarrow as pa

        return pa.timestamp("us", tz="UTC" if self.zoned else None)

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns int64 microseconds and flags nulls."""
        return _filled(array.cast("int64")), _nulls(array)

    def careful(self, text: str) -> int:
        """Returns microseconds."""
        text = text.strip()
        if not text:
            raise MalformedError("is missing")
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise MalformedError("is not a timestamp such as 2019-11-24 00:00:34") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86400 + since.seconds) * MICROSECONDS + since.microseconds


def _finite(text: str) -> float:
    """Returns a finite number, or raises MalformedError."""
    if not text.strip():
        raise MalformedError("is missing")
    try:
        value = float(text.replace("_", "x"))
    except ValueError:
        raise MalformedError("is not a number") from None
    if not math.isfinite(value):
        raise MalformedError("is not a finite number")
    return value
