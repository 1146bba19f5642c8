"""`effrec help`: what the verbs are."""

from __future__ import annotations

import importlib

from effrec_cli import __version__
from effrec_cli.errors import unknown_name
from effrec_cli.verbs import VERBS

_FOOT = """
first steps:
  effrec train                                     the default: method cce on simulated data
  effrec train method=pop,cce -m                   two runs
  effrec compare outputs/                          their leaderboard
  effrec train dataset=ml-20m                      fetches, prepares and trains
  effrec train --help                              every group and option

Results lie under ./outputs, data under $EFFREC_DATA (default ~/.cache/effrec). --debug shows tracebacks.
Exit codes: 0 ok, 2 usage or settings, 3 data, 4 out of memory, 5 non-finite loss, 6 environment,
130 Ctrl-C before a run began, 143 interrupted and resumable.
Shell completion: eval "$(effrec -sc install=bash)"."""


def main(argv: list[str]) -> int:
    """Prints the verbs, or the help of the one named in `argv`."""
    if argv and argv[0] in VERBS and argv[0] != "help":
        code: int = importlib.import_module(f"effrec_cli.commands.{argv[0]}").main(["--help"])
        return code
    if argv and argv[0] not in ("help", "--help", "-h"):
        raise unknown_name("verb", argv[0], VERBS)
    print(text())
    return 0


def text() -> str:
    """Returns the help screen."""
    uses = {verb: f"{verb} {row.usage}".rstrip() for verb, row in VERBS.items()}
    width = max(map(len, uses.values())) + 2
    lines = [f"  {uses[verb].ljust(width)}{row.summary}" for verb, row in VERBS.items()]
    head = f"effrec {__version__}: train recommenders efficiently, and know what it cost."
    return "\n".join([head, "", "usage: effrec VERB ...", "", *lines, _FOOT])
