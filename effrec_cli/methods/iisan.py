"""Method iisan: a side network beside frozen text and image backbones, and its baselines (papers/iisan)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import nn

from effrec_cli.errors import ConfigError, DataError
from effrec_cli.methods.content.chunks import Limits
from effrec_cli.methods.content.method import ContentModel
from effrec_cli.methods.content.modes import EndToEnd, Mode
from effrec_cli.methods.content.next_item import NextItem
from effrec_cli.methods.content.recomputing import RecomputingMethod
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.methods.multimodal.backbones import Description
from effrec_cli.methods.multimodal.finetuned import PooledItemEncoder
from effrec_cli.methods.multimodal.side_encoder import SideItemEncoder
from effrec_cli.methods.multimodal.sources import (
    StandIn,
    Taken,
    Wanted,
    cached_taps,
    live_taps,
    shape_of,
)
from effrec_cli.models.side.network import SideNetwork
from effrec_cli.models.taps import tap_rule
from effrec_cli.optim import make_optimizer
from effrec_cli.precision import autocast, resolve_precision
from effrec_cli.schema.encoder import PRETRAINED_LR
from effrec_cli.schema.method_iisan import TRAINED, IISANConfig

MODALITIES = ("text", "image")


class IISAN(RecomputingMethod):
    """Trains a SASRec over item vectors, and what makes these of hidden states of text and image backbones.

    `method.mode` says what trains beside it: a side network (`iisan`), or parts of the backbones.
    """

    tasks: ClassVar[tuple[str, ...]] = ("next_item",)
    _seconds_cache: float | None = None

    @property
    def own(self) -> IISANConfig:
        """The method's settings."""
        return cast(IISANConfig, self.config.method)

    @property
    def kind(self) -> type[Mode]:
        """How this run trains: backbones that run in every step encode an item once, on one of the ranks.

        Beside a cache every rank runs the side network, small as it is, over all items of the step: ranks
        then exchange the gradients of weights alone, once a step.
        """
        return EndToEnd if self.own.cached else SingleStep

    @property
    def may_recompute(self) -> bool:
        """Whether encoding a second time would let go of a graph of backbones; frozen ones leave none.

        They would run twice for the graph of the side network or the head alone, a small part of their work.
        """
        return self.own.mode in TRAINED

    def relief(self) -> list[str]:
        """Returns settings that lower the memory of a training step, best first, and what each does."""
        filled = f"{self.limits_setting}={max(2, self.limits.tokens // 2)}, where a cache is filled"
        return [*super().relief(), *([filled] if self.own.cached else [])]

    @property
    def limits(self) -> Limits:
        """How many tokens are encoded at once; a side network's items count one each."""
        return Limits(self.own.batch_tokens)

    @property
    def same_size_for_any_data(self) -> bool:
        """Whether the parameters can be counted before there are data: built-in backbones have its words."""
        names = [
            getattr(self.own, each).name for each in MODALITIES if self.own.modality in (each, "auto", "both")
        ]
        return None not in names

    @property
    def seconds_cache(self) -> float | None:
        """Seconds that keeping the hidden states of the catalogue took; None where backbones run instead."""
        return self._seconds_cache

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is read of the items, of `text` and `image`.

        Raises:
            DataError: the dataset lacks what the settings name.
        """
        contents, wanted = self.content.contents, self.own.modality
        there = {
            "text": contents.texts is not None or contents.tokens is not None,
            "image": contents.images is not None,
        }
        asked = MODALITIES if wanted == "both" else tuple(name for name in MODALITIES if name == wanted)
        for name in asked:
            if not there[name]:
                raise _lacking(self.data.name, name)
        return asked or tuple(name for name in MODALITIES if there[name])

    def recall(self, state: dict[str, Any]) -> None:
        """Remembers what the run chose; a cache that it has filled anew is not filled again as it goes on."""
        super().recall(state)
        if state:
            self.reopen()

    def reopen(self) -> None:
        """Reads the cache as it is: the run itself has filled it anew, where that was asked for."""
        self.own.cache.rebuild = False

    def build_encoder(self, cache: Path | None) -> Any:
        """Returns what makes item vectors in this mode; a cache that it reads is filled first."""
        self._refuse_unread()
        wanted = self._wanted(cache)
        if self.own.mode == "iisan":
            return self._side(wanted)
        if self.own.mode == "frozen" and self.own.cached:
            return self._pooled_from_cache(wanted)
        built = {name: wanted.build(name, pooler=self.own.mode == "bitfit") for name in self.modalities}
        return PooledItemEncoder(
            built.get("text"),
            built.get("image"),
            mode=self.own.mode,
            dim=self.own.dim,
            adapter_rank=self.own.adapter_rank,
            lora_rank=self.own.lora_rank,
            say=self.say,
        )

    def _refuse_unread(self) -> None:
        """Raises ConfigError for settings of what `modality=auto` did not find in the dataset."""
        own, there = self.own, self.modalities
        if len(there) == 2 or own.modality != "auto":
            return
        (missing,) = set(MODALITIES) - set(there)
        if getattr(own, missing).name is not None:
            raise _unread(self.data.name, missing, f"{missing}.name")
        if own.mode == "iisan" and (own.towers == "inter" or own.modality_dropout):
            raise _unread(self.data.name, missing, "towers" if own.towers == "inter" else "modality_dropout")

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Returns what moves the filter and the head, and one for each part with a rate of its own."""
        settings, parts = self.config.optimizer, cast(ContentModel, model)
        groups: dict[str, Any] = cast(Any, parts.encoder).groups()
        main = [*parts.filter.parameters(), *groups.pop("head")]
        made = [make_optimizer(main, settings)]
        for name, parameters in groups.items():
            if parameters:
                made.append(make_optimizer(parameters, replace(settings, lr=self._rate(name))))
        return made

    def _rate(self, name: str) -> float:
        """Returns the peak rate of `side`, `text` or `image`."""
        given = getattr(self.own.rates, name)
        if given is not None:
            return float(given)
        pretrained = name in MODALITIES and getattr(self.own, name).pretrained
        return PRETRAINED_LR if pretrained else self.config.optimizer.lr

    def _wanted(self, cache: Path | None) -> Wanted:
        device = self.world.device
        precision = resolve_precision(self.config.run.precision, device)
        return Wanted(
            settings=self.own,
            contents=self.content.contents,
            data_root=cache,
            device=device,
            precision=precision,
            autocast=partial(autocast, precision, device),
            rehearses=self.rehearses,
            say=self.say,
            ranks=self.world.size,
        )

    def _side(self, wanted: Wanted) -> SideItemEncoder:
        own = self.own
        abouts = {name: wanted.describe(name) for name in self.modalities}
        taken = _taken(own, abouts)
        shape = shape_of(abouts, taken)
        wide = len(abouts) == 1 or shape.text_dim == shape.image_dim
        head = own.head if own.head != "auto" else "wide" if wide else "narrow"
        side = SideNetwork(
            shape,
            towers=own.towers if len(abouts) == 2 else "intra",
            rank=own.rank,
            activation=own.activation,
            fusion=own.fusion,
            head=head,
            transform=own.transform,
            transform_rank=own.transform_rank,
            dim=own.dim,
            modality_dropout=own.modality_dropout,
        )
        source = self._source(wanted, abouts, taken)
        return SideItemEncoder(source, side, len(wanted.contents), compiled=own.compile)

    def _source(self, wanted: Wanted, abouts: dict[str, Description], taken: Taken) -> nn.Module:
        if torch.get_default_device().type == "meta":
            return StandIn(shape_of(abouts, taken))
        if not self.own.cached:
            return live_taps(wanted, taken)
        # A width that cannot be is refused now, and not after an hour of filling.
        cast(NextItem, self.content).settings_over(self.own.dim)
        source, self._seconds_cache = cached_taps(wanted, abouts, taken)
        return source

    def _pooled_from_cache(self, wanted: Wanted) -> PooledItemEncoder:
        abouts = {name: wanted.describe(name) for name in self.modalities}
        last: Taken = {name: (about.num_layers + 1,) for name, about in abouts.items()}
        source = self._source(wanted, abouts, last)
        costs = torch.ones(len(wanted.contents), dtype=torch.int64, device="cpu").numpy()
        return PooledItemEncoder(
            None, None, mode="frozen", dim=self.own.dim, source=source, costs=costs, say=self.say
        )


