"""Tables of README and docs, made from the records, between `<!-- bench:X -->` and `<!-- /bench:X -->`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from effrec_cli.bench.records import Record, read
from effrec_cli.report.figures import MISSING, significant

_BLOCK = re.compile(r"(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench:\2 -->)", re.S)


def documents(root: Path) -> list[Path]:
    """Returns the documents of a source tree that hold tables."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return [page for page in pages if page.is_file() and _BLOCK.search(page.read_text(encoding="utf-8"))]


def renewed(page: Path, results: Path) -> str:
    """Returns the text of a document with its tables made anew from the records in `results`."""

    def table(found: re.Match[str]) -> str:
        return found[1] + suite_tables(found[2], results) + found[3]

    return _BLOCK.sub(table, page.read_text(encoding="utf-8"))


def suite_tables(suite: str, results: Path) -> str:
    """Returns the tables of a suite in Markdown, one for each device measured, GPUs first."""
    kept = [read(path) for path in sorted(results.glob(f"{suite}-*.json"))]
    kept.sort(key=lambda records: records[0]["device_kind"] != "cuda")
    if not kept:
        return f"\nNot measured yet: `effrec bench {suite}`.\n\n"
    return "\n" + "\n".join(_device_table(records) for records in kept) + "\n"


def _device_table(records: list[Record]) -> str:
    figures = list(dict.fromkeys(name for record in records for name in record["figures"]))
    units = {name: record["figures"][name]["unit"] for record in records for name in record["figures"]}
    heads = ["cell", "by", *(f"{name}, {units[name]}" if units[name] else name for name in figures)]
    lines = [_row(heads), "|" + " --- |" * 2 + " ---: |" * len(figures)]
    for cell in dict.fromkeys(record["cell"] for record in records):
        of_cell = [record for record in records if record["cell"] == cell]
        for at, record in enumerate(of_cell):
            name = f"{cell}: {_words(record['parameters'])}" if at == 0 else ""
            lines.append(_row([name, record["peer"], *_values(record, figures)]))
    return "\n".join([_caption(records), "", *lines, ""])


def _caption(records: list[Record]) -> str:
    """Returns where and when the records were measured."""
    newest = max(records, key=lambda record: record["date"])
    commits = list(dict.fromkeys(name[:8] for record in records for name in record["commit"].split(", ")))
    counts = sorted({record["threads"] for record in records})
    threads = f", threads: {', '.join(map(str, counts))}" if newest["device_kind"] == "cpu" else ""
    versions = ", ".join(f"{name} {version}" for name, version in newest["versions"].items() if version)
    return f"**{newest['device']}**{threads} ({versions}; commit {', '.join(commits)}; {newest['date'][:10]})"


def _values(record: Record, figures: list[str]) -> list[str]:
    if "error" in record and not record["figures"]:
        return [record["error"], *[MISSING] * (len(figures) - 1)]
    return [_value(record["figures"].get(name)) for name in figures]


def _value(figure: dict[str, Any] | None) -> str:
    """Returns the median, with the smallest and the largest value where they show a difference."""
    if figure is None:
        return MISSING
    median, low, high = (_number(figure[name]) for name in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else significant(value)


def _words(parameters: dict[str, Any]) -> str:
    return ", ".join(_word(name, value) for name, value in parameters.items())


def _word(name: str, value: Any) -> str:
    """Returns a parameter, a number with its name and a text, such as `float32`, without."""
    if isinstance(value, str):
        return value
    if value == 1 and name.isalpha():
        name = name.removesuffix("s")
    return f"{value:,} {name}" if isinstance(value, int) else f"{value:g} {name}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
