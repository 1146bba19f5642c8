"""`effrec -sc install=SHELL`: shell completion, Hydra's for overrides and our own for verbs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from effrec_cli.compose import CONFIG_NAME, Folders, opened
from effrec_cli.verbs import VERBS


def main(argv: list[str]) -> int:
    """Prints an install script (`install=bash`, zsh, fish), or answers a shell's `query=SHELL`.

    A query's line is in the environment variable COMP_LINE, as bash sets it.
    """
    shell = argv[0].partition("=")[2] if argv and argv[0].startswith("query=") else None
    if shell is None:
        with opened(Folders(), argv) as hydra:
            hydra.shell_completion(CONFIG_NAME, argv)
        return 0
    # A shell shows whatever completion prints: an unfinished line is not an error.
    with contextlib.suppress(Exception, SystemExit), _quiet():
        _answer(shell, os.environ.get("COMP_LINE", ""))
    return 0


def _answer(shell: str, line: str) -> None:
    words = line.split()[1:]
    if not words or (len(words) == 1 and not line.endswith(" ")):
        _offer(shell, (*VERBS, "--help", "--version"), words[0] if words else "")
        return
    verb = VERBS.get(words[0])
    if verb is None:
        return
    if verb.composes:
        _answer_overrides(shell, words[1:], finished=line.endswith(" "))
    elif len(words) == 1 or (len(words) == 2 and not line.endswith(" ")):
        _offer(shell, verb.words, words[1] if len(words) > 1 else "")
    elif words[0] == "data" and words[1] != "ls" and len(words) + line.endswith(" ") == 3:
        _offer(shell, _datasets(), words[2] if len(words) > 2 else "")


def _answer_overrides(shell: str, words: list[str], *, finished: bool) -> None:
    """Lets Hydra complete the line as it would without the verb; its options go first, as it wants them."""
    extra, rest = _config_dir(words)
    flags = [word for word in rest if word in ("-m", "--multirun")]
    settings = [word for word in rest if not word.startswith("-")]
    os.environ["COMP_LINE"] = " ".join(["effrec", *flags, *settings]) + (
        " " if finished or not settings else ""
    )
    with opened(Folders(extra=extra), []) as hydra:
        hydra.shell_completion(CONFIG_NAME, [f"query={shell}"])


def _config_dir(words: list[str]) -> tuple[str | None, list[str]]:
    for place, word in enumerate(words[:-1]):
        if word in ("--config-dir", "-cd"):
            return words[place + 1], words[:place] + words[place + 2 :]
    return None, words


def _datasets() -> tuple[str, ...]:
    with opened(Folders(), []) as hydra:
        return tuple(sorted(hydra.config_loader.get_group_options("dataset")))


def _offer(shell: str, choices: tuple[str, ...], start: str) -> None:
    print(("\n" if shell == "fish" else " ").join(choice for choice in choices if choice.startswith(start)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield
