"""Hydra's and OmegaConf's exceptions as errors of ours: what, where, the nearest name, the fix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effrec_cli.errors import ConfigError, EffrecError, unknown_name
from effrec_cli.schema import check
from effrec_cli.schema.problems import nearest_path

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

_QUOTES = """quote twice what holds more than plain letters, digits and signs: 'KEY="a value"'"""


@dataclass
class Context:
    """What an error text may need to know.

    Attributes:
        overrides: what the user typed.
        loader: Hydra's loader, for the names of groups and keys; None before there is one.
    """

    overrides: list[str] = field(default_factory=list)
    loader: ConfigLoader | None = None


@contextmanager
def translated(overrides: list[str] | None = None) -> Iterator[Context]:
    """Turns whatever Hydra or OmegaConf raises inside into a ConfigError.

    Args:
        overrides: what the user typed.

    Yields:
        a context; set its `loader` to let errors name groups and keys.
    """
    context = Context(list(overrides or []))
    try:
        yield context
    except (EffrecError, BrokenPipeError):
        raise
    except Exception as error:
        raise explain(error, context) from error


def explain(error: Exception, context: Context) -> ConfigError:
    """Returns the ConfigError for an exception of Hydra, OmegaConf or PyYAML."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, context)
    if isinstance(error, MissingConfigException):
        return _no_such_option(error, context)
    if isinstance(error, OmegaConfBaseException):
        return _bad_node(error)
    if isinstance(error, YAMLError):
        return _bad_yaml(error)
    return _by_message(error, context)


def _by_message(error: Exception, context: Context) -> ConfigError:
    """Returns the error for the cases that Hydra tells apart by their text alone."""
    text = str(error)
    for pattern, answer in _MESSAGES:
        found = re.search(pattern, text)
        if found:
            return answer(found.group(1), context)
    cause = error.__cause__
    if isinstance(cause, Exception) and not text.strip():
        return explain(cause, context)
    lines = [*_lines(text), *(_lines(str(cause)) if isinstance(cause, Exception) else [])]
    return ConfigError(lines[0] if lines else type(error).__name__, where="; ".join(lines[1:]) or None)


def _unreadable(override: str, context: Context) -> ConfigError:
    """Returns the error for an override that Hydra's grammar does not take."""
    if "=" not in override and not override.startswith("~"):
        return _no_value(override, context)
    reason, place = _syntax(override)
    pointer = f"\n{' ' * (len('  where: ') + place)}^" if place is not None else ""
    return ConfigError(f"Cannot read the setting: {reason}.", where=f"{override}{pointer}", fix=_QUOTES)


def _no_value(word: str, context: Context) -> ConfigError:
    options = _options(context, word)
    if options:
        return ConfigError(f"'{word}' needs a value.", fix=f"{word}=NAME, one of: {', '.join(options)}")
    holders = [group for group in _groups(context) if word in _options(context, group)]
    return ConfigError(
        f"'{word}' is not a setting: settings are written KEY=VALUE.",
        nearest=f"{holders[0]}={word}" if holders else nearest_path(word, _keys(context)),
        fix="effrec train --help lists the groups, effrec train --cfg job every key",
    )


