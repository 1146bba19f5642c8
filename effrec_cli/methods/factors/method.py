"""Methods that are a matrix factorisation and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from effrec_cli.backbone import model_for
from effrec_cli.data.types import RecData
from effrec_cli.evaluation.scorer import Scorer
from effrec_cli.methods.base import Footprint, Method
from effrec_cli.methods.factors.fit import Fitted, fit, kind_of
from effrec_cli.methods.factors.footprint import fitting_bytes
from effrec_cli.methods.factors.judge import judge_of, seen_users
from effrec_cli.methods.factors.scorer import FactorScorer
from effrec_cli.methods.factors.tuned import Size
from effrec_cli.models.none import NoModel
from effrec_cli.schema.protocols import monitor_of

if TYPE_CHECKING:
    from effrec_cli.engine import Engine


class Factorisation(Method):
    """Fits user and item vectors on the training rows; a score is the product of two.

    The validation metric is looked at every few sweeps, and the best sweep's vectors are kept.
    """

    tasks: ClassVar[tuple[str, ...]] = ("none",)
    model: NoModel
    fitted: Fitted | None = None

    @property
    def own(self) -> Any:
        """The method's settings."""
        return self.config.method

    def build(self, data: RecData) -> nn.Module:
        """Returns the holder of the vectors, empty as yet."""
        self.model = model_for(self.task, self.config.model.name)()
        return self.model

    def fit(self, engine: Engine) -> None:
        """Sweeps until validation says enough.

        Raises:
            DataError: there are no training rows, or no ratings where they are needed.
            ConfigError: the regulariser is too weak for the precision.
        """
        own, world = self.own, engine.world
        fold_all = own.users == "fold_in"
        rank = judge_of(
            kind_of(own),
            self.data,
            self.config.evaluation,
            monitor_of(self.config),
            world,
            fold_all=fold_all,
            last=own.last,
        )

        def judge(state: Mapping[str, Tensor]) -> float:
            assert rank is not None
            with engine.meter.validating():
                return rank(state)

        self.fitted = fit(own, self.data, world.device, self.config.seed, rank and judge)
        self.load_state_dict({**self.fitted.state, "seen": seen_users(self.data).to(world.device)})

    def footprint(self, data: RecData) -> Footprint:
        """Returns the vectors, and what fitting holds besides: the rows both ways round, and more vectors."""
        numbers = (data.num_users + data.num_items) * int(self.own.dim)
        return Footprint(numbers, 4 * numbers, fitting_bytes(self.own, Size.of(data), self.world.device))

    def choices(self) -> dict[str, str]:
        """Returns what settings that were left open became, and the sweep that was best."""
        told = self.fitted.choices if self.fitted is not None else {}
        return {f"method.{name}": why for name, why in told.items()}

    def scorer(self) -> Scorer:
        """Returns what multiplies vectors."""
        own, state = self.own, self.model.state_dict()
        return FactorScorer(kind_of(own), state, fold_all=own.users == "fold_in", last=own.last)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `users` [U, d], `items` [V, d], `seen` [U] and what folding in needs."""
        self.model.hold(state)
