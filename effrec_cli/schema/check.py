"""A composed mapping to a `Config`, strictly; all that is wrong is reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from effrec_cli import registry
from effrec_cli.errors import ConfigError
from effrec_cli.schema.crosschecks import cross_problems
from effrec_cli.schema.problems import Problem, nearest_path, raise_problems
from effrec_cli.schema.root import Config
from effrec_cli.schema.values import WrongValue, as_choice, check_limits, convert, shown

# Which registry a section's dataclass comes from, and the key of the section that names it.
REGISTERED = {"dataset": ("datasets", "family"), "model": ("models", "name"), "method": ("methods", "name")}


def build(raw: Mapping[str, Any], source: str | None = None) -> Config:
    """Returns the settings as dataclasses, every value checked.

    Args:
        raw: the composed configuration as plain dicts and lists, interpolations resolved.
        source: the file it was read from, named in the error.

    Raises:
        ConfigError: lists all that is wrong: unknown keys with the nearest, wrong types, values out of
            range, settings that contradict each other.
    """
    checker = _Checker(_schemas(raw, source))
    config = checker.section(Config, raw, "")
    raise_problems(checker.problems, source)
    raise_problems(list(cross_problems(config)), source)
    return config


def known_paths(raw: Mapping[str, Any]) -> list[str]:
    """Returns every full key that the schema allows for the dataset, model and method that `raw` names."""
    return list(_paths(Config, _schemas(raw, None)))


def _schemas(raw: Mapping[str, Any], source: str | None) -> dict[str, type]:
    """Returns the dataclass of each registered section of `raw`.

    Raises:
        ConfigError: a section is missing, or names nothing registered.
    """
    return {section: _schema(section, raw.get(section), source) for section in REGISTERED}


def _schema(section: str, values: Any, source: str | None) -> type:
    kind, key = REGISTERED[section]
    if not isinstance(values, Mapping) or not isinstance(values.get(key), str):
        given = shown(values.get(key)) if isinstance(values, Mapping) else shown(values)
        choices = ", ".join(sorted(registry.rows(kind)))
        where = f"{source}: {section}.{key}" if source else f"{section}.{key}"
        raise ConfigError(f"It must name one of: {choices}; not {given}.", where=where, fix=f"{section}=NAME")
    found: type = registry.schema(kind, values[key])
    return found


def _paths(cls: type, schemas: Mapping[str, type], prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(cls).items():
        inner = schemas.get(name, hint) if not prefix else hint
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield from _paths(inner, schemas, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


class _Checker:
    """Walks the dataclasses beside the raw mapping and collects what does not fit."""

    def __init__(self, schemas: dict[str, type]) -> None:
        self.problems: list[Problem] = []
        self._schemas = schemas
        self._known = list(_paths(Config, schemas))

    def section(self, cls: type, raw: Mapping[Any, Any], prefix: str) -> Any:
        """Returns an instance of `cls`; a value that does not fit leaves a problem and the default."""
        hints = get_type_hints(cls)
        self._unknown_keys(raw, hints, prefix)
        values = {}
        for field in dataclasses.fields(cls):
            if field.name in raw:
                hint = hints[field.name] if prefix else self._schemas.get(field.name, hints[field.name])
                values[field.name] = self._field(field, hint, raw[field.name], f"{prefix}{field.name}")
        return cls(**{name: value for name, value in values.items() if value is not dataclasses.MISSING})

    def _unknown_keys(self, raw: Mapping[Any, Any], hints: Mapping[str, Any], prefix: str) -> None:
        for key in raw:
            if key not in hints:
                path = f"{prefix}{key}"
                holder = prefix.rstrip(".") or "the configuration"
                fix = f"keys of {holder}: {', '.join(hints)}"
                what = f"There is no setting called '{path}'."
                self.problems.append(Problem(path, what, nearest_path(path, self._known), fix))

    def _field(self, field: dataclasses.Field[Any], hint: Any, raw: Any, path: str) -> Any:
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self._nested(hint, raw, path)
        try:
            value = convert(as_choice(raw, field.metadata), hint)
            check_limits(value, field.metadata)
        except WrongValue as wrong:
            fix = wrong.fix.replace("KEY", path) if wrong.fix else None
            self.problems.append(Problem(path, wrong.what, wrong.nearest, fix))
            return dataclasses.MISSING
        return value

    def _nested(self, cls: type, raw: Any, path: str) -> Any:
        if isinstance(raw, Mapping):
            return self.section(cls, raw, f"{path}.")
        keys = ", ".join(field.name for field in dataclasses.fields(cls))
        self.problems.append(
            Problem(path, f"It holds settings of its own, not {shown(raw)}.", fix=f"keys: {keys}")
        )
        return dataclasses.MISSING
