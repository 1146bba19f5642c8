"""Settings of a backbone: the text or vision model whose hidden states a side network reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effrec_cli.schema.encoder import (
    OF_BUILT_IN,
    OF_NAMED,
    OF_TEXT,
    changed_problems,
    head_problems,
    token_problems,
)
from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem

POOLINGS = ("auto", "cls", "mean", "last", "eos")


@dataclass
class BackboneConfig:
    """A backbone of one modality (papers/iisan sections 1.1 and 7.3).

    Attributes:
        name: a folder in Hugging Face's layout, or a name on its hub; None is a small Transformer of effrec's
            own with random weights, which needs no further package.
        revision: the commit, tag or branch of a hub name.
        weights: `pretrained`, or `random`, which reads nothing but the named one's config.json. Random
            weights are the same in every run, whatever its seed, so that what is kept of them stays valid.
        tokenizer: `own` splits texts by the backbone's tokenizer, `dataset` takes the tokens that a dataset
            brings ready-made; `auto` is `own` for a named backbone that has one, else `dataset` where there
            are such tokens.
        pooling: which row stands for an item: of its first token (`cls`), of its `last`, of the one that ends
            a text (`eos`), or the `mean` over its tokens; `auto` is what the kind of model was made for, and
            the mean where nothing is known of it.
        max_tokens: tokens of an item's text that are read, special ones among them.
        dropout: share dropped everywhere where it trains; None is the backbone's own.
        dim: width of the built-in backbone.
        num_layers: layers of the built-in backbone.
        num_heads: attention heads of the built-in backbone.
    """

    name: str | None = None
    revision: str | None = None
    weights: str = setting("pretrained", choices=("pretrained", "random"))
    tokenizer: str = setting("auto", choices=("auto", "own", "dataset"))
    pooling: str = setting("auto", choices=POOLINGS)
    max_tokens: int | None = setting(30, low=2)
    dropout: float | None = setting(None, low=0, high=0.9)
    dim: int = setting(32, low=1)
    num_layers: int = setting(4, low=1)
    num_heads: int = setting(2, low=1)

    @property
    def pretrained(self) -> bool:
        """Whether its weights are read from somewhere."""
        return self.name is not None and self.weights == "pretrained"


def backbone_problems(own: BackboneConfig, path: str, modality: str) -> Iterator[Problem]:
    """Yields settings that would do nothing, and what contradicts what.

    Args:
        own: the settings.
        path: the full key that holds them, such as `method.text`.
        modality: `text` or `image`.
    """
    if own.name is None:
        yield from changed_problems(own, path, OF_NAMED, "is for a named backbone", f"{path}.name=NAME")
        yield from head_problems(own, path)
    else:
        yield from changed_problems(
            own, path, OF_BUILT_IN, "is for the built-in backbone", f"{path}.name=null"
        )
    if modality == "image":
        yield from changed_problems(own, path, OF_TEXT, "is for texts", "give it to the text's backbone")
    else:
        yield from token_problems(own, path)
    yield from _row_problems(own, path, modality)


def _row_problems(own: BackboneConfig, path: str, modality: str) -> Iterator[Problem]:
    """Yields a row that this backbone has not."""
    small, ordered = own.name is None, own.pooling in ("last", "eos")
    if modality == "image" and ordered:
        what = f"An image has no {own.pooling} token: its patches stand in no order."
    elif modality == "image" and small and own.pooling == "cls":
        what = "The built-in backbone of images has no token that stands for the whole image."
    elif small and own.pooling == "eos":
        what = "No token ends the texts that the built-in backbone reads."
    else:
        return
    yield Problem(f"{path}.pooling", what, fix=f"{path}.pooling=mean, or {path}.pooling=auto")
