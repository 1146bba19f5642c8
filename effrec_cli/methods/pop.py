"""Method pop: the most popular items for everyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.types import RecData
from effrec_cli.evaluation.scorer import Histories, Scorer
from effrec_cli.methods.base import Footprint, Method
from effrec_cli.models.none import NoModel

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


class Popularity(Method):
    """Ranks items by their number of training rows, repetitions included."""

    tasks: ClassVar[tuple[str, ...]] = ("none",)
    model: NoModel

    def build(self, data: RecData) -> nn.Module:
        """Returns the holder of the counts, empty as yet."""
        self.model = model_for(self.task, self.config.model.name)()
        return self.model

    def fit(self, engine: Engine) -> None:
        """Counts."""
        counts = torch.from_numpy(self.data.train_counts())
        exact = torch.float32 if int(counts.max()) < 1 << 24 else torch.float64
        self.load_state_dict({"counts": counts.to(engine.world.device, exact)})

    def footprint(self, data: RecData) -> Footprint:
        """Returns the counts, and the whole numbers they are made from."""
        return Footprint(data.num_items, 4 * data.num_items, 12 * data.num_items)

    def scorer(self) -> Scorer:
        """Returns what gives every user the counts."""
        return CountScorer(self.model.get_parameter("counts"))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `counts`, float [V]."""
        self.model.hold(state)


class CountScorer:
    """Scores an item by its count; implements `Scorer`.

    Args:
        counts: float [V].
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts, self.num_items, self.device = counts, len(counts), counts.device

    def score(self, users: Tensor, histories: Histories) -> Tensor:
        """Returns the counts, float [B, V]."""
        return self.counts.repeat(len(users), 1)
