"""Reads taps of a frozen backbone: one row an item of some hidden states, and nothing above the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effrec_cli.errors import ConfigError
from effrec_cli.models.encoders.network import Network

POOLINGS = ("cls", "mean", "last", "eos")


@dataclass(frozen=True)
class RowPooling:
    """How the states of an item's tokens become one row (papers/iisan sections 1.1, 1.10 and 7.3).

    Attributes:
        kind: `cls` the first token, `mean` over real tokens, `last` the last real token, or `eos` the first
            token that is `eos`, the last real one where none is.
        eos: that token; None makes `eos` the same as `last`.
    """

    kind: str
    eos: int | None = None

    def __call__(self, states: Tensor, real: Tensor | None, inputs: Tensor | None = None) -> Tensor:
        """Returns rows, at least float32 [n, D].

        Args:
            states: float [n, w, D].
            real: bool [n, w], False for padding, which is never read; None where there is none.
            inputs: int64 [n, w] tokens, which `eos` needs.
        """
        if self.kind == "mean":
            return _mean(_raised(states), real)
        if self.kind == "cls":
            return _raised(states[:, 0])
        places = _last(states, real)
        if self.kind == "eos" and self.eos is not None and inputs is not None:
            found = inputs == self.eos
            places = torch.where(found.any(1), found.int().argmax(1), places)
        return _raised(states[torch.arange(len(states), device=states.device), places])


def _raised(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _mean(states: Tensor, real: Tensor | None) -> Tensor:
    if real is None:
        return states.mean(1)
    summed = states.masked_fill(~real[..., None], 0).sum(1)
    return summed / real.sum(1, keepdim=True).clamp(min=1)


def _last(states: Tensor, real: Tensor | None) -> Tensor:
    """Returns the place of each item's last real token, int64 [n]."""
    places = torch.arange(states.shape[1], device=states.device)
    if real is None:
        return places[-1].expand(len(states))
    return (real * places).argmax(1)


class TapReader(nn.Module):
    """A frozen backbone whose taps are read.

    The backbone is no part of this module's state: it is neither saved, nor trained, nor put into training.
    It moves with the module.

    Args:
        network: the backbone; from now on in evaluation, without gradients.
        pooling: states to rows.
        taps: hidden states to read, ascending: 0 is what layer 1 reads, k what layer k gives, and one more
            than there are layers what the whole network gives, after the last norm.

    Raises:
        ConfigError: the backbone's layers cannot be told, or it has not so many.
    """

    network: Network
    _anchor: Tensor

    def __init__(self, network: Network, pooling: RowPooling, taps: tuple[int, ...]) -> None:
        super().__init__()
        layers = network.layers()
        _refuse(taps, None if layers is None else len(layers))
        assert layers is not None
        network.requires_grad_(False)
        self.__dict__["network"] = network.eval()
        self.pooling, self.taps, self._layers = pooling, taps, len(layers)
        self.register_buffer("_anchor", torch.zeros(0), persistent=False)

    @property
    def dim(self) -> int:
        """Width D of a row."""
        return self.network.dim

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self._anchor.device

    @property
    def leads(self) -> bool:
        """Whether tap 0 is the same for all items, if all begin with one token (papers/iisan section 1.2)."""
        return self.pooling.kind == "cls" and self.taps[:1] == (0,)

    @torch.no_grad()
    def read(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns the taps, at least float32 [n, T, D], without gradients.

        Args:
            inputs: tokens int64 [n, w], or pixels uint8 [n, height, width, 3].
            real: bool [n, w], which tokens are no padding; None where all are.

        Raises:
            ConfigError: the hidden states are no rows of tokens.
        """
        found: dict[int, Tensor] = {}

        def keep(tap: int, states: Tensor) -> None:
            if states.dim() != 3:
                raise ConfigError("The hidden states of this backbone are no rows of tokens.")
            found[tap] = self.pooling(states, real, inputs if inputs.dim() == 2 else None)
            if tap == self.taps[-1]:
                raise _LastTap

        self.network.eval()
        with self._hooks(keep):
            try:
                output = self.network(inputs, real)
                found[self._layers + 1] = self.pooling(output, real, inputs if inputs.dim() == 2 else None)
            except _LastTap:
                pass
        return torch.stack([found[tap] for tap in self.taps], 1)

    @contextmanager
    def _hooks(self, keep: Callable[[int, Tensor], None]) -> Iterator[None]:
        """Calls `keep` with each tap's states while the network runs.

        Tap k is what layer k + 1 reads, and not what layer k gives: some models do something in between.
        """
        layers = self.network.layers()
        assert layers is not None
        hooks = [
            layers[tap].register_forward_pre_hook(_before(keep, tap), with_kwargs=True)
            for tap in self.taps
            if tap < self._layers
        ]
        if self._layers in self.taps:
            hooks.append(layers[-1].register_forward_hook(_after(keep, self._layers)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves the backbone along."""
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)


class _LastTap(Exception):
    """Ends a forward pass of which nothing more is read."""


def _before(keep: Callable[[int, Tensor], None], tap: int) -> Callable[[Any, Any, Any], None]:
    def hook(_: Any, given: Any, named: Any) -> None:
        keep(tap, given[0] if given else named["hidden_states"])

    return hook


def _after(keep: Callable[[int, Tensor], None], tap: int) -> Callable[[Any, Any, Any], None]:
    def hook(_: Any, __: Any, output: Any) -> None:
        keep(tap, output if torch.is_tensor(output) else output[0])

    return hook


def _refuse(taps: tuple[int, ...], layers: int | None) -> None:
    """Raises ConfigError where a backbone does not have these taps."""
    if layers is None:
        raise ConfigError(
            "The layers of this backbone cannot be told apart, so that its hidden states cannot be read.",
            where="method.text_taps, method.image_taps",
            fix="name another backbone: a Transformer with one list of layers",
        )
    if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] <= layers + 1:
        raise ConfigError(
            f"Hidden states {list(taps)} cannot be read of a backbone with {layers} layers.",
            where="method.text_taps, method.image_taps",
            fix=f"name some of 0 to {layers}, ascending, none twice",
        )
