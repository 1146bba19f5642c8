"""Settings of a table that are right alone and wrong together, and which of them decide what is read."""

from __future__ import annotations

from typing import Any

from effrec_cli.errors import ConfigError
from effrec_cli.schema.dataset_base import DRAWN, READY_MADE
from effrec_cli.schema.dataset_table import TableConfig

_COLUMNS = ("user", "item", "time", "rating", "label", "title")
_READING = (*_COLUMNS, "separator", "bad_rows", "ids", "time_unit")
_SINCE = ("correct", "label_above", "items_item", "title_chars", "columns", "dense", "categorical")
"""Settings that came later: named where they are used, so that what was prepared before them stays known."""


def reading(config: TableConfig) -> dict[str, Any]:
    """Returns the settings that decide how files are read, for the fingerprint of what was read."""
    usual = TableConfig()
    used = [name for name in _SINCE if getattr(config, name) != getattr(usual, name)]
    return {name: getattr(config, name) for name in (*_READING, *used)}


def check_table(config: TableConfig) -> None:
    """Checks what no single setting can tell.

    Raises:
        ConfigError: no path is given, or two settings contradict each other.
    """
    if config.path is None:
        raise ConfigError(
            f"dataset={config.name} needs a file.",
            where="dataset.path is not set",
            fix="dataset.path=FILE dataset.user=COLUMN dataset.item=COLUMN",
        )
    _check_parts(config)
    _check_items(config)
    _check_labels(config)
    _check_features(config)
    _check_names(config)
    separator_of(config.separator)


def _check_parts(config: TableConfig) -> None:
    kind = config.split.kind
    if kind in READY_MADE and config.test_path is None:
        raise ConfigError(
            "A ready-made split needs a test file.",
            where=f"dataset.split.kind={kind}",
            fix="dataset.test_path=FILE, or dataset.split.kind=leave_one_out",
        )
    if kind not in READY_MADE and (config.valid_path or config.test_path):
        raise ConfigError(
            "Ready-made parts are given, but the split would ignore them.",
            where=f"dataset.split.kind={kind} with dataset.valid_path or dataset.test_path",
            fix="dataset.split.kind=files, or leave the two paths out",
        )
    if kind in DRAWN and (config.correct is not None or config.user is None):
        rows = "Rows that name no users" if config.user is None else "Answers"
        raise ConfigError(
            f"{rows} are parted by dataset.parts, in their order, and this split would part rows at random.",
            where=f"dataset.split.kind={kind}",
            fix="dataset.split.kind=leave_one_out, or files with ready-made parts",
        )


def _check_items(config: TableConfig) -> None:
    if config.items_path is not None and config.title is None:
        raise ConfigError(
            "A table of items is given, but not which of its columns is the title.",
            where=f"dataset.items_path={config.items_path}",
            fix="dataset.title=COLUMN",
        )
    if config.items_path is None and config.items_item is not None:
        raise ConfigError(
            "A column of the table of items is named, but no such table.",
            where=f"dataset.items_item={config.items_item}",
            fix="dataset.items_path=FILE, or leave it out",
        )


def _check_labels(config: TableConfig) -> None:
    """An answer stands where a rating does, and says of its row what a label would."""
    for name in ("rating", "label"):
        if config.correct is not None and getattr(config, name) is not None:
            raise ConfigError(
                f"A row is either an answer or has a {name}.",
                where=f"dataset.correct={config.correct} with dataset.{name}={getattr(config, name)}",
                fix="leave one of the two out",
            )
    if config.correct is not None and config.filter.min_rating is not None:
        raise ConfigError(
            "Answers have no ratings to filter by.",
            where=f"dataset.filter.min_rating={config.filter.min_rating}",
            fix="dataset.filter.min_rating=null; what is right is above dataset.label_above",
        )
    if config.label_above is not None and config.correct is None and config.label is None:
        raise ConfigError(
            "It says which labels count as 1, but there is no column of labels.",
            where=f"dataset.label_above={config.label_above}",
            fix="dataset.label=COLUMN or dataset.correct=COLUMN, or leave it out",
        )


def _check_features(config: TableConfig) -> None:
    """Features are of labelled rows, and so are rows that name nobody."""
    nobody = [role for role in ("user", "item") if getattr(config, role) is None]
    if len(nobody) == 1:
        other = "item" if nobody == ["user"] else "user"
        raise ConfigError(
            "Rows name a user and an item, or neither of them.",
            where=f"dataset.{nobody[0]}=null with dataset.{other}={getattr(config, other)}",
            fix=f"dataset.{other}=null, its column among dataset.categorical where it shall be read",
        )
    if config.label is None and (nobody or config.dense or config.categorical):
        raise ConfigError(
            "Dense and categorical columns, and rows without users and items, need labels.",
            where="dataset.label is not set",
            fix="dataset.label=COLUMN",
        )
    wanted = [name for name in ("title", "images", "rating") if getattr(config, name) is not None]
    if nobody and wanted:
        raise ConfigError(
            f"Rows that name no items have no {wanted[0]} of theirs.",
            where=f"dataset.item=null with dataset.{wanted[0]}={getattr(config, wanted[0])}",
            fix=f"leave dataset.{wanted[0]} out",
        )
    if nobody and not (config.dense or config.categorical):
        raise ConfigError(
            "Rows without users and items need columns to tell their labels from.",
            where="dataset.dense and dataset.categorical are empty",
            fix="dataset.dense=[COLUMN,...] dataset.categorical=[COLUMN,...]",
        )


def _check_names(config: TableConfig) -> None:
    """Every column has one use, and where the file has no header the settings name them all."""
    used = [getattr(config, name) for name in (*_COLUMNS, "correct")]
    wanted = [name for name in (*used, *config.dense, *config.categorical) if name is not None]
    features = {*config.dense, *config.categorical}
    again = next((name for name in wanted if name in features and wanted.count(name) > 1), None)
    if again is not None:
        raise ConfigError(
            f"Column '{again}' is named twice, and a feature has one use.",
            where="dataset.dense, dataset.categorical and the settings of single columns",
            fix="name it once, or write it twice in the file",
        )


def separator_of(text: str) -> str:
    """Returns the separator; `tab`, or a backslash and a t, are ways to write a tab on a command line.

    Raises:
        ConfigError: it is not one character.
    """
    separator = "\t" if text in ("\\t", "tab") else text
    if len(separator) != 1:
        raise ConfigError(
            "A separator is one character.", where=f"dataset.separator='{text}'", fix="such as ',' ';' or tab"
        )
    return separator
