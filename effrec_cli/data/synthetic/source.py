"""The simulator as a source of raw data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.source import RawChunk, Say
from effrec_cli.data.synthetic.answers import answers
from effrec_cli.data.synthetic.catalogue import Rows
from effrec_cli.data.synthetic.ceiling import ceiling
from effrec_cli.data.synthetic.features import item_categories, item_features, user_categories, user_features
from effrec_cli.data.synthetic.histories import blocks, ratings
from effrec_cli.data.synthetic.images import images
from effrec_cli.data.synthetic.impressions import impressions
from effrec_cli.data.synthetic.text import titles, tokens, vocabulary
from effrec_cli.data.synthetic.users import BLOCK_USERS, num_blocks
from effrec_cli.data.synthetic.world import World, raw_users
from effrec_cli.data.types import RecData
from effrec_cli.errors import unknown_name
from effrec_cli.schema.dataset_synthetic import SIDES, SyntheticConfig

VERSION = 1
"""Changes whenever the same settings give other data."""
_NOT_CONTENT = {"name", "family", "filter", "split", "parts", "sample"}


class SyntheticSource:
    """A simulated world; implements `data.source.Source`.

    Args:
        config: the simulator's settings.
        data_root: unused, since nothing is fetched.

    Raises:
        ConfigError: settings that contradict each other.
    """

    def __init__(self, config: SyntheticConfig, data_root: Path) -> None:
        for name in config.side:
            if name not in SIDES:
                raise unknown_name("side of a simulated dataset", name, SIDES, where="dataset.side")
        self.config = config
        self.world = World(config)
        self._stats: dict[str, int] = {}

    def ensure(self, say: Say) -> None:
        """Does nothing: a simulated world is always at hand."""

    def fingerprint(self) -> dict[str, Any]:
        """Returns the generator's version and all settings that the content depends on."""
        settings = {name: value for name, value in vars(self.config).items() if name not in _NOT_CONTENT}
        settings["side"] = sorted(self.config.side)
        return {"generator": "effrec-synthetic", "version": VERSION, **settings}

    def chunks(self) -> Iterator[RawChunk]:
        """Yields the interactions, a block of users at a time."""
        rows = left_out = 0
        for block in blocks(self.world):
            users = raw_users(block.number * BLOCK_USERS + block.owners)
            items = self.world.raw_items(block.items)
            share = (block.number + 1) / num_blocks(self.config)
            yield RawChunk(users, items, block.times, ratings(self.world, block), share=share)
            rows += len(items)
            left_out += block.left_out
        self._stats = {"rows_read": rows, "visits_without_item": left_out}

    def titles(self, item_ids: NDArray[Any]) -> NDArray[np.str_] | None:
        """Returns titles made of words, or None where `side` has no text."""
        if "text" not in self.config.side:
            return None
        return titles(self.world, self.world.items_of(item_ids))

    def side(self, data: RecData) -> dict[str, NDArray[Any]]:
        """Returns the arrays that `side` names, by row numbers of `data` (listed in docs/simulator.md)."""
        rows = Rows(self.world, data)
        makers: dict[str, Callable[[Rows], dict[str, NDArray[Any]]]] = {
            "text": self._text,
            "images": lambda rows: {"item_images": images(self.world, rows.items)},
            "features": self._features,
            "impressions": lambda rows: impressions(self.world, rows),
            "answers": lambda rows: answers(self.world, rows),
        }
        made: dict[str, NDArray[Any]] = {}
        for name in sorted(set(self.config.side)):
            made |= makers[name](rows)
        return made

    def _text(self, rows: Rows) -> dict[str, NDArray[Any]]:
        flat, offsets = tokens(self.world, rows.items)
        words = np.array(vocabulary(self.world.num_clusters), dtype=np.str_)
        return {"item_tokens": flat, "item_token_offsets": offsets, "item_vocabulary": words}

    def _features(self, rows: Rows) -> dict[str, NDArray[Any]]:
        return {
            "item_features": item_features(self.world, rows.items),
            "item_categories": item_categories(self.world, rows.items),
            "user_features": user_features(self.world, rows.users),
            "user_categories": user_categories(self.world, rows.users),
        }

    def ceiling(self, data: RecData) -> dict[str, float] | None:
        """Returns what the best possible ranker scores on the test cases; see `synthetic.ceiling`."""
        return ceiling(self.world, data)

    def stats(self) -> dict[str, int]:
        """Returns counts of rows, and of visits that found no item a user might still pick."""
        return dict(self._stats)
