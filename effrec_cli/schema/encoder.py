"""Settings of a content encoder: what turns an item's text or image into its vector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effrec_cli.errors import ConfigError
from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem, typed

# What only a named encoder looks at, and what only the built-in one does.
OF_NAMED = ("revision", "weights")
OF_BUILT_IN = ("dim", "num_layers", "num_heads")
OF_TEXT = ("tokenizer", "max_tokens")
PRETRAINED_LR = 1e-4
"""The paper's (papers/gram section 1.9)."""


@dataclass
class EncoderConfig:
    """A content encoder (docs/encoders.md).

    Attributes:
        name: a folder in Hugging Face's layout, or a name on its hub; None is a small Transformer of effrec's
            own with random weights, which needs no further package.
        revision: the commit, tag or branch of a hub name.
        modality: `text` reads titles, `image` reads item images.
        weights: `pretrained`, or `random`, which reads nothing but the named one's config.json.
        tokenizer: `own` splits texts by the encoder's tokenizer, `dataset` takes the tokens that a dataset
            brings ready-made; `auto` is `own` for a named encoder that has one, else `dataset` where there
            are such tokens.
        pooling: how the states of an item's tokens become its vector: their `mean`, the first one (`cls`), or
            additive `attention`.
        dropout: share dropped everywhere in training; None is the encoder's own.
        train: `all` of it, the `top` layers, or low-rank adapters (`lora`) beside frozen weights.
        top_layers: layers that train, or have adapters; None with `lora` is all. What lies below them is
            frozen, and runs without dropout.
        lora_rank: rank of the adapters.
        max_tokens: tokens of an item's text that are read, special ones among them; None is as many as the
            encoder takes, 512 at most.
        batch_tokens: tokens, padding among them, that are encoded at once.
        cache_lower: keep the states below the lowest layer that trains for all items; None does so where they
            fit into a quarter of the free memory.
        compile: run the encoder through `torch.compile`, for widths rounded up to powers of two.
        dim: width of the built-in encoder and its vectors.
        num_layers: layers of the built-in encoder.
        num_heads: attention heads of the built-in encoder.
        lr: peak learning rate; None is 1e-4 for pretrained weights and optimizer.lr for random ones.
        warmup_steps: updates of the encoder over which this rate warms up; None is optimizer.warmup_steps.
    """

    name: str | None = None
    revision: str | None = None
    modality: str = setting("text", choices=("text", "image"))
    weights: str = setting("pretrained", choices=("pretrained", "random"))
    tokenizer: str = setting("auto", choices=("auto", "own", "dataset"))
    pooling: str = setting("mean", choices=("mean", "cls", "attention"))
    dropout: float | None = setting(None, low=0, high=0.9)
    train: str = setting("all", choices=("all", "top", "lora"))
    top_layers: int | None = setting(None, low=1)
    lora_rank: int = setting(8, low=1)
    max_tokens: int | None = setting(None, low=2)
    batch_tokens: int = setting(8192, low=2)
    cache_lower: bool | None = None
    compile: bool = False
    dim: int = setting(64, low=1)
    num_layers: int = setting(2, low=1)
    num_heads: int = setting(2, low=1)
    lr: float | None = setting(None, above=0)
    warmup_steps: int | None = setting(None, low=0)

    @property
    def pretrained(self) -> bool:
        """Whether its weights are read from somewhere."""
        return self.name is not None and self.weights == "pretrained"

    def peak_lr(self, otherwise: float) -> float:
        """Returns the peak learning rate; `otherwise`, the run's, for random weights without one."""
        return self.lr or (PRETRAINED_LR if self.pretrained else otherwise)


def refuse_lost_folder(name: str, where: str) -> None:
    """Checks a name that can only be a folder: names on the hub have one slash at most.

    Args:
        name: of an encoder.
        where: the full key that holds it.

    Raises:
        ConfigError: there is no such folder.
    """
    meant = name.count("/") > 1 or name.startswith((".", "~", "/")) or "\\" in name
    if meant and not Path(name).expanduser().is_dir():
        fix = f"{where}=FOLDER; to score a run that was trained from there, put the folder back"
        raise ConfigError(f"There is no folder '{name}'.", where=where, fix=fix)


def encoder_problems(own: EncoderConfig, path: str = "method.encoder") -> Iterator[Problem]:
    """Yields settings that would do nothing, and what contradicts what.

    Args:
        own: the settings.
        path: the full key that holds them.
    """
    yield from _unused(own, path)
    yield from _trained(own, path)
    yield from _read(own, path)
    if own.name is None:
        yield from _built_in(own, path)


