"""What a side network is compared with: item vectors from the last states of backbones (papers/iisan 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.methods.multimodal.adapters import Say, choose_weights
from effrec_cli.methods.multimodal.backbones import Backbone
from effrec_cli.models.encoders.network import Network
from effrec_cli.models.taps import Taps, TapShape


class PooledHead(nn.Module):
    """Rows of texts and images to item vectors: a map each, GELU, and one map of both.

    Args:
        text_dim: width of a text's row; 0 where there are no texts.
        image_dim: width of an image's row; 0 where there are no images.
        dim: width d of item vectors, and of what each modality is mapped to.
    """

    def __init__(self, text_dim: int, image_dim: int, dim: int) -> None:
        super().__init__()
        widths = {"text": text_dim, "image": image_dim}
        self.heads = nn.ModuleDict({name: _linear(width, dim) for name, width in widths.items() if width})
        self.fusion = _linear(len(self.heads) * dim, dim)

    def forward(self, rows: dict[str, Tensor]) -> Tensor:
        """Returns vectors [n, d] of rows [n, D] by modality, in the weights' own precision under autocast."""
        weight = self.fusion.weight
        with torch.autocast(weight.device.type, enabled=False):
            parts = [F.gelu(head(rows[name].to(weight.dtype))) for name, head in self.heads.items()]
            vectors: Tensor = self.fusion(torch.cat(parts, -1))
            return vectors


def _linear(width: int, dim: int) -> nn.Linear:
    made = nn.Linear(width, dim)
    nn.init.xavier_normal_(made.weight)
    nn.init.zeros_(made.bias)
    return made


class PooledBackbone(nn.Module):
    """A backbone whose last states, after the last norm, become a row an item.

    Args:
        backbone: what it is.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network, self.rows, self.pooling = backbone.network, backbone.rows, backbone.pooling

    def forward(self, items: Tensor, width: int) -> Tensor:
        """Returns rows, at least float32 [n, D], of items int64 [n] padded to `width` tokens."""
        inputs, real = self.rows(items, width)
        return self.pooling(self.network(inputs, real), real, inputs if inputs.dim() == 2 else None)


class PooledItemEncoder(nn.Module):
    """Item vectors from the last states of a text and an image backbone, one of which may be missing.

    Args:
        text: reads texts; None where there are none, or where `source` gives rows.
        image: reads images; None likewise.
        mode: what trains beside the head: all weights (`fft`), Houlsby's adapters (`adapter`), low-rank
            updates of queries and values (`lora`), biases (`bitfit`), or nothing (`frozen`: the backbones
            then stay in evaluation and no graph of them is kept).
        dim: width d of item vectors.
        adapter_rank: bottleneck of Houlsby's adapters.
        lora_rank: of low-rank updates.
        lora_alpha: their scale times their rank; 1 is the published one.
        source: gives `Taps` of items, of each modality the last states' row alone (tap L + 1 of a
            `TapReader`), and says their `shape`; in the place of backbones, for `frozen`.
        costs: int64 [V], tokens of each item, where `source` gives rows.
        path: the setting that holds the mode, for errors.
        say: receives a line where more is adapted than was asked for.

    Attributes:
        dim: as above.
        costs: int64 [V], tokens of each item, an image's behind its text's.
        keeps: always False: nothing is kept between steps.
        kept: always None.
    """

    kept = None

    def __init__(
        self,
        text: Backbone | None,
        image: Backbone | None,
        *,
        mode: str,
        dim: int = 64,
        adapter_rank: int = 64,
        lora_rank: int = 8,
        lora_alpha: float = 1.0,
        source: Any = None,
        costs: NDArray[np.int64] | None = None,
        path: str = "method.mode",
        say: Say = print,
    ) -> None:
        super().__init__()
        self.dim, self.mode, self.keeps = dim, mode, False
        given = {"text": text, "image": image}
        self.backbones = nn.ModuleDict(
            {name: PooledBackbone(each) for name, each in given.items() if each is not None}
        )
        self.source = source
        assert source is None or costs is not None
        self.costs = _costs(text, image) if costs is None else costs
        self._image_cost = 0 if image is None else int(image.costs.max(initial=0))
        shape: TapShape = _shape(text, image) if source is None else source.shape
        for each in self._networks():
            choose_weights(
                each, mode, rank=adapter_rank, lora_rank=lora_rank, lora_alpha=lora_alpha, path=path, say=say
            )
        self.head = PooledHead(shape.text_dim, shape.image_dim, dim)
        self.train(self.training)

    def forward(self, items: Tensor, width: int) -> Tensor:
        """Returns the items' vectors, float32 [n, d] (float64 where the weights are).

        Args:
            items: int64 [n] on the device.
            width: the most that one of them costs, or more; it changes nothing.
        """
        if self.source is not None:
            return self.head(_last_rows(self.source(items)))
        widths = {"text": max(1, width - self._image_cost), "image": self._image_cost}
        return self.head({name: each(items, widths[name]) for name, each in self.backbones.items()})

    def prepare(self) -> None:
        """Makes the source ready, where there is one."""
        if self.source is not None:
            self.source.prepare()

    def may_keep(self) -> bool:
        """Returns False: nothing is kept between steps."""
        return False

    def train(self, mode: bool = True) -> Any:
        """Sets training or evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.mode == "frozen":
            for each in self._networks():
                each.eval()
        return self

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns what trains: own weights of the `text` and the `image` backbone, `side` and `head`.

        `side` is what was put beside a backbone's weights: adapters and low-rank updates.
        """
        found: dict[str, list[nn.Parameter]] = {"text": [], "image": [], "side": []}
        for name, part in self.backbones.items():
            group = "side" if self.mode in ("adapter", "lora") else name
            found[group] += [each for each in part.parameters() if each.requires_grad]
        return {**found, "head": list(self.head.parameters())}

    def _networks(self) -> Iterator[Network]:
        for each in self.backbones.values():
            assert isinstance(each, PooledBackbone)
            yield each.network


def _costs(text: Backbone | None, image: Backbone | None) -> NDArray[np.int64]:
    """Returns the tokens of each item, int64 [V], over both modalities."""
    parts = [each.costs for each in (text, image) if each is not None]
    return np.sum(parts, axis=0, dtype=np.int64)


def _shape(text: Backbone | None, image: Backbone | None) -> TapShape:
    dims = [0 if each is None else each.dim for each in (text, image)]
    return TapShape(dims[0], int(dims[0] > 0), dims[1], int(dims[1] > 0))


def _last_rows(taps: Taps) -> dict[str, Tensor]:
    """Returns the last tap of each modality that is there."""
    given = {"text": taps.text, "image": taps.image}
    return {name: each[-1] for name, each in given.items() if each}
