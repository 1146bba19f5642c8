"""A dataset's statistics as tables."""

from __future__ import annotations

from typing import Any

from effrec_cli.report.layout import Column, Table


def tables(found: dict[str, Any]) -> list[Table]:
    """Returns the tables that show what `data.describe` found."""
    parts = (_size, _spread, _split, _sample, _dropped, _counted, _side)
    made = [part(found) for part in parts]
    return [table for table in made if table.rows]


def _size(found: dict[str, Any]) -> Table:
    span = found["time"]
    rows = [
        ["users", f"{found['users']:,}"],
        ["items", f"{found['items']:,}"],
        ["rows", f"{found['rows']:,}"],
        ["density", f"{found['density']:.4%}"],
        ["repeated (user, item)", f"{found['duplicates']:,}"],
        ["time", f"{span['first']} to {span['last']}" if span else "none; rows keep the order of the file"],
    ]
    title = f"{found['name']} {found['content_hash'][:12]}"
    return Table(title, _named(2), rows, notes=[found["folder"]] if found["folder"] else [])


def _spread(found: dict[str, Any]) -> Table:
    split = found["split"]
    lines = {
        "rows a user": found["rows_per_user"],
        "rows an item": found["rows_per_item"],
        "rating": found["rating"],
        "history, validation": split["valid"]["history"],
        "history, test": split["test"]["history"],
    }
    headers = list(found["rows_per_user"])
    rows = [[name, *(f"{spread[h]:,.6g}" for h in headers)] for name, spread in lines.items() if spread]
    return Table("Spread", [Column("", right=False), *map(Column, headers)], rows)


def _split(found: dict[str, Any]) -> Table:
    split, rows = found["split"], []
    rows.append(["training", f"{split['train_rows']:,} rows of {split['train_users']:,} users"])
    for part, name in (("valid", "validation"), ("test", "test")):
        cases = split[part]
        line = (
            f"{cases['cases']:,} cases, {cases['targets']:,} targets, {cases['cold_targets']:,} of them cold"
        )
        rows.append([name, line])
    rows += [[_words(key), f"{value:,}"] for key, value in split.items() if isinstance(value, int) and value]
    protocol = ", ".join(f"{key} {value}" for key, value in found["protocol"].items() if key != "kind")
    kind = found["protocol"].get("kind", "")
    counted = [row for row in rows if row[0] not in ("train rows", "train users")]
    return Table(f"Split: {kind}" + (f" ({protocol})" if protocol else ""), _named(2), counted)


def _sample(found: dict[str, Any]) -> Table:
    sample = found.get("sample") or {}
    return Table("Sample", _named(2), [[_words(key), str(value)] for key, value in sample.items()])


def _dropped(found: dict[str, Any]) -> Table:
    rows = [[_words(reason), f"{count:,}"] for reason, count in found["dropped"].items() if count]
    return Table(f"Dropped, of {found['rows_read'] or 0:,} rows read", _named(2), rows)


def _counted(found: dict[str, Any]) -> Table:
    rows = [[_words(what), f"{count:,}"] for what, count in found["reader"].items() if count]
    return Table("Read beside the rows", _named(2), rows)


def _side(found: dict[str, Any]) -> Table:
    rows = [
        [name, " x ".join(map(str, array["shape"])), array["dtype"]] for name, array in found["side"].items()
    ]
    return Table("Beside the interactions", _named(3), rows)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _named(count: int) -> list[Column]:
    """Returns columns without headers, the first to the left."""
    return [Column("", right=False) for _ in range(count)]
