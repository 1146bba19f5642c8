"""`effrec VERB ...`: finds the verb, runs it, and turns whatever happens into one screen and an exit code.

Imports nothing heavy, so that `effrec --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys

from effrec_cli import __version__, failures
from effrec_cli.errors import ConfigError, unknown_name
from effrec_cli.verbs import VERBS

BROKEN_PIPE, INTERRUPTED = 141, 130


def main(argv: list[str] | None = None) -> int:
    """Runs `effrec ARGV` and returns the exit code.

    Args:
        argv: the words after `effrec`; None takes them from the command line.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "--debug" in words:
        words = [word for word in words if word != "--debug"]
        os.environ[failures.DEBUG_VARIABLE] = "1"
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _hang_up()
    except KeyboardInterrupt:
        print("\neffrec: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as exit_:
        return _exit_code(exit_)
    except Exception as error:
        return failures.report(error)


def _run(words: list[str]) -> int:
    verb = words[0] if words else "--help"
    if verb in ("--help", "-h"):
        return _call("help", [])
    if verb == "--version" and len(words) > 1:
        raise ConfigError("--version stands alone.", where=" ".join(words), fix="effrec doctor --json")
    if verb == "--version":
        print(f"effrec {__version__}")
        return 0
    if verb in ("-sc", "--shell-completion"):
        return _call("completion", words[1:])
    if verb not in VERBS:
        raise _unknown(verb, words)
    return _call(verb, words[1:])


def _call(verb: str, rest: list[str]) -> int:
    module = importlib.import_module(f"effrec_cli.commands.{verb}")
    code: int = module.main(rest)
    return code


def _unknown(word: str, words: list[str]) -> ConfigError:
    if "=" in word or word in ("-m", "--multirun", "--cfg", "-c"):
        return ConfigError(f"'{word}' is not a verb.", fix=f"effrec train {' '.join(words)}")
    return unknown_name("verb", word, VERBS)


def _exit_code(exit_: SystemExit) -> int:
    """Returns the code of an exit asked for by a library, argparse for one; a message means usage."""
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    print(f"effrec: {exit_.code}", file=sys.stderr)
    return ConfigError.exit_code


def _hang_up() -> int:
    """Returns the shell's code for a reader that left, and keeps Python from complaining at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
