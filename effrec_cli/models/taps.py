"""Taps: the hidden states of frozen backbones that a side network reads, pooled to a row an item."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from effrec_cli.errors import ConfigError

TAPS = 6
"""Layers that are read of each backbone, beside what its first layer reads."""


@dataclass(frozen=True)
class Taps:
    """Pooled hidden states of n items by tap, lowest first; a modality that is not there is empty.

    Attributes:
        text: of each tap float [n, D_text], or [1, D_text] where it is the same for all items.
        image: of each tap float [n, D_image], or [1, D_image].
    """

    text: tuple[Tensor, ...] = ()
    image: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class TapShape:
    """What a side network must know of the taps that it reads.

    Attributes:
        text_dim: width D_text; 0 where there is no text.
        text_taps: taps of the text, 0 likewise.
        image_dim: width D_image; 0 where there are no images.
        image_taps: taps of the images, 0 likewise.
    """

    text_dim: int
    text_taps: int
    image_dim: int
    image_taps: int


def tap_rule(num_layers: int, count: int = TAPS, where: str = "method.num_taps") -> tuple[int, ...]:
    """Returns which hidden states are read: 0, and `count` evenly stepped ones that end with the last layer.

    Hidden state 0 is what layer 1 reads and k is what layer k gives. With step = (L - 1) // (count - 1) the
    k-th of them is L - (count - k) step, which makes the six hand-written lists of the paper's follow-up
    (papers/iisan section 1.10). One alone is the last.

    Args:
        num_layers: layers L of the backbone.
        count: how many of them are read.
        where: the setting that an error names.

    Raises:
        ConfigError: fewer than one layer is asked for, or more than there are.
    """
    if not 1 <= count <= num_layers:
        raise ConfigError(
            f"{count} layers are to be read, and this backbone has {num_layers}.",
            where=where,
            fix=f"ask for 1 to {num_layers} layers; {num_layers} reads every layer",
        )
    step = (num_layers - 1) // max(1, count - 1)
    return (0, *(num_layers - step * k for k in reversed(range(count))))
