"""The side network: taps of frozen backbones to item vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.errors import ConfigError
from effrec_cli.models.side.blocks import TowerBlocks
from effrec_cli.models.side.heads import Heads
from effrec_cli.models.side.plan import MATCHED, Segment, groups_of, towers_of
from effrec_cli.models.side.transform import WidthTransform
from effrec_cli.models.taps import Taps, TapShape


class SideNetwork(nn.Module):
    """Vectors of items from their taps, by an intra tower a modality and an inter tower over both.

    Sections 1.3 to 1.6 of papers/iisan; unequal widths and numbers of taps, section 1.10. Towers of the same
    width run side by side, and no number of kernels grows with the items. Where one tower has more taps than
    the others it runs its first blocks alone.

    Args:
        shape: widths and numbers of the taps; 0 for a modality that is not there.
        towers: `both`, `intra` or `inter`.
        rank: width between a block's projections.
        activation: `relu` or `gelu`, in the blocks.
        fusion: `gated`, or `sum`: taps and states are added.
        head: `wide`, the paper's, or `narrow`, its follow-up's.
        transform: `separate`, `shared` or `low_rank`, how the wider modality comes to the other's width for
            the inter tower.
        transform_rank: width between the matrices of `low_rank`.
        dim: width d of the vectors.
        modality_dropout: the probability at which an item loses its text in training, and likewise its
            images; never both, so at most 0.5. It is drawn anew for each item of a step, not for a user.

    Raises:
        ConfigError: the towers or the modality dropout need a modality that is not there, or there is none.
    """

    def __init__(
        self,
        shape: TapShape,
        *,
        towers: str,
        rank: int = 64,
        activation: str = "relu",
        fusion: str = "gated",
        head: str = "wide",
        transform: str = "separate",
        transform_rank: int = 64,
        dim: int = 64,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape, self.dim, self.modality_dropout = shape, dim, modality_dropout
        _check_dropout(shape, modality_dropout)
        found = towers_of(shape, towers)
        self.groups = groups_of(found)
        self.blocks = nn.ModuleDict()
        for segment in (segment for group in self.groups for segment in group):
            self.blocks[segment.name] = TowerBlocks(segment, rank, activation, fusion == "gated")
        self.wider = "text" if shape.text_dim > shape.image_dim else "image"
        inter = found[-1]
        wide = max(shape.text_dim, shape.image_dim)
        self.transform = (
            WidthTransform(inter.taps, wide, inter.width, transform, transform_rank)
            if MATCHED in inter.reads
            else None
        )
        self.heads = Heads(found, head, dim)

    def forward(self, taps: Taps) -> Tensor:
        """Returns the items' vectors, float32 [n, d] (float64 where the weights are).

        Args:
            taps: of n items, at least one with a row an item; a tap [1, D] stands for all of them.

        Raises:
            ValueError: the taps are not of the shape that this network was made for.
        """
        return self.heads(self.states(taps))

    def states(self, taps: Taps) -> dict[tuple[str, ...], Tensor]:
        """Returns the towers' last states [T, n, D] by the names of T towers of one width; see `forward`."""
        feeds = self._feeds(taps)
        ends = {}
        for group in self.groups:
            state: Tensor | None = None
            for segment in group:
                state = self._run(segment, feeds, state)
            assert state is not None
            ends[tuple(tower.name for tower in group[-1].towers)] = state
        return ends

    def _run(self, segment: Segment, feeds: dict[str, tuple[Tensor, ...]], state: Tensor | None) -> Tensor:
        """Returns a segment's last states [T, n, D]; `state` is of a tower that ran ahead, its first."""
        part = slice(segment.taps) if segment.ahead else slice(-segment.taps, None)
        by_tap = zip(*(feeds[feed][part] for feed in segment.feeds), strict=True)
        rows = torch.stack([tap for each in by_tap for tap in each]).unflatten(0, (segment.taps, -1))
        if state is not None:
            state = F.pad(state, (0, 0, 0, 0, 0, len(segment.towers) - 1))
        return self.blocks[segment.name](rows.to(self._dtype), state)

    def _feeds(self, taps: Taps) -> dict[str, tuple[Tensor, ...]]:
        """Returns what towers read: each modality's taps [n, D], and the wider's at the other's width."""
        given = {"text": taps.text, "image": taps.image}
        self._check(taps)
        rows = [tap.shape[0] for each in given.values() for tap in each]
        n = next((count for count in rows if count != 1), 1)
        feeds = {name: tuple(tap.expand(n, -1) for tap in each) for name, each in given.items()}
        if self.training and self.modality_dropout:
            feeds = self._without(feeds, n)
        if self.transform is not None:
            wide = torch.stack(feeds[self.wider][-self.transform.taps :])
            feeds[MATCHED] = self.transform(wide.to(self._dtype)).unbind(0)
        return feeds

    def _without(self, feeds: dict[str, tuple[Tensor, ...]], n: int) -> dict[str, tuple[Tensor, ...]]:
        """Returns feeds in which some items have zeros for one modality."""
        share = self.modality_dropout
        drawn = torch.rand(n, 1, device=feeds["text"][0].device)
        kept = {"text": drawn >= share, "image": (drawn < share) | (drawn >= 2 * share)}
        return {name: (torch.stack(each) * kept[name]).unbind(0) for name, each in feeds.items()}

    def _check(self, taps: Taps) -> None:
        expected = self.shape
        for name, found, width, count in (
            ("text", taps.text, expected.text_dim, expected.text_taps),
            ("image", taps.image, expected.image_dim, expected.image_taps),
        ):
            if [tap.shape[1] for tap in found] != [width] * count:
                raise ValueError(f"{count} {name} taps of width {width} are expected, and these are not.")

    @property
    def _dtype(self) -> torch.dtype:
        return self.heads.fusion.weight.dtype


def _check_dropout(shape: TapShape, share: float) -> None:
    """Raises ConfigError where a modality cannot be dropped at such a probability."""
    where = f"method.modality_dropout={share}"
    if not 0 <= share <= 0.5:
        raise ConfigError(
            "An item loses its text or its images, each at this probability and never both.",
            where=where,
            fix="set it from 0 to 0.5",
        )
    if share and not (shape.text_taps and shape.image_taps):
        raise ConfigError(
            "An item that has one modality alone would lose all it has.",
            where=where,
            fix="set method.modality_dropout=0, or give the other modality too",
        )