def _unused(own: EncoderConfig, path: str) -> Iterator[Problem]:
    """Yields settings that are not their defaults, and that nothing would look at."""
    if own.name is None:
        yield from changed_problems(own, path, OF_NAMED, "is for a named encoder", f"{path}.name=NAME")
    else:
        yield from changed_problems(
            own, path, OF_BUILT_IN, "is for the built-in encoder", f"{path}.name=null"
        )
    if own.modality == "image":
        yield from changed_problems(own, path, OF_TEXT, "is for texts", f"{path}.modality=text")
    if own.train != "lora":
        yield from changed_problems(own, path, ("lora_rank",), "is for train=lora", f"{path}.train=lora")
    if own.train == "all":
        yield from changed_problems(
            own, path, ("top_layers",), "is for train=top or lora", f"{path}.train=top"
        )


def changed_problems(own: Any, path: str, names: tuple[str, ...], what: str, fix: str) -> Iterator[Problem]:
    """Yields those of some settings that are not their defaults, since nothing would look at them.

    Args:
        own: a dataclass of settings, all of which have defaults.
        path: the full key that holds them.
        names: of the settings that nothing looks at.
        what: completes `it ...`.
        fix: the setting under which they would be looked at.
    """
    defaults = type(own)()
    for name in names:
        given, default = getattr(own, name), getattr(defaults, name)
        if given != default:
            said = f"{name}={typed(given)} would do nothing: it {what}."
            yield Problem(f"{path}.{name}", said, fix=f"{fix}, or {path}.{name}={typed(default)}")


def token_problems(own: Any, path: str) -> Iterator[Problem]:
    """Yields what is wrong with the tokens that pretrained weights would read."""
    if own.tokenizer == "dataset" and own.pretrained:
        what = "Pretrained weights know their own tokenizer's tokens, not those of a dataset."
        fix = f"{path}.tokenizer=own, or {path}.weights=random"
        yield Problem(f"{path}.tokenizer", what, fix=fix)


def head_problems(own: Any, path: str) -> Iterator[Problem]:
    """Yields a width of the built-in encoder that its heads cannot share."""
    if own.dim % own.num_heads:
        right = -(-own.dim // own.num_heads) * own.num_heads
        what = f"dim={own.dim} is not a multiple of num_heads={own.num_heads}."
        yield Problem(f"{path}.dim", what, fix=f"{path}.dim={right}, or another number of heads")


def _trained(own: EncoderConfig, path: str) -> Iterator[Problem]:
    if own.train == "lora" and own.name is None:
        what = "LoRA adapts weights that are there; the built-in encoder starts from random ones."
        yield Problem(f"{path}.train", what, fix=f"{path}.name=FOLDER, or {path}.train=all")
    if own.train == "top" and own.top_layers is None:
        what = "train=top needs to know how many layers train."
        yield Problem(f"{path}.top_layers", what, fix=f"{path}.top_layers=2, or {path}.train=all")
    if own.cache_lower and own.top_layers is None and own.train != "top":
        what = f"With train={own.train} no layer lies below those that train, so that nothing can be kept."
        yield Problem(
            f"{path}.cache_lower", what, fix=f"{path}.train=top {path}.top_layers=2, or leave it out"
        )


def _read(own: EncoderConfig, path: str) -> Iterator[Problem]:
    if own.modality == "text":
        yield from token_problems(own, path)
    if own.max_tokens is not None and own.max_tokens > own.batch_tokens:
        what = f"An item may have max_tokens={own.max_tokens}, more than batch_tokens={own.batch_tokens}."
        yield Problem(f"{path}.batch_tokens", what, fix=f"{path}.batch_tokens={own.max_tokens}")


def _built_in(own: EncoderConfig, path: str) -> Iterator[Problem]:
    yield from head_problems(own, path)
    if own.top_layers is not None and own.train == "top" and own.top_layers >= own.num_layers:
        what = f"The built-in encoder has num_layers={own.num_layers}: top_layers={own.top_layers} is all."
        yield Problem(f"{path}.top_layers", what, fix=f"{path}.train=all, or more layers")
    if own.modality == "image" and own.pooling == "cls":
        what = "The built-in encoder of images has no token that stands for the whole image."
        yield Problem(f"{path}.pooling", what, fix=f"{path}.pooling=mean, or {path}.pooling=attention")
