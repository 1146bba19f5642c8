"""The verbs of `effrec`: what help shows and what shell completion offers.

A verb called V lives in `effrec_cli/commands/V.py` as `main(argv: list[str]) -> int`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One row of `effrec --help`.

    Attributes:
        usage: what follows the verb.
        summary: one line.
        words: what shell completion offers as its first argument; empty leaves it to file names.
        composes: it takes Hydra overrides, which complete like those of `train`.
    """

    usage: str
    summary: str
    words: tuple[str, ...] = ()
    composes: bool = False


VERBS = {
    "train": Verb("[OVERRIDES] [-m]", "train one run, or a sweep of runs with -m", composes=True),
    "evaluate": Verb("RUN", "score a finished run again"),
    "recommend": Verb("RUN --user ID | --history ID,ID", "best items for a user or a history"),
    "compare": Verb("RUN...", "the leaderboard: quality beside cost, one table a protocol"),
    "show": Verb("RUN", "one run: settings, metrics, cost"),
    "resume": Verb("RUN", "go on with an interrupted run"),
    "data": Verb(
        "ls|fetch|import|describe|sample|verify",
        "the datasets on this machine",
        ("ls", "fetch", "import", "describe", "sample", "verify"),
    ),
    "ls": Verb(
        "methods|datasets|models|experiments",
        "what can be named in a run",
        ("methods", "datasets", "models", "experiments"),
    ),
    "validate": Verb(
        "[OVERRIDES]", "check a run without training: files, shapes, size, memory", composes=True
    ),
    "doctor": Verb("", "check this machine: versions, GPU, disk, caches"),
    "bench": Verb("SUITE", "measure speed and memory against peers"),
    "help": Verb("[VERB]", "this text, or a verb's"),
}
