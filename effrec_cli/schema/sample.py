"""Settings of a sample: which of a dataset's training rows are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Needed, Problem, unread_problems, unused_problems

MODES = (
    "uniform",
    "exact",
    "per_user",
    "per_item",
    "temporal",
    "user",
    "head",
    "propensity",
    "forgetting",
)


@dataclass
class ForgettingConfig:
    """Which rows a small proxy model gets wrong most often (SVP-CF; papers/cadc section 4.2.2).

    Attributes:
        proxy: `mf`, the dot product of factors and an item bias, or `bias`, the item bias alone.
        dim: numbers in a factor (mf).
        epochs: passes over the training rows, in each of which each row may be got wrong.
        lr: learning rate of plain SGD over the sum of a batch.
        batch_size: rows in a step.
        negatives: items drawn for each row, each time anew.
        propensity: multiply what was counted by what rare users and items weigh (the Prop variant).
        per_user: keep the rate of each user's rows, at least one, in place of the rate of all rows.
    """

    proxy: str = setting("mf", choices=("mf", "bias"))
    dim: int = setting(10, low=1)
    epochs: int = setting(50, low=1)
    lr: float = setting(0.006, above=0)
    batch_size: int = setting(1024, low=1)
    negatives: int = setting(1, low=1)
    propensity: bool = False
    per_user: bool = False


@dataclass
class SampleConfig:
    """Which training rows are kept; what is judged and the histories are never sampled.

    Attributes:
        rate: share of the training rows that is kept; 1 keeps all and samples nothing, and whatever else is
            set is refused.
        mode: `uniform` keeps each row with the same probability, `exact` exactly the share; `per_user` and
            `per_item` the share of each user's or item's rows, at least one; `temporal` each user's newest;
            `user` whole users; `head` cuts the heaviest users alone; `propensity` keeps rows of popular items
            with a lower probability and weights; `forgetting` what a proxy model gets wrong most often.
        seed: of the hash that draws, in all modes but temporal; a smaller rate of one seed keeps part of what
            a larger one does.
        power: how the probability to be kept falls with an item's number of rows (propensity); 0 is uniform.
        max_weight: no row weighs more: none is kept with a probability below one over it (propensity).
        forgetting: the proxy (forgetting).
    """

    rate: float = setting(1.0, above=0, high=1)
    mode: str = setting("uniform", choices=MODES)
    seed: int = setting(42, low=0)
    power: float = setting(0.5, low=0)
    max_weight: float = setting(100.0, low=1)
    forgetting: ForgettingConfig = field(default_factory=ForgettingConfig)


_OWN = {"propensity": ("power", "max_weight"), "forgetting": ("forgetting",), "temporal": ()}


def is_sampled(config: SampleConfig) -> bool:
    """Returns whether rows are left out at all."""
    return config.rate < 1


def sample_settings(config: SampleConfig) -> dict[str, Any]:
    """Returns the settings that decide what is kept, so that others do not change the content hash."""
    every = asdict(config)
    seed = () if config.mode == "temporal" else ("seed",)
    return {name: every[name] for name in ("mode", "rate", *seed, *_OWN.get(config.mode, ()))}


_LOOKED_AT: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(_OWN["propensity"], ("mode", ("propensity",))),
    "seed": ("mode", tuple(mode for mode in MODES if mode != "temporal")),
}


def sample_problems(config: SampleConfig, path: str, *, drawn: bool = False) -> Iterator[Problem]:
    """Yields settings of a sample that would do nothing.

    Args:
        config: of the sample.
        path: the section's full key, such as `dataset.sample`.
        drawn: whether rows are drawn by its seed where the rate keeps all of them, too.
    """
    if not is_sampled(config):
        needed = Needed(f"{path}.rate", (0.1,), config.rate, "a rate below 1")
        yield from unread_problems(config, path, needed, but=("rate", "seed") if drawn else ("rate",))
        return
    yield from unused_problems(config, _LOOKED_AT, path)
    own = config.forgetting
    if config.mode == "forgetting":
        yield from unused_problems(own, {"dim": ("proxy", ("mf",))}, f"{path}.forgetting")
    else:
        needed = Needed(f"{path}.mode", ("forgetting",), config.mode)
        yield from unread_problems(own, f"{path}.forgetting", needed)
