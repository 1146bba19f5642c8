"""Which towers a side network has, and which of their blocks run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effrec_cli.errors import ConfigError
from effrec_cli.models.taps import TapShape

TOWERS = {"both": ("text", "image", "inter"), "intra": ("text", "image"), "inter": ("inter",)}
MATCHED = "matched"
"""What the inter tower reads of the wider modality: its taps, transformed to the other's width."""


@dataclass(frozen=True)
class Tower:
    """A row of blocks, one a tap.

    Attributes:
        name: `text`, `image` or `inter`.
        width: width D of its state.
        taps: its blocks.
        reads: its modality, or of the inter tower what stands for text and for image; `MATCHED` is one that
            was transformed.
    """

    name: str
    width: int
    taps: int
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """Blocks of towers of one width that run side by side, tap by tap.

    Attributes:
        towers: these towers.
        taps: blocks of each.
        ahead: whether they are a longer tower's first blocks, before the others begin.
    """

    towers: tuple[Tower, ...]
    taps: int
    ahead: bool = False

    @property
    def name(self) -> str:
        """Its towers' names, under which its weights are kept."""
        return "_".join(tower.name for tower in self.towers)

    @property
    def feeds(self) -> tuple[str, ...]:
        """What its towers read, each once."""
        return tuple(dict.fromkeys(feed for tower in self.towers for feed in tower.reads))


def towers_of(shape: TapShape, which: str) -> tuple[Tower, ...]:
    """Returns the towers over taps of a shape, text, image, inter in this order (papers/iisan section 1.10).

    The inter tower pairs the modalities' taps from the last, as many as both have, at the smaller width.

    Args:
        shape: widths and numbers of the taps.
        which: `both`, `intra` or `inter`; of one modality alone there is its intra tower.

    Raises:
        ConfigError: an inter tower is asked for, and a modality is not there.
    """
    modalities = {"text": (shape.text_dim, shape.text_taps), "image": (shape.image_dim, shape.image_taps)}
    towers = [Tower(name, *size, (name,)) for name, size in modalities.items() if size[1]]
    if len(towers) < 2 and (which != "intra" or not towers):
        there = f"{towers[0].name}s alone" if towers else "neither"
        raise ConfigError(
            f"The towers '{which}' read texts and images, and items have {there}.",
            where=f"method.towers={which}",
            fix="set method.towers=intra, or give the other modality too",
        )
    if len(towers) == 2:
        width, taps = min(tower.width for tower in towers), min(tower.taps for tower in towers)
        reads = tuple(MATCHED if tower.width > width else tower.name for tower in towers)
        towers.append(Tower("inter", width, taps, reads))
    return tuple(tower for tower in towers if tower.name in TOWERS[which])


def groups_of(towers: Sequence[Tower]) -> list[list[Segment]]:
    """Returns for each width the segments of its towers: a longer one's first blocks, then what all have."""
    by_width: dict[int, list[Tower]] = {}
    for tower in sorted(towers, key=lambda tower: -tower.taps):
        by_width.setdefault(tower.width, []).append(tower)
    return [_segments(tuple(same)) for same in by_width.values()]


def _segments(towers: tuple[Tower, ...]) -> list[Segment]:
    """Returns the segments of towers of one width, the longest first; no two are longer than the rest."""
    shared = towers[-1].taps
    alone = towers[0].taps - shared
    ahead = [Segment(towers[:1], alone, ahead=True)] if alone else []
    return [*ahead, Segment(towers, shared)]