def _taken(own: IISANConfig, abouts: dict[str, Description]) -> Taken:
    """Returns the hidden states that the settings name, or the rule's, as many of each modality.

    Raises:
        ConfigError: a backbone has not so many, or is not as deep as the rule asks for.
    """
    most = min(about.num_layers for about in abouts.values())
    count = min(own.num_taps, most)
    found = {}
    for name, about in abouts.items():
        given = getattr(own, f"{name}_taps")
        if given is not None and given[-1] > about.num_layers:
            raise _too_deep(name, given[-1], about.num_layers)
        rule = partial(tap_rule, about.num_layers, count, "method.num_taps")
        found[name] = tuple(given) if given is not None else rule()
    return found


def _too_deep(modality: str, tap: int, layers: int) -> ConfigError:
    return ConfigError(
        f"There is no hidden state {tap} in the {modality} backbone, which has {layers} layers.",
        where=f"method.{modality}_taps",
        fix=f"name some of 0, what the first layer reads, to {layers}, what the last one gives",
    )


def _unread(dataset: str, modality: str, name: str) -> ConfigError:
    what = {"text": "texts", "image": "images"}[modality]
    wanted = {"text": "dataset.title=COLUMN of a table", "image": "dataset.images=PATH"}[modality]
    return ConfigError(
        f"It would do nothing: dataset '{dataset}' has no {what} of its items.",
        where=f"method.{name}",
        fix=f"{wanted}, or leave method.{name} out",
    )


def _lacking(dataset: str, modality: str) -> DataError:
    what = {"text": "texts", "image": "images"}[modality]
    fix = {
        "text": "dataset.title=COLUMN of a table, or dataset=synthetic",
        "image": "dataset.images=PATH, or dataset=synthetic dataset.side=[text,images]",
    }[modality]
    return DataError(
        f"method.modality asks for {what}, and dataset '{dataset}' has none of its items.",
        where="method.modality",
        fix=f"{fix}; or method.modality=auto takes what is there",
    )
