"""`effrec recommend`: the best items for users of a run, or for a history."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli import result
from effrec_cli.arguments import Parser
from effrec_cli.data.lookup import ids_of_file, ids_of_text, rows_of_ids
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.report.listing import Recommendation, as_table, check_suffix, write

if TYPE_CHECKING:
    from effrec_cli.artifacts import OpenRun

_CHUNK = 4096
"""Users recommended to at a time: bounds the memory of a long --users-file."""
_SHOWN_HISTORY = 5


@dataclass(frozen=True)
class Asked:
    """Whom to recommend for.

    Attributes:
        users: int64 user row numbers; -1 for a history given by hand.
        history: int64 item row numbers of that history; None takes each user's from the dataset.
    """

    users: NDArray[np.int64]
    history: NDArray[np.int64] | None = None


def main(argv: list[str]) -> int:
    """Prints or writes the best items with raw ids and titles.

    A user's history is all that the dataset knows of them, what was held out for evaluation included.

    Raises:
        ConfigError: there is no finished run at the path, it does not rank the catalogue, or there is no such
            user, item or file format.
        DataError: a user is asked for and the run's dataset is not on this machine.
        EnvironmentFault: no such device, or the file cannot be written.
    """
    options = _parser().parse_args(argv)
    _check(options)
    # Not before: what is wrong with the words is said at once.
    from effrec_cli import artifacts, env

    opened = artifacts.open_run(options.run, env.resolve_device(options.device), ranks_only=True)
    _refuse_no_ranking(opened, options.run)
    asked = _asked(opened, options)
    lists = _chunks(opened, asked, options)
    if options.out is not None:
        written = write(options.out, (list(chain.from_iterable(chunk)) for chunk in lists))
        print(f"{written:,} recommendations for {len(asked.users):,} users in {options.out}")
        return 0
    every = list(chain.from_iterable(lists))
    if options.json:
        print(json.dumps([asdict(row) for row in chain.from_iterable(every)], indent=2, ensure_ascii=False))
    else:
        _show(opened, asked, every)
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.k < 1:
        raise ConfigError("There is nothing to list.", where=f"-k {options.k}", fix="-k 10")
    if options.out is not None:
        check_suffix(options.out)
    for option, path in (("--users-file", options.users_file), ("--history-file", options.history_file)):
        if path is not None and not path.is_file():
            raise ConfigError(f"There is no file '{path}'.", where=option)
    if options.history is not None and not any(text.strip() for text in options.history):
        raise ConfigError(
            "The history names no item.", where="--history ''", fix="--history '[]' for a user without one"
        )
    result.require_finished(options.run)


def _refuse_no_ranking(opened: OpenRun, run: Path) -> None:
    """Refuses a run whose task is not to rank the catalogue."""
    from effrec_cli.schema.protocols import is_own, task_of

    if is_own(opened.config):
        raise ConfigError(
            f"This run cannot recommend: it is trained for task {task_of(opened.config)}, not to rank the "
            "catalogue.",
            where=str(run),
            fix=f"effrec evaluate {run} says how good it is",
        )


def _refuse_history(opened: OpenRun, run: Path) -> None:
    from effrec_cli.schema.histories import ANOTHER, reads_histories

    if not reads_histories(opened.config):
        raise ConfigError(
            "This run makes nobody of a history: it knows users by vectors that it trained for their ids.",
            where="--history",
            fix=f"effrec recommend {run} --user ID, or train {ANOTHER}",
        )


def _asked(opened: OpenRun, options: argparse.Namespace) -> Asked:
    if options.history is not None or options.history_file is not None:
        _refuse_history(opened, options.run)
    if options.history is not None:
        ids = list(chain.from_iterable(map(ids_of_text, options.history)))
        return Asked(np.array([-1]), rows_of_ids(opened.items, ids, "item", "--history"))
    if options.history_file is not None:
        ids, where = ids_of_file(options.history_file), str(options.history_file)
        return Asked(np.array([-1]), rows_of_ids(opened.items, ids, "item", where))
    if opened.data is None:
        raise DataError(
            "What a user has met is not known: the dataset of this run is not prepared on this machine.",
            where=f"data_root={opened.config.data_root}",
            fix=f"effrec recommend {options.run} --history ID,ID",
        )
    if options.users_file is None:
        return Asked(rows_of_ids(opened.users, options.user, "user", "--user"))
    ids = ids_of_file(options.users_file)
    return Asked(rows_of_ids(opened.users, ids, "user", str(options.users_file)))


def _chunks(
    opened: OpenRun, asked: Asked, options: argparse.Namespace
) -> Iterator[list[list[Recommendation]]]:
    """Yields one list for each user, some users at a time."""
    import torch

    from effrec_cli.evaluation.recommend import top_k

    scorer = opened.method.scorer()
    for first in range(0, len(asked.users), _CHUNK):
        users = asked.users[first : first + _CHUNK]
        found = top_k(
            scorer,
            torch.from_numpy(users),
            _histories(opened, asked, users),
            options.k,
            not options.keep_seen,
        )
        items, scores = (each.numpy() for each in found)
        yield [_listed(opened, *each) for each in zip(users, items, scores, strict=True)]


def _histories(opened: OpenRun, asked: Asked, users: NDArray[np.int64]) -> Any:
    """Returns the histories of these users as the scorer takes them."""
    import torch

    from effrec_cli.evaluation.scorer import Histories

    known = [history_of(opened, asked, user) for user in users]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in known])])
    return Histories(torch.from_numpy(np.concatenate(known)), torch.from_numpy(offsets))


def history_of(opened: OpenRun, asked: Asked, user: int) -> NDArray[np.int64]:
    """Returns the item row numbers that a user has met, oldest first."""
    if asked.history is not None:
        return asked.history
    assert opened.data is not None, "_asked has seen to it"
    sequences = opened.data.sequences
    return sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].astype(np.int64)


def _listed(
    opened: OpenRun, user: int, items: NDArray[np.int64], scores: NDArray[Any]
) -> list[Recommendation]:
    """Returns one user's list with raw ids."""
    name = None if user < 0 else _plain(opened.users.ids[user])
    there = [(int(item), float(score)) for item, score in zip(items, scores, strict=True) if item >= 0]
    return [
        Recommendation(name, rank, _plain(opened.items.ids[item]), _title(opened, item), score)
        for rank, (item, score) in enumerate(there, start=1)
    ]


