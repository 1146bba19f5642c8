"""Reads MIND's two tables: news.tsv and behaviors.tsv, by whole blocks of lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.blocks import BadRows, Block, Column
from effrec_cli.data.delimited import Dialect, open_bytes, read_delimited
from effrec_cli.data.ids import IdEncoder
from effrec_cli.data.kinds import Kind, MalformedError, Mask, Text
from effrec_cli.data.types import Int32, Int64
from effrec_cli.errors import DataError

NEWS = ("id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
BODY = "body"
BEHAVIORS = ("impression", "user", "time", "history", "impressions")
_CLOCK = "%m/%d/%Y %I:%M:%S %p"
_SHOWN = r"\S+-[01](?: \S+-[01])*"
_LABEL = 2
"""Characters of a label: `-0` or `-1`."""


@dataclass(frozen=True)
class Clock(Kind):
    """A moment such as `11/11/2019 9:05:58 AM`; read as whole seconds, taken as UTC."""

    dtype = np.int64

    def arrow_type(self) -> Any:
        """Returns string."""
        import pyarrow as pa

        return pa.string()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns int64 seconds and flags what is no such moment."""
        import pyarrow.compute as pc

        moments = pc.strptime(array, format=_CLOCK, unit="s", error_is_null=True).cast("int64")
        bad = moments.is_null().to_numpy(zero_copy_only=False)
        return moments.fill_null(0).to_numpy(zero_copy_only=False), bad

    def careful(self, text: str) -> int:
        """Returns the seconds."""
        if not text.strip():
            raise MalformedError("is missing")
        try:
            return int(datetime.strptime(text.strip(), _CLOCK).replace(tzinfo=UTC).timestamp())
        except ValueError:
            raise MalformedError("is not a moment such as 11/11/2019 9:05:58 AM") from None


@dataclass(frozen=True)
class Shown(Kind):
    """Candidates with labels, such as `N1-0 N2-1`."""

    dtype = object

    def arrow_type(self) -> Any:
        """Returns string."""
        import pyarrow as pa

        return pa.string()

    def fast(self, array: Any) -> tuple[NDArray[Any], Mask]:
        """Returns an object array of str and flags what has not a label at each candidate."""
        import pyarrow.compute as pc

        good = pc.match_substring_regex(array, f"^{_SHOWN}$").fill_null(False)
        return array.to_numpy(zero_copy_only=False), ~good.to_numpy(zero_copy_only=False)

    def careful(self, text: str) -> str:
        """Returns the text as it is."""
        if not text.strip():
            raise MalformedError("is missing")
        if not re.fullmatch(_SHOWN, text):
            raise MalformedError("has a candidate without a label -0 or -1, as in 'N1-0 N2-1'")
        return text


@dataclass(frozen=True)
class News:
    """V news items by ascending id.

    Attributes:
        ids: strings [V].
        texts: strings [V], what the settings take for the items' text.
    """

    ids: NDArray[Any]
    texts: NDArray[Any]


@dataclass(frozen=True)
class Log:
    """n impressions in file order; items are rows of the news.

    Attributes:
        user_ids: raw ids, ascending.
        users: int32 [n] indices into them.
        times: int64 [n] seconds.
        part: int8 [n].
        offsets: int64 [n + 1] into the candidates.
        candidates: int32 [total].
        clicks: uint8 [total].
        history: int32 [n], which of the distinct histories each has.
        history_offsets: int64 [histories + 1] into the items of histories.
        history_items: int32, oldest first.
    """

    user_ids: NDArray[Any]
    users: Int32
    times: Int64
    part: NDArray[np.int8]
    offsets: Int64
    candidates: Int32
    clicks: NDArray[np.uint8]
    history: Int32
    history_offsets: Int64
    history_items: Int32


def read_news(paths: Sequence[Path], text: str, bad: BadRows) -> News:
    """Returns the news of all files; of an id that comes again, the first row counts.

    Args:
        paths: files called news.tsv.
        text: which columns make the text, joined by `_`: title, abstract, body.
        bad: what to do with a malformed row.

    Raises:
        DataError: a malformed row, or no body where one is asked for.
    """
    wanted = text.split("_")
    about: dict[str, str] = {}
    for path in paths:
        names = _news_columns(path, BODY in wanted)
        columns = [Column(name, name, Text(required=name == "id")) for name in ("id", *wanted)]
        for block in read_delimited(path, Dialect("\t", names, quoted=False), columns, bad):
            texts = zip(*(block[name].tolist() for name in wanted), strict=True)
            for item, row in zip(block["id"].tolist(), texts, strict=True):
                about.setdefault(item, " ".join(filter(None, row)))
    ids = sorted(about)
    found = np.empty(len(ids), dtype=object)
    found[:] = [about[item] for item in ids]
    return News(np.array(ids, dtype=np.str_), found)


