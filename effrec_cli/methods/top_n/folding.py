"""Users whom training never saw: their vectors in the factors' own space, made of what they have met."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.factors.scorer import latest
from effrec_cli.methods.top_n.scorer import FoldIn
from effrec_cli.models.factors.kinds import FOLDS
from effrec_cli.models.pairs import PairModel

_PREFIX = "folding."
Folding = Mapping[str, Tensor]
"""What folding in needs of a factorisation, by name, but for items' vectors that a network holds frozen."""


def folding_of(state: Mapping[str, Tensor], *, frozen: bool) -> Folding:
    """Returns what folding in needs of a factorisation's state.

    Args:
        state: `users` [U, d], `items` [V, d] and more.
        frozen: whether the network keeps the items' vectors as they are.
    """
    left = {"users", "items"} if frozen else {"users"}
    return {name: tensor for name, tensor in state.items() if name not in left}


def fold_in_by(kind: str, folding: Folding, model: PairModel, last: int | None = None) -> FoldIn:
    """Returns what folds in by a factorisation of this kind, on the model's device.

    Args:
        kind: of factorisation.
        folding: what it needs.
        model: the network.
        last: only so many last items of a history count; None for all.
    """
    ids = model.items
    held = {"items": (ids.table / ids.scale).to(ids.table.dtype)} if "items" not in folding else {}
    moved = {name: tensor.to(ids.table.device) for name, tensor in folding.items()}
    fold = partial(FOLDS[kind], {**held, **moved})
    if last is None:
        return fold

    def of_the_end(offsets: Tensor, items: Tensor) -> Tensor:
        histories = latest(Histories(items, offsets), last)
        return fold(histories.offsets, histories.items)

    return of_the_end


def joined(network: Mapping[str, Tensor], folding: Folding) -> dict[str, Tensor]:
    """Returns a network's state and, under names of their own, what folding in needs."""
    return {**network, **{f"{_PREFIX}{name}": tensor for name, tensor in folding.items()}}


def parted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Folding]:
    """Returns the two parts of what `joined` gave."""
    network = {name: each for name, each in state.items() if not name.startswith(_PREFIX)}
    return network, {
        name.removeprefix(_PREFIX): each for name, each in state.items() if name.startswith(_PREFIX)
    }
