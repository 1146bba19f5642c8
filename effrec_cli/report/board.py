"""Boards of the leaderboard as tables for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from effrec_cli.report import figures
from effrec_cli.report.compare import Board, Comparison, Entry
from effrec_cli.report.layout import Column, Table
from effrec_cli.report.settings import as_words
from effrec_cli.result import Result
from effrec_cli.schema.protocols import shortfall

Number = float | None
_NAMED = 3
"""Folders named in a line; more would hide the tables."""


@dataclass(frozen=True)
class Field:
    """One column of a board.

    Attributes:
        column: how it is laid out.
        text: what a line shows.
        number: what lines compete with, the lowest best; None where they do not.
    """

    column: Column
    text: Callable[[Entry], str]
    number: Callable[[Entry], Number] | None = None


def board_table(board: Board) -> Table:
    """Returns a board as a table: the best of each column marked, columns without any figure left out."""
    every = [*_names(), *_quality(board.metric), *_costs()]
    shown = [field for field in every if any(field.text(entry) != figures.MISSING for entry in board.entries)]
    best = {(row, at) for at, field in enumerate(shown) for row in _winners(field, board.entries)}
    return Table(
        title=_title(board),
        columns=[field.column for field in shown],
        rows=[[field.text(entry) for field in shown] for entry in board.entries],
        best=best,
        notes=board.notes,
    )


def copies_line(comparison: Comparison) -> str | None:
    """Returns one line on the folders that hold a copy of another's run, or None where there are none."""
    said = [f"{copy} is a copy of {original}" for copy, original in comparison.copies]
    return f"Counted once: {_some(said)}." if said else None


def unfinished_line(comparison: Comparison) -> str | None:
    """Returns one line on the runs without a result, or None where all have one."""
    folders: dict[str, list[str]] = {}
    for run in comparison.unfinished:
        state = "damaged" if run.status.state == "done" else run.status.state
        folders.setdefault(state, []).append(str(run.folder))
    if not folders:
        return None
    counted = ", ".join(f"{len(names)} {state} ({_some(names)})" for state, names in folders.items())
    return f"Without a result: {counted}; effrec show RUN says why."


def _some(names: list[str]) -> str:
    """Returns the first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join([*names[:_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _names() -> list[Field]:
    return [
        Field(Column("method", right=False, importance=9), lambda entry: entry.first.method),
        Field(Column("model", right=False, importance=4), lambda entry: entry.first.model),
        Field(
            Column("settings", right=False, importance=9, folds=True),
            lambda entry: as_words(entry.settings) or figures.MISSING,
        ),
        Field(Column("seeds", right=False, importance=2), lambda entry: ",".join(map(str, entry.seeds))),
    ]


def _quality(metric: str) -> list[Field]:
    def shown(entry: Entry) -> str:
        scores = entry.scores(metric)
        return figures.score(figures.mean(scores), figures.deviation(scores))

    def missing(entry: Entry) -> Number:
        score = figures.mean(entry.scores(metric))
        return None if score is None else shortfall(metric, score)

    return [
        Field(Column(metric, importance=9), shown, missing),
        Field(Column("of ceiling", importance=3), lambda entry: figures.share(entry.ceiling_share(metric))),
    ]


def _costs() -> list[Field]:
    return [
        _cost("s/epoch", figures.seconds, lambda result: result.cost.seconds_per_epoch, 6),
        _cost("total", figures.seconds, lambda result: result.cost.seconds_total, 7),
        Field(
            Column("total with factors", importance=6),
            lambda entry: figures.seconds(entry.seconds_with_factors),
            lambda entry: entry.seconds_with_factors,
        ),
        _cost("to 95 %", figures.seconds, lambda result: result.cost.seconds_to_95, 3),
        _cost("energy", figures.joules, lambda result: result.cost.joules, 3),
        _cost("peak memory", figures.memory, lambda result: result.cost.peak_memory_bytes, 6),
        _cost("parameters", figures.count, lambda result: result.cost.parameters.all, 4),
        _tpme("TPME", lambda entry: entry.tpme),
        _tpme("TPME with cache", lambda entry: entry.tpme_with_cache),
    ]


def _tpme(header: str, read: Callable[[Entry], Number]) -> Field:
    def shown(entry: Entry) -> str:
        value = read(entry)
        return figures.MISSING if value is None else f"{value:.3f}"

    return Field(Column(header, importance=5), shown, read)


def _cost(
    header: str, write: Callable[[Number], str], read: Callable[[Result], Number], importance: int
) -> Field:
    return Field(
        Column(header, importance=importance),
        lambda entry: write(entry.cost(read)),
        lambda entry: entry.cost(read),
    )


def _winners(field: Field, entries: list[Entry]) -> list[int]:
    """Returns the lines with the lowest number, or none where fewer than two differ."""
    numbers = [field.number(entry) for entry in entries] if field.number else []
    there = {number for number in numbers if number is not None}
    if len(there) < 2:
        return []
    return [row for row, number in enumerate(numbers) if number == min(there)]


def _title(board: Board) -> str:
    split = board.protocol.get("split", {})
    words = [
        board.protocol.get("task"),
        split.get("kind") if isinstance(split, dict) else split,
        _said("candidates", board.protocol.get("candidates")),
        _said("seen items", board.protocol.get("seen")),
    ]
    stamp = ", ".join(word for word in words if word)
    return f"{board.dataset} ({board.content_hash[:8]}) · {stamp}"


def _said(what: str, value: object) -> str | None:
    return None if value is None else f"{what}: {value}"