class BehaviorReader:
    """Collects the impressions of behaviors.tsv files.

    Args:
        news: what the ids in them name.
        bad: what to do with a malformed row.
    """

    def __init__(self, news: News, bad: BadRows) -> None:
        import pyarrow as pa

        self.bad = bad
        self._known = pa.array(news.ids.tolist(), pa.string())
        self._users = IdEncoder()
        self._histories: dict[str, int] = {}
        self._pieces: dict[str, list[NDArray[Any]]] = {
            name: []
            for name in ("times", "part", "sizes", "candidates", "clicks", "history", "lengths", "read")
        }

    def add(self, path: Path, part: int, blocks: int | None = None) -> None:
        """Reads one file, whose impressions are all of one part, or its first blocks of lines alone.

        Raises:
            DataError: a malformed row, or one with an id that no news has.
        """
        kinds: dict[str, Kind] = {
            "impression": Text(),
            "user": Text(),
            "time": Clock(),
            "history": Text(required=False),
            "impressions": Shown(),
        }
        columns = [Column(name, name, kind) for name, kind in kinds.items()]
        every = read_delimited(path, Dialect("\t", BEHAVIORS, quoted=False), columns, self.bad)
        for block in islice(every, blocks):
            self._add(self._of_known_news(block, path), part)

    def finish(self) -> Log:
        """Returns all impressions.

        Raises:
            DataError: there are none.
        """
        user_ids, users = self._users.finish()
        whole = {name: np.concatenate(pieces) for name, pieces in self._pieces.items() if pieces}
        self._pieces.clear()
        self._histories.clear()
        return Log(
            user_ids=user_ids,
            users=users,
            times=whole["times"],
            part=whole["part"],
            offsets=_offsets(whole["sizes"]),
            candidates=whole["candidates"],
            clicks=whole["clicks"],
            history=whole["history"],
            history_offsets=_offsets(whole["lengths"]),
            history_items=whole["read"],
        )

    def _add(self, block: Block, part: int) -> None:
        """Takes the rows of a block."""
        self._users.add(block["user"])
        items, clicks, sizes = self._shown(block["impressions"])
        first = len(self._histories)
        words = block["history"].tolist()
        for word in words:
            self._histories.setdefault(word, len(self._histories))
        unseen = np.array(list(dict.fromkeys(w for w in words if self._histories[w] >= first)), dtype=object)
        read, lengths = self._read(unseen)
        found = {
            "times": block["time"],
            "part": np.full(len(words), part, dtype=np.int8),
            "sizes": sizes,
            "candidates": items,
            "clicks": clicks,
            "history": np.fromiter(map(self._histories.__getitem__, words), np.int32, len(words)),
            "lengths": lengths,
            "read": read,
        }
        for name, values in found.items():
            self._pieces[name].append(values)

    def _shown(self, texts: NDArray[Any]) -> tuple[Int32, NDArray[np.uint8], Int64]:
        """Returns some rows' candidates, -1 for unknown ones, their clicks, and how many each row has."""
        import pyarrow.compute as pc

        words, sizes = _words(texts)
        clicks = pc.ends_with(words, "-1").to_numpy(zero_copy_only=False).astype(np.uint8)
        return self._rows(pc.utf8_slice_codeunits(words, 0, -_LABEL)), clicks, sizes

    def _read(self, texts: NDArray[Any]) -> tuple[Int32, Int64]:
        """Returns the items of some histories, -1 for unknown ones, and how many each has."""
        words, sizes = _words(texts)
        return self._rows(words), sizes

    def _rows(self, words: Any) -> Int32:
        import pyarrow.compute as pc

        found = pc.index_in(words, value_set=self._known).fill_null(-1)
        return found.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)

    def _of_known_news(self, block: Block, path: Path) -> Block:
        """Returns the rows of a block whose ids are all in the news; the others are malformed."""
        keep = np.ones(len(block["user"]), dtype=bool)
        for name in ("history", "impressions"):
            items, sizes = self._read(block[name]) if name == "history" else self._shown(block[name])[::2]
            unknown = np.unique(np.repeat(np.arange(len(sizes)), sizes)[items < 0])
            for row in unknown.tolist():
                self._meet_unknown(block, row, name, path)
            keep[unknown] = False
        return block if keep.all() else {role: values[keep] for role, values in block.items()}

    def _meet_unknown(self, block: Block, row: int, column: str, path: Path) -> None:
        texts = block[column][row : row + 1]
        items = self._read(texts)[0] if column == "history" else self._shown(texts)[0]
        word = texts[0].split()[int(np.argmax(items < 0))]
        place = f"{path}, impression {block['impression'][row]}, column '{column}', value '{word}'"
        self.bad.meet("A row names news that no news.tsv lists.", place)


def _words(texts: NDArray[Any]) -> tuple[Any, Int64]:
    """Returns the words of some texts one after the other, an arrow array, and how many each has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pc.split_pattern(pa.array(texts, pa.string()), " ")
    sizes = np.diff(lists.offsets.to_numpy())
    words = lists.flatten()
    real = pc.not_equal(words, "").to_numpy(zero_copy_only=False)
    if not real.all():  # an empty text has one empty word
        owners = np.repeat(np.arange(len(sizes)), sizes)
        sizes, words = np.bincount(owners[real], minlength=len(sizes)), words.filter(pa.array(real))
    return words, sizes.astype(np.int64)


def _news_columns(path: Path, body: bool) -> tuple[str, ...]:
    """Returns the names of a news file's columns, by how many its first line has.

    Raises:
        DataError: a body is asked for, and there is no ninth column.
    """
    with open_bytes(path) as handle:
        columns = handle.readline().count(b"\t") + 1
    if columns == len(NEWS) + 1:
        return (*NEWS, BODY)
    if body:
        raise DataError(
            f"There is no ninth column with bodies; the first line has {columns} columns.",
            where=f"{path}, line 1",
            fix="dataset.text=title_abstract, or add the bodies, which MIND is published without",
        )
    return NEWS


def _offsets(sizes: Int64) -> Int64:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