def _plain(raw_id: Any) -> int | str:
    """Returns a raw id as Python's own kind."""
    return int(raw_id) if isinstance(raw_id, np.integer) else str(raw_id)


def _title(opened: OpenRun, item: int) -> str | None:
    titles = opened.items.titles
    return None if titles is None else str(titles[item]) or None


def _show(opened: OpenRun, asked: Asked, lists: list[list[Recommendation]]) -> None:
    from effrec_cli.report.layout import print_table

    for user, rows in zip(asked.users, lists, strict=True):
        print_table(as_table(_headline(opened, asked, user), rows))


def _headline(opened: OpenRun, asked: Asked, user: int) -> str:
    """Returns who the list is for and what they met last."""
    met = history_of(opened, asked, user)
    last = [_title(opened, int(item)) or str(opened.items.ids[item]) for item in met[-_SHOWN_HISTORY:]]
    who = "for this history" if user < 0 else f"for user {opened.users.ids[user]}"
    after = f", after {'; '.join(last)}" if last else ""
    return f"{who} ({len(met)} items{after})"


def _parser() -> Parser:
    parser = Parser(
        prog="effrec recommend",
        description="The best items for users of the run's dataset, or for a history of item ids. A user's "
        "history is all that the dataset knows of them.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/mine")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--user", nargs="+", metavar="ID", help="raw ids of users")
    whom.add_argument("--users-file", type=Path, metavar="FILE", help="a raw user id a line")
    whom.add_argument(
        "--history",
        action="append",
        metavar="ID,ID",
        help='raw ids of items, oldest first; ids that hold commas as a JSON list: \'["a,b", "c"]\'; given '
        "again, it goes on",
    )
    whom.add_argument(
        "--history-file", type=Path, metavar="FILE", help="a raw item id a line, oldest first: one history"
    )
    parser.add_argument("-k", type=int, default=10, help="items for each (default: 10)")
    parser.add_argument("--keep-seen", action="store_true", help="items of the history may be listed too")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write to a .parquet or .jsonl file")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser
