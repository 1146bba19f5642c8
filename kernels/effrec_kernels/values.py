"""Numbers and names that callers pass, checked: an error names the argument and what would do."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor

LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1


def whole_number(name: str, value: Any, low: int = LOWEST, high: int = HIGHEST) -> int:
    """Returns `value` as an int of Python; numpy's integers are whole numbers too.

    Raises:
        TypeError: it is none: 1.0 and True are not, nor is a tensor, which would have to be waited for.
        ValueError: it is outside of [low, high].
    """
    if not is_whole(value):
        raise TypeError(f"{name} must be a whole number, not {shown(value)}")
    if not isinstance(value, int):
        value = operator.index(value)
    if not low <= value <= high:
        raise ValueError(f"{name} must {_range(value, low, high)}, not {value}")
    return value


def is_whole(value: Any) -> bool:
    """Returns whether `value` is an integer, of Python or of another library."""
    if isinstance(value, int):
        return not isinstance(value, bool)
    return hasattr(value, "__index__") and not _is_array(value)


def real_number(name: str, value: Any) -> float:
    """Returns `value` as a float of Python.

    Raises:
        TypeError: it is no number. Tensors are none, for reading one on a device waits for it.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, (bool, str)) or _is_array(value) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    return float(value)


def yes_or_no(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


def not_negative(name: str, value: Any) -> float:
    """Returns `value` as a float; raises TypeError, or ValueError where it is below 0, infinite or NaN."""
    number = real_number(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and not negative, not {value}")
    return number


def one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises ValueError unless `value` is one of `choices`, with the nearest of them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {shown(value, choices)}")


def shown(value: Any, choices: Sequence[str] = ()) -> str:
    """Returns how an error shows a wrong value: a name with the nearest of `choices`, a tensor not at all."""
    if isinstance(value, str):
        near = difflib.get_close_matches(value, choices, n=1)
        return f"'{value}'" + (f"; did you mean '{near[0]}'?" if near else "")
    return "a tensor" if isinstance(value, Tensor) else f"{value!r} ({type(value).__name__})"


def _is_array(value: Any) -> bool:
    """Returns whether `value` is a tensor, or an array of numpy with dimensions: both look like numbers."""
    return isinstance(value, Tensor) or getattr(value, "ndim", 0) > 0


def _range(value: int, low: int, high: int) -> str:
    if not LOWEST <= value <= HIGHEST or (low, high) == (LOWEST, HIGHEST):
        return "fit a signed 64-bit integer"
    return f"be at least {low}" if high == HIGHEST else f"be from {low} to {high}"
