"""One setting's value against its type and its limits; nothing is guessed, only `int -> float` converts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from effrec_cli.errors import nearest_name

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false values"}


class WrongValue(Exception):
    """A value that a setting cannot take.

    Args:
        what: what is wrong.
        nearest: the valid value closest to the one given.
        fix: what to write instead.
    """

    def __init__(self, what: str, nearest: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what, self.nearest, self.fix = what, nearest, fix


def convert(raw: Any, hint: Any) -> Any:
    """Returns `raw` as the annotated type `hint` holds it.

    Args:
        raw: what YAML or the command line gave.
        hint: `int`, `float`, `str`, `bool`, `Any`, `Literal`, a list or dict of these, or a union with None.

    Raises:
        WrongValue: it is of another type.
        TypeError: `hint` is none of these.
    """
    origin = get_origin(hint)
    if hint is Any:
        return raw
    if origin in (Union, UnionType):
        return _any_of(raw, hint)
    if origin is Literal:
        return _one_of(raw, get_args(hint))
    if origin in (list, dict):
        return _container(raw, hint, origin)
    if hint not in _KINDS:
        raise TypeError(f"settings of type {hint} are not supported")
    return _scalar(raw, hint)


def as_choice(raw: Any, limits: Mapping[str, Any]) -> Any:
    """Returns a number as the text of the choice that is written so, such as 2018; all else as it is."""
    choices = limits.get("choices") or ()
    return str(raw) if type(raw) is int and str(raw) in choices else raw


def check_limits(value: Any, limits: Mapping[str, Any]) -> None:
    """Holds a converted value, or each element of a list, against a field's metadata.

    Args:
        value: the converted value; None is always within limits.
        limits: `choices`, `low`, `high`, `above` as `schema.fields.setting` keeps them.

    Raises:
        WrongValue: it lies outside.
    """
    if isinstance(value, list):
        for element in value:
            check_limits(element, limits)
    elif isinstance(value, str):
        _check_choice(value, limits.get("choices"))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(value, limits)


def describe(hint: Any) -> str:
    """Returns the type in words, such as `a whole number or null`."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not NoneType]
        words = [describe(part) for part in parts]
        return " or ".join([*words, "null"] if NoneType in get_args(hint) else words)
    if origin is list:
        element = get_args(hint)[0]
        return f"a list of {_PLURALS.get(element, describe(element))}"
    if origin is dict:
        return "a mapping"
    return _KINDS.get(hint, str(hint))


def shown(raw: Any) -> str:
    """Returns the value in words, with its type where the bare value would not tell it."""
    if raw is None:
        return "null"
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str):
        return f"the text '{raw}'"
    if isinstance(raw, list):
        return f"the list {raw}"
    if isinstance(raw, dict):
        return "a mapping"
    return str(raw)


def _any_of(raw: Any, hint: Any) -> Any:
    if raw is None and NoneType in get_args(hint):
        return None
    for part in get_args(hint):
        if part is not NoneType:
            try:
                return convert(raw, part)
            except WrongValue as wrong:
                inside = wrong
    if type(raw) in [origin for part in get_args(hint) if (origin := get_origin(part))]:
        raise inside
    raise WrongValue(f"It must be {describe(hint)}, not {shown(raw)}.", fix=inside.fix)


def _one_of(raw: Any, choices: tuple[Any, ...]) -> Any:
    if raw not in choices:
        _check_choice(str(raw), tuple(str(choice) for choice in choices))
    return raw


def _container(raw: Any, hint: Any, kind: Any) -> Any:
    if not isinstance(raw, kind):
        fix = f"write [{raw}]" if kind is list and isinstance(raw, (int, float, str)) else None
        raise WrongValue(f"It must be {describe(hint)}, not {shown(raw)}.", fix=fix)
    if kind is dict:
        return {str(key): convert(value, get_args(hint)[1]) for key, value in raw.items()}
    return [_element(value, get_args(hint)[0], place) for place, value in enumerate(raw)]


def _element(raw: Any, hint: Any, place: int) -> Any:
    try:
        return convert(raw, hint)
    except WrongValue as wrong:
        what = f"Element {place}: {wrong.what[0].lower()}{wrong.what[1:]}"
        raise WrongValue(what, wrong.nearest, wrong.fix) from None


def _scalar(raw: Any, kind: type) -> Any:
    if kind is float and type(raw) is int:
        return _to_float(raw)
    if type(raw) is kind:
        return raw
    fix = _REMEDIES[kind](raw) if not isinstance(raw, (list, dict, NoneType)) else None
    raise WrongValue(f"It must be {_KINDS[kind]}, not {shown(raw)}.", fix=fix)


def _to_float(raw: int) -> float:
    try:
        return float(raw)
    except OverflowError:
        raise WrongValue(f"It must be {_KINDS[float]}; this one has {len(str(raw))} digits.") from None


def _as_int(raw: Any) -> str | None:
    number = _number(raw)
    return f"write {int(number)}" if number is not None and number.is_integer() else None


def _as_float(raw: Any) -> str | None:
    number = _number(raw)
    return f"write {raw} without quotes" if number is not None else None


def _as_text(raw: Any) -> str | None:
    return f"""quote it twice on the command line, KEY='"{raw}"', or once in a file"""


def _as_bool(raw: Any) -> str | None:
    return {"0": "write false", "1": "write true"}.get(str(raw), "write true or false")


_REMEDIES: dict[type, Callable[[Any], str | None]] = {
    int: _as_int,
    float: _as_float,
    str: _as_text,
    bool: _as_bool,
}


def _number(raw: Any) -> float | None:
    if isinstance(raw, bool):
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_choice(value: str, choices: tuple[str, ...] | None) -> None:
    if choices and value not in choices:
        raise WrongValue(
            f"'{value}' is not a choice here.",
            nearest=nearest_name(value, choices),
            fix=f"choose one of: {', '.join(choices)}",
        )


def _check_range(value: float, limits: Mapping[str, Any]) -> None:
    low, high, above = (limits.get(name) for name in ("low", "high", "above"))
    if not math.isfinite(value):
        raise WrongValue(f"It must be a finite number, not {value}.")
    if low is not None and value < low:
        raise WrongValue(f"{value} is too small.", fix=f"write {low} or more")
    if above is not None and value <= above:
        raise WrongValue(f"{value} is too small.", fix=f"write more than {above}")
    if high is not None and value > high:
        raise WrongValue(f"{value} is too large.", fix=f"write {high} or less")