def _syntax(override: str) -> tuple[str, int | None]:
    """Returns why and at which character Hydra's grammar stops."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_rule(override, "override")
    except HydraException as error:
        token = getattr(error.__cause__, "offendingToken", None)
        place = getattr(error.__cause__, "startIndex", None) if token is None else token.start
        reason = _lines(str(error))[0] if _lines(str(error)) else "a character that does not belong here"
        return reason.removesuffix("."), place
    return "it is not complete", len(override)


def _no_such_option(error: Any, context: Context) -> ConfigError:
    """Returns the error for `group=name` where the group has no such file."""
    if error.missing_cfg_file is None:
        return ConfigError(*_lines(str(error))[:1])
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if not options:
        return _no_such_config(group, name, context, _place(str(error)))
    if not name:
        return _no_value(group, context)
    found = unknown_name(group, name, options, where=_source(context, group, name, str(error)))
    if group == "hydra/launcher":
        extra = "pip install 'effrec[slurm]'"
        found.fix = extra if name.startswith("submitit") else f"{found.fix}; more by {extra}"
    return found


def _no_such_config(group: str, name: str, context: Context, place: str | None) -> ConfigError:
    """Returns the error for a YAML file that is named and not there: a primary config, or one in `group`."""
    from hydra.core.object_type import ObjectType

    known: list[str] = []
    if context.loader is not None:
        options = context.loader.get_group_options(group, results_filter=ObjectType.CONFIG)
        known = [option for option in options if option[0] != "_"]  # Hydra's own helpers
    found = unknown_name("config", name, known, where=place)
    found.what = f"There is no config called '{group + '/' if group else ''}{name}'."
    return found


def _source(context: Context, group: str, name: str, message: str) -> str | None:
    """Returns the override that names the group, or else the YAML that does."""
    typed = [each for each in context.overrides if each.lstrip("+").startswith(f"{group}=")]
    return typed[-1] if typed else (_overriding_file(context, group, name) or _place(message))


def _overriding_file(context: Context, group: str, name: str) -> str | None:
    """Returns the YAML that the user chose, an experiment say, whose `override /group: name` this is.

    Hydra names the primary config: there the group stands.
    """
    line = re.compile(rf"override\s+/?{re.escape(group)}(@\S+)?\s*:\s*{re.escape(name)}\b")
    for choice in (each.lstrip("+").partition("=") for each in context.overrides):
        for source in context.loader.get_sources() if context.loader else ():
            path = Path(source.path) / choice[0] / f"{choice[2]}.yaml"
            if path.is_file() and line.search(path.read_text(encoding="utf-8", errors="replace")):
                return str(path)
    return None


def _place(message: str) -> str | None:
    found = re.search(r"^In '([^']+)':", message)
    return f"{found.group(1)}.yaml" if found else None


def _unknown_key(key: str, context: Context) -> ConfigError:
    """Returns the error for an override of a key that is not there."""
    typed = _typed(key, context) or f"{key}=VALUE"
    keys = _keys(context, typed)
    if key in keys and not typed.startswith("~"):
        return ConfigError(f"'{key}' is not in the composed YAML.", where=typed, fix=f"+{typed}")
    groups = [] if "." in key else _groups(context)
    nearest = nearest_path(key, groups) or nearest_path(key, keys)
    return ConfigError(
        f"There is no setting called '{key}'.",
        where=typed,
        nearest=typed.replace(key, nearest, 1) if nearest else None,
        fix=None if nearest else _siblings(key, keys),
    )


def _siblings(key: str, keys: list[str]) -> str:
    parent = key.rpartition(".")[0]
    names = (
        {each.rpartition(".")[2] for each in keys if each.rpartition(".")[0] == parent} if parent else set()
    )
    if names:
        return f"keys of {parent}: {', '.join(sorted(names))}"
    return "effrec train --cfg job shows every key"


def _several_values(override: str, context: Context) -> ConfigError:
    key, _, values = override.partition("=")
    fix = "add -m to run a job for each"
    if "(" not in values:
        fix += f"; a list is written {key}=[{values}]"
    return ConfigError("Several values are given where a single run takes one.", where=override, fix=fix)


def _already_there(key: str, context: Context) -> ConfigError:
    typed = _typed(key, context)
    fix = typed.lstrip("+") if typed else f"{key}=VALUE"
    return ConfigError(f"'{key}' is there already, so it cannot be added.", where=typed, fix=fix)


def _not_a_name(_: str, context: Context) -> ConfigError:
    """Returns the error for a group set to something that is no name, such as `run=3`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for text, override in zip(
        context.overrides, OverridesParser.create().parse_overrides(context.overrides), strict=True
    ):
        key = str(override.key_or_group)
        options = _options(context, key)
        if options and not isinstance(override.value(), (str, list)):
            return ConfigError(
                f"'{key}' takes a name.", where=text, fix=f"{key}=NAME, one of: {', '.join(options)}"
            )
    return ConfigError("A setting has no key.", where=" ".join(context.overrides), fix="write KEY=VALUE")


def _no_such_folder(path: str, context: Context) -> ConfigError:
    return ConfigError(
        "There is no such folder of configs.", where=_typed("hydra.searchpath", context) or path
    )


_MESSAGES = (
    (r"Could not override '([^']+)'", _unknown_key),
    (r"Could not delete (?:from config\. )?'([^'=]+)[^']*'", _unknown_key),
    (r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?:\n| requires)", _several_values),
    (r"An item is already at '([^']+)'", _already_there),
    (r"Multiple values for ([^\s.]+)\.", _already_there),
    (r"(Config group override must be a string)", _not_a_name),
    (r"^provider=.*?, path=(.+) is not available", _no_such_folder),
)


def _bad_node(error: Any) -> ConfigError:
    """Returns the error for a value that OmegaConf cannot give: missing, or an interpolation to nowhere."""
    from omegaconf.errors import MissingMandatoryValue

    key = getattr(error, "full_key", None)
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"'{key}' has no value yet.", where=key, fix=f"{key}=VALUE")
    lines = _lines(str(error))
    return ConfigError(lines[0] if lines else type(error).__name__, where=key)


def _bad_yaml(error: Any) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else None
    return ConfigError(f"Not valid YAML: {getattr(error, 'problem', None) or error}.", where=where)


def _typed(key: str, context: Context) -> str | None:
    """Returns the override of this key as the user typed it."""
    for each in context.overrides:
        if each.lstrip("+~").partition("=")[0] == key:
            return each
    return None


def _groups(context: Context) -> list[str]:
    if context.loader is None:
        return []
    return [*context.loader.list_groups(""), "hydra/launcher", "hydra/sweeper"]


def _options(context: Context, group: str) -> list[str]:
    if context.loader is None or not group:
        return []
    return sorted(context.loader.get_group_options(group))


def _keys(context: Context, without: str | None = None) -> list[str]:
    """Returns every key that could be set, under the other overrides where they compose.

    Where they do not, those that choose of a group do most: `method=gram` decides what keys there are.
    """
    from hydra.types import RunMode

    if context.loader is None:
        return []
    others = [each for each in context.overrides if each != without]
    choices = [each for each in others if each.partition("=")[2] in _options(context, each.partition("=")[0])]
    for overrides in (others, choices, []):
        try:
            composed = context.loader.load_configuration("config", overrides, RunMode.MULTIRUN)
        except Exception:  # these overrides have errors of their own; fewer will do for a hint
            continue
        return [*_flat(composed), *_schema_keys(composed)]
    return []


def _schema_keys(composed: Any) -> list[str]:
    try:
        return check.known_paths(composed)
    except EffrecError:
        return []


def _flat(node: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for key, value in node.items_ex(resolve=False):
        yield f"{prefix}{key}"
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from _flat(value, f"{prefix}{key}.")


def _lines(text: str) -> list[str]:
    """Returns the message's lines without what only Hydra's own users can use."""
    noise = (
        "full_key:",
        "object_type=",
        "reference_type=",
        "Config search path",
        "provider=",
        "See https://",
    )
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(noise)]
