"""Item rows to vectors: contents, network and pooling in one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effrec_cli.errors import ConfigError
from effrec_cli.models.encoders.network import Network, PartedNetwork
from effrec_cli.models.encoders.rows import ImageRows, StateRows, TokenRows

NARROWEST = 16
"""Tokens of the narrowest bucket of a compiled encoder."""
_GRAPHS = 64
"""Graphs that a compiled encoder may have: widths, each in training, in evaluation and without gradients."""
_AGREE = 1e-3
_FREE_SHARE = 0.25


class ItemEncoder(nn.Module):
    """Encodes items by their row numbers.

    Args:
        rows: the contents of all items.
        costs: int64 [V], tokens of each item.
        network: contents to states.
        pooling: states to vectors.
        keep: whether states below the lowest layer that trains are kept for all items; None where they fit
            into a quarter of the free memory. They are in the weights' own precision, under autocast too, so
            that what was decided once stays.
        batch_tokens: tokens encoded at once while these are made.
        free_bytes: the memory that may be taken on a device.
        compiled: run network and pooling through `torch.compile`, for widths rounded up by `bucketed_width`.
        say: receives a line about what is kept.

    Attributes:
        dim: width d of the vectors.
        costs: as above.
        keeps: whether such states are kept; None as long as nobody has decided.
    """

    def __init__(
        self,
        rows: TokenRows | ImageRows,
        costs: NDArray[np.int64],
        network: Network,
        pooling: nn.Module,
        *,
        keep: bool | None,
        batch_tokens: int,
        free_bytes: Callable[[torch.device], int],
        compiled: bool,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.dim, self.costs = network.dim, costs
        self.rows, self.network, self.pooling = rows, network, pooling
        self.kept: StateRows | None = None
        self._keep, self._batch_tokens, self._free_bytes, self._say = keep, batch_tokens, free_bytes, say
        self._compiled = torch.compile(self._encode) if compiled else None
        self.keeps: bool | None = None
        self._prepared = False
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, items: Tensor, width: int) -> Tensor:
        """Returns the items' vectors, float32 [n, d] (float64 where the weights are).

        Args:
            items: int64 [n] on the device.
            width: tokens that each is padded to, at least the most that one of them has; it changes nothing.
        """
        self.prepare()
        if self._compiled is not None:
            width = bucketed_width(width, int(self.costs.max()))
            inputs, real = (self.kept or self.rows)(items, width)
            return self._run_compiled(inputs, real)
        return self._encoded(self.kept or self.rows, items, width)

    def prepare(self) -> None:
        """Makes what is kept between steps, once, on the device that the weights are on by now.

        The first `forward` does so otherwise; who measures memory or time calls it before.

        Raises:
            ConfigError: the states are to be kept and cannot be.
        """
        if self._prepared:
            return
        self._prepared = True
        if self.keeps is None:
            self.keeps = self.may_keep()
        if self.keeps:
            mode = self.training
            self.eval()  # so that the random generators are left as they are
            self.kept = self._lower_states()
            self._check()
            self.train(mode)

    def _encoded(self, rows: nn.Module, items: Tensor, width: int) -> Tensor:
        """Returns vectors of items [n] from their contents or from what is kept of them."""
        inputs, real = rows(items, width)
        return self._encode(inputs, real, rows is self.kept)

    def _encode(self, inputs: Tensor, real: Tensor | None, halfway: bool) -> Tensor:
        """Returns vectors of contents, or of the states that the lowest training layer reads."""
        network = self.network
        if halfway:
            assert isinstance(network, PartedNetwork)
            return self.pooling(network.upper(inputs, real), real)
        return self.pooling(network(inputs, real), real)

    def _run_compiled(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns vectors by one graph a width, whatever the number of items."""
        assert self._compiled is not None
        for each in (inputs, real):
            if each is not None:
                torch._dynamo.maybe_mark_dynamic(each, 0)
                torch._dynamo.mark_static(each, 1)
        with _many_graphs():
            return self._compiled(inputs, real, self.kept is not None)

    def may_keep(self) -> bool:
        """Returns whether lower states are to be kept, by the settings and the memory that is free here.

        Raises:
            ConfigError: they are to be and cannot be.
        """
        network = self.network
        if not network.frozen or self._keep is False:
            return False
        if not (isinstance(network, PartedNetwork) and network.parted and isinstance(self.rows, TokenRows)):
            if self._keep:
                raise ConfigError(
                    "The states of this encoder's lower layers cannot be kept: they are not known apart.",
                    where="method.encoder.cache_lower",
                    fix="leave it out, or name a text encoder of docs/encoders.md's list",
                )
            return False
        return bool(self._keep) or self._state_bytes() <= _FREE_SHARE * self._free_bytes(self._device)

    def _state_bytes(self) -> int:
        return int(self.costs.sum()) * self.dim * self._weight.element_size()

    @property
    def _weight(self) -> Tensor:
        return next(iter(self.network.parameters()))

    @property
    def _device(self) -> torch.device:
        return self._weight.device

    @torch.no_grad()
    def _lower_states(self) -> StateRows:
        """Returns the states that the lowest training layer reads, of all items."""
        assert isinstance(self.rows, TokenRows)
        assert isinstance(self.network, PartedNetwork)
        weight = self._weight
        states = weight.new_empty(int(self.costs.sum()), self.dim)
        kept = StateRows(states, self.rows.offsets)
        with torch.autocast(weight.device.type, enabled=False):
            for items, width in _chunks(self.costs, self._batch_tokens):
                at = torch.from_numpy(items).to(weight.device)
                kept.write(at, self.network.lower(*self.rows(at, width)))
        self._say(
            f"Keeping the encoder's lower {self.network.frozen} layers: {self._state_bytes() >> 20} MiB."
        )
        return kept

    @torch.no_grad()
    def _check(self) -> None:
        """Lets go of kept states from which the upper layers do not make what the whole network makes."""
        assert self.kept is not None
        few = np.unique(np.linspace(0, len(self.costs) - 1, 4).astype(np.int64))
        items, width = torch.from_numpy(few).to(self._device), int(self.costs[few].max())
        with torch.autocast(self._device.type, enabled=False):
            whole, halved = (self._encoded(rows, items, width) for rows in (self.rows, self.kept))
        if (whole - halved).abs().max() > _AGREE * whole.abs().max():
            self.kept = None
            what = "Kept states of lower layers do not give the vectors that the whole encoder gives."
            if self._keep:
                raise ConfigError(what, where="method.encoder.cache_lower", fix="leave it out")
            self._say(f"{what} Going on without them.")


def bucketed_width(width: int, most: int) -> int:
    """Returns `width` rounded up to a power of two, 16 at least and `most` at most."""
    return min(max(NARROWEST, 1 << (width - 1).bit_length()), most)


def _forget(encoder: ItemEncoder, _: Any) -> None:
    """Lets go of kept states once other weights are loaded, of which they are not."""
    encoder.kept, encoder._prepared = None, False


def _chunks(costs: NDArray[np.int64], budget: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yields all items by cost, as many at once as fit into a budget of padded tokens, and their width."""
    order = np.argsort(-costs, kind="stable")
    first = 0
    while first < len(order):
        width = int(costs[order[first]])
        last = first + max(1, budget // width)
        yield order[first:last], width
        first = last


@contextmanager
def _many_graphs() -> Iterator[Any]:
    with torch._dynamo.config.patch(recompile_limit=_GRAPHS):
        yield
