"""The one parser class of all verbs: wrong words are errors like any other, with nearest name and fix."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from effrec_cli.errors import ConfigError, nearest_name, unknown_name


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose refusals are `ConfigError`s."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError with argparse's own words."""
        raise ConfigError(f"{message[0].upper()}{message[1:]}.", where=self.prog, fix=f"{self.prog} --help")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Returns the options and the words left over, among which no unknown option may be.

        Here and not at the end, so that the parser of a verb's verb looks among its own options.

        Raises:
            ConfigError: there is an option that this parser does not know.
        """
        found, rest = super().parse_known_args(args, namespace)
        unknown = next((word for word in rest if word.startswith("-")), None)
        if unknown is not None:
            raise ConfigError(
                f"There is no option called '{unknown.partition('=')[0]}'.",
                where=self.prog,
                nearest=nearest_option(unknown, self._option_string_actions),
                fix=f"{self.prog} --help",
            )
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuses what is no choice of `action`, before argparse would in its own words."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        if not action.option_strings:
            raise unknown_name("verb", str(value), choices, where=self.prog)
        option = action.option_strings[0]
        raise ConfigError(
            f"'{value}' is not a choice of {option}.",
            where=self.prog,
            nearest=nearest_name(str(value), choices),
            fix=f"choose one of: {', '.join(choices)}",
        )


def nearest_option(word: str, known: Iterable[str]) -> str | None:
    """Returns the long option most like `word`, or None; one letter is like any other letter.

    Args:
        word: what was typed, perhaps with `=VALUE`.
        known: the options there are.
    """
    name = word.partition("=")[0].lstrip("-")
    long = [each.removeprefix("--") for each in known if each.startswith("--")]
    near = nearest_name(name, long) if len(name) > 1 else None
    return f"--{near}" if near else None
