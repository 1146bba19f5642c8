"""The contents of all items on the device, and how those of a few are laid out for an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TokenRows(nn.Module):
    """The tokens of V items; they move with a module and are no part of its state.

    Args:
        tokens: int32 [total], item after item; every item has some.
        offsets: int64 [V + 1], where items begin.
        pad: the token that fills up.
    """

    tokens: Tensor
    offsets: Tensor

    def __init__(self, tokens: Tensor, offsets: Tensor, pad: int) -> None:
        super().__init__()
        self.register_buffer("tokens", tokens, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self.pad = pad

    def forward(self, items: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Returns the tokens of items [n], int64 [n, width], and which of them are real, bool [n, width]."""
        places, real = _places(self.offsets, items, width)
        return self.tokens[places].long().masked_fill(~real, self.pad), real


class ImageRows(nn.Module):
    """The images of V items.

    Args:
        images: uint8 [V, height, width, 3].
    """

    images: Tensor

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.register_buffer("images", images, persistent=False)

    def forward(self, items: Tensor, width: int) -> tuple[Tensor, None]:
        """Returns the pixels of items [n], uint8 [n, height, width, 3]; nothing in them is padding."""
        return self.images.index_select(0, items), None


class StateRows(nn.Module):
    """States of all tokens of V items, kept between steps.

    Args:
        states: float [total, D], item after item.
        offsets: int64 [V + 1], where items begin.
    """

    states: Tensor
    offsets: Tensor

    def __init__(self, states: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.register_buffer("states", states, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, items: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Returns the states of items [n], [n, width, D] with zeros for padding, and which are real."""
        places, real = _places(self.offsets, items, width)
        return self.states[places].masked_fill(~real[..., None], 0), real

    def write(self, items: Tensor, states: Tensor) -> None:
        """Keeps the states [n, width, D] of items [n]; what they hold for padding is passed by."""
        places, real = _places(self.offsets, items, states.shape[1])
        self.states[places[real]] = states[real].to(self.states.dtype)


def _places(offsets: Tensor, items: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Returns where the tokens of items [n] lie, [n, width], and which of these are the items' own."""
    first, last = offsets[items], offsets[items + 1]
    places = first[:, None] + torch.arange(width, device=items.device)
    return torch.minimum(places, last[:, None] - 1), places < last[:, None]
