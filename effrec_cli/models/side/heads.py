"""What makes one vector an item of its towers' states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from effrec_cli.models.side.plan import Tower
from effrec_cli.models.side.transform import xavier


class HeadPair(nn.Module):
    """Two linear layers a tower, for T towers of the same shape.

    Args:
        towers: T.
        width: width D of the towers' states.
        inner: width I between the layers.
        dim: width d of what they give.
    """

    def __init__(self, towers: int, width: int, inner: int, dim: int) -> None:
        super().__init__()
        self.inner = xavier(towers, width, inner)
        self.inner_bias = nn.Parameter(torch.zeros(towers * inner))
        self.outer = xavier(towers, inner, dim)
        self.outer_bias = nn.Parameter(torch.zeros(towers * dim))

    def folded(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the matrices [T, D, d] and the bias [d] of both layers and a last matrix [T, d, d] each."""
        outer = torch.bmm(self.outer, last)
        inner_bias, outer_bias = (bias.view(len(last), 1, -1) for bias in (self.inner_bias, self.outer_bias))
        bias = torch.baddbmm(torch.bmm(outer_bias, last), inner_bias, outer)
        return torch.bmm(self.inner, outer), bias.sum((0, 1))


class Heads(nn.Module):
    """Two linear layers a tower, and one over all towers side by side (papers/iisan section 1.6).

    Nothing nonlinear stands between them, so that they run as one matrix a tower, which is multiplied out of
    their weights first: work that does not grow with the items. Weights start Xavier-normal, biases at 0.

    Args:
        towers: the towers.
        kind: `wide`, the first layer keeps the width; `narrow`, an intra tower's gives `dim` at once.
        dim: width d of the vectors.
    """

    def __init__(self, towers: Sequence[Tower], kind: str, dim: int) -> None:
        super().__init__()
        self.names = [tower.name for tower in towers]
        self.members: dict[str, list[str]] = {}
        shapes: dict[tuple[int, int], list[str]] = {}
        for tower in towers:
            inner = dim if kind == "narrow" and tower.name != "inter" else tower.width
            shapes.setdefault((tower.width, inner), []).append(tower.name)
        self.pairs = nn.ModuleDict()
        for (width, inner), names in shapes.items():
            self.members["_".join(names)] = names
            self.pairs["_".join(names)] = HeadPair(len(names), width, inner, dim)
        self.fusion = nn.Linear(len(towers) * dim, dim)
        nn.init.xavier_normal_(self.fusion.weight)
        nn.init.zeros_(self.fusion.bias)

    def forward(self, states: Mapping[tuple[str, ...], Tensor]) -> Tensor:
        """Returns vectors [n, d] of the states [T, n, D] of towers, by their names."""
        device = self.fusion.weight.device
        with torch.autocast(device.type, enabled=False):
            matrices, vectors = self._folded()
        for names, state in states.items():
            matrix = torch.stack([matrices[name] for name in names])
            vectors = vectors + torch.bmm(state, matrix).sum(0)
        return vectors.to(self.fusion.weight.dtype)

    def _folded(self) -> tuple[dict[str, Tensor], Tensor]:
        """Returns by tower the matrix [D, d] of its two layers and its part of the last, and the bias [d]."""
        parts = dict(zip(self.names, self.fusion.weight.t().chunk(len(self.names)), strict=True))
        matrices: dict[str, Tensor] = {}
        total: Tensor = self.fusion.bias
        for key, pair in self.pairs.items():
            assert isinstance(pair, HeadPair)
            names = self.members[key]
            folded, bias = pair.folded(torch.stack([parts[name] for name in names]))
            matrices.update(zip(names, folded.unbind(0), strict=True))
            total = total + bias
        return matrices, total
