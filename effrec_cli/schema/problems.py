"""What is wrong with a setting, and the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from effrec_cli.errors import ConfigError
from effrec_cli.schema.values import shown


@dataclass(frozen=True)
class Problem:
    """One wrong setting.

    Attributes:
        path: its full key, such as `method.num_negatives`.
        what: what is wrong, one sentence.
        nearest: the valid key or value closest to the one given.
        fix: what to write instead.
    """

    path: str
    what: str
    nearest: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        return str(ConfigError(f"{self.path}: {self.what}", nearest=self.nearest, fix=self.fix))


def raise_problems(problems: Sequence[Problem], source: str | None = None) -> None:
    """Raises one ConfigError that lists every problem, the first first; does nothing without any.

    Args:
        problems: what is wrong.
        source: the file the settings come from, if they come from one.
    """
    if not problems:
        return
    first = problems[0]
    if len(problems) == 1:
        where = f"{source}: {first.path}" if source else first.path
        raise ConfigError(first.what, where=where, nearest=first.nearest, fix=first.fix)
    listed = "\n".join(f"  {line}" for problem in problems for line in str(problem).split("\n"))
    raise ConfigError(f"{len(problems)} settings are wrong.\n{listed}", where=source)


def unused_problems(
    own: Any, looked_at: Mapping[str, tuple[str, tuple[Any, ...]]], path: str
) -> Iterator[Problem]:
    """Yields settings that are not their defaults, and that nothing would look at.

    Args:
        own: a dataclass of settings, all of which have defaults.
        looked_at: for a setting's name, the one that it depends on and at which values of that it matters.
        path: the section's full key, such as `method`.
    """
    for name, (key, values) in looked_at.items():
        now = getattr(own, key)
        if now not in values:
            yield from unread_problems(own, path, Needed(f"{path}.{key}", values, now), only=(name,))


@dataclass(frozen=True)
class Needed:
    """What the setting would have to be that decides whether others are looked at.

    Attributes:
        path: its full key.
        values: those of its values at which they are; the first is what an error proposes.
        now: its value, which is none of them.
        words: the values in words; None names each.
    """

    path: str
    values: tuple[Any, ...]
    now: Any
    words: str | None = None

    def __str__(self) -> str:
        key = self.path.rpartition(".")[2]
        return self.words or f"{key}={' or '.join(map(typed, self.values))}"


def unread_problems(
    section: Any, path: str, needed: Needed, *, only: Collection[str] = (), but: Collection[str] = ()
) -> Iterator[Problem]:
    """Yields settings of a section that are not their defaults, since nothing looks at them.

    Args:
        section: a dataclass of settings, all of which have defaults.
        path: its full key, such as `method.factors`.
        needed: what they depend on.
        only: names of those that nothing looks at; () is all, with those of the section's own sections.
        but: names of those that are looked at all the same.
    """
    defaults = type(section)()
    for name in (each.name for each in fields(section)):
        if name in but or (only and name not in only):
            continue
        given, default, full = getattr(section, name), getattr(defaults, name), f"{path}.{name}"
        if is_dataclass(given):
            yield from unread_problems(given, full, needed)
        elif given != default:
            what = f"{name}={typed(given)} would do nothing: it is for {needed}, not {typed(needed.now)}."
            fix = f"{needed.path}={typed(needed.values[0])}, or {full}={typed(default)}"
            yield Problem(full, what, fix=fix)


def typed(value: object) -> str:
    """Returns a value as it is written on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    return value if isinstance(value, str) else shown(value)


_DEEPER = 2
"""Sections further down than a key was looked for, one of its name is hardly the one that was meant."""


def nearest_path(path: str, known: Iterable[str]) -> str | None:
    """Returns the full key most like `path`: a sibling, then a like name elsewhere, then any.

    Initials count as alike: `learning_rate` and `lr`, `wd` and `weight_decay`.

    Args:
        path: the key that was given, such as `run.epochs`.
        known: all valid full keys.
    """
    paths = list(known)
    parent, _, leaf = path.rpartition(".")
    siblings = {_leaf(each): each for each in paths if each.rpartition(".")[0] == parent}
    within = [each for each in paths if each.count(".") - path.count(".") <= _DEEPER]
    anywhere: dict[str, str] = {}
    for each in sorted(within, key=lambda each: each.count(".")):
        anywhere.setdefault(_leaf(each), each)
    named = [each for each in within if _leaf(each) == leaf]
    # A section that is there was meant as it stands, and its own sections are for something else.
    level = [each for each in named if siblings and each.count(".") == path.count(".")]
    near = (
        _closest(leaf, siblings, cutoff=0.6)
        or _most_like(path, level or named)
        or _closest(leaf, anywhere, cutoff=0.7)
        or _by_initials(leaf, siblings)
        or _by_initials(leaf, anywhere)
    )
    # With its siblings known, a long common beginning would make any of them look alike.
    return near or (None if siblings else _closest(path, {each: each for each in paths}, cutoff=0.6))


def _most_like(path: str, paths: list[str]) -> str | None:
    """Returns the one of full keys that resembles `path` most: the encoder's name for `encodr.name`, say."""
    return max(paths, key=lambda each: difflib.SequenceMatcher(None, path, each).ratio(), default=None)


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _by_initials(name: str, options: dict[str, str]) -> str | None:
    for option, path in options.items():
        if "_" in name + option and (_initials(name) == option or name == _initials(option)):
            return path
    return None


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def _closest(name: str, options: dict[str, str], cutoff: float) -> str | None:
    matches = difflib.get_close_matches(name, options, n=1, cutoff=cutoff)
    return options[matches[0]] if matches else None
