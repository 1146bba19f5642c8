"""A table as data, and its four looks: a terminal's, plain text, Markdown and none at all (csv, json)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Literal

_PLAIN_SIGNS = str.maketrans(
    {"±": "+-", "·": "-", "→": "->", **dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True))}
)

ESSENTIAL = 9
_FOLDED_WIDTH = 24
"""Characters that a column which may fold gets at least."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        header: its name.
        right: numbers, aligned to the right.
        importance: columns of the lowest importance go first where a terminal is too narrow; those of
            `ESSENTIAL` stay.
        folds: its text may take several lines on a terminal.
    """

    header: str
    right: bool = True
    importance: int = 1
    folds: bool = False


@dataclass
class Table:
    """A table of finished text.

    Attributes:
        title: one line above.
        columns: what the cells of a row are.
        rows: one text for each column.
        best: (row, column) of the cells to mark.
        notes: lines below.
    """

    title: str
    columns: list[Column]
    rows: list[list[str]]
    best: set[tuple[int, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def marked(self, mark: str) -> list[list[str]]:
        """Returns the rows with the best cells passed through `mark`, such as `{}*`."""
        return [
            [mark.format(cell) if (row, column) in self.best else cell for column, cell in enumerate(cells)]
            for row, cells in enumerate(self.rows)
        ]


def print_table(table: Table) -> None:
    """Prints a table: with rich on a terminal or where COLUMNS gives a width, else as plain aligned text."""
    if sys.stdout.isatty() or _width_is_given():
        _print_rich(table)
    else:
        say(as_text(table))


def _width_is_given() -> bool:
    columns = os.environ.get("COLUMNS", "")
    return columns.isdecimal() and int(columns) > 0


def say(text: str) -> None:
    """Prints text, with plain signs in place of those that the output's encoding lacks."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(_PLAIN_SIGNS)
    print(text)


def as_text(table: Table) -> str:
    """Returns aligned columns, two spaces apart, without any drawing."""
    headers = [column.header for column in table.columns]
    lines = [*([headers] if any(headers) else []), *table.marked("{}*")]
    widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
    body = ["  ".join(_padded(line, widths, table.columns)).rstrip() for line in lines]
    return "\n".join([table.title, *body, *_notes(table, "*")])


def as_markdown(table: Table) -> str:
    """Returns a Markdown table, the best cells bold."""
    head = _piped([column.header for column in table.columns])
    rule = "|" + "|".join(" ---: " if column.right else " --- " for column in table.columns) + "|"
    notes = [f"- {note}" for note in _notes(table, "bold:")]
    rows = [_piped(cells) for cells in table.marked("**{}**")]
    return "\n".join([f"**{table.title}**", "", head, rule, *rows, *([""] if notes else []), *notes])


def fitting(table: Table, width: int) -> Table:
    """Returns the table with its least important columns left out until it fits `width` characters."""
    kept = list(range(len(table.columns)))
    while _width(table, kept) > width:
        least = min(kept, key=lambda index: (table.columns[index].importance, -index))
        if table.columns[least].importance >= ESSENTIAL:
            break
        kept.remove(least)
    hidden = [column.header for index, column in enumerate(table.columns) if index not in kept]
    more = [f"Too narrow for: {', '.join(hidden)}."] if hidden else []
    return Table(
        table.title,
        [table.columns[index] for index in kept],
        [[cells[index] for index in kept] for cells in table.rows],
        {(row, kept.index(column)) for row, column in table.best if column in kept},
        [*table.notes, *more],
    )


def _width(table: Table, kept: list[int]) -> int:
    """Returns the characters a row takes at least, with two between columns and room for a mark."""
    return sum(_column_width(table, index) + 2 for index in kept) - 2


def _column_width(table: Table, index: int) -> int:
    column = table.columns[index]
    longest = max(len(column.header), *(len(cells[index]) + 1 for cells in table.rows), 0)
    return min(longest, _FOLDED_WIDTH) if column.folds else longest


def _print_rich(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    table = fitting(table, console.width)
    headed = any(column.header for column in table.columns)
    drawn = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), show_header=headed)
    for column in table.columns:
        side: Literal["left", "right"] = "right" if column.right else "left"
        drawn.add_column(column.header, justify=side, no_wrap=not column.folds, overflow="fold")
    for row, cells in enumerate(table.marked("{}*")):
        drawn.add_row(
            *(
                Text(cell, style="bold green" if (row, at) in table.best else "")
                for at, cell in enumerate(cells)
            )
        )
    with console.capture() as seen:
        console.print(Text(table.title, style="bold"))
        console.print(drawn)
        for note in _notes(table, "*"):
            console.print(Text(note, style="dim"))
    say("\n".join(line.rstrip() for line in seen.get().splitlines()))


def _notes(table: Table, mark: str) -> list[str]:
    """Returns the lines below, the last of which says what the mark means where there is one."""
    return [*table.notes, *([f"{mark} the best of its column"] if table.best else [])]


def _padded(cells: list[str], widths: list[int], columns: list[Column]) -> list[str]:
    return [
        cell.rjust(width) if column.right else cell.ljust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]


def _piped(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
