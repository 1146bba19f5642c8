"""What methods share that start from a factorisation: having it fitted, and telling what it cost."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from effrec_cli.data.types import RecData
from effrec_cli.methods.base import Method
from effrec_cli.methods.factors.kept import Kept, kept_factors
from effrec_cli.schema.factors import FactorsConfig
from effrec_cli.schema.protocols import monitor_of


def relief_of(settings: FactorsConfig) -> list[str]:
    """Returns settings that lower the memory of fitting, and what each does."""
    chunk, narrower = (
        settings.chunk_mib,
        "half of method.factors.dim halves the vectors, which changes the result",
    )
    if chunk == 1:
        return [narrower]
    smaller = f"method.factors.chunk_mib={1 if chunk is None else chunk / 2:g}"
    return [f"{smaller} solves fewer rows at a time and changes nothing else", narrower]


@dataclass(frozen=True)
class Origin:
    """Where starting vectors are from, JSON-able.

    Attributes:
        digest: of the factorisation.
        seconds: that fitting it took, whichever run did it.
        bytes: of its vectors of users and items.
        choices: settings that were left open, each with what it became and why.
    """

    digest: str
    seconds: float
    bytes: int
    choices: dict[str, str]

    @classmethod
    def of(cls, kept: Kept) -> Origin:
        """Returns what is to be told of a factorisation that was fitted or found."""
        told = {f"method.factors.{name}": why for name, why in kept.choices.items()}
        told["method.factors"] = f"{'found' if kept.found else 'fitted'} as {kept.digest}"
        return cls(kept.digest, kept.seconds, kept.users.nbytes + kept.items.nbytes, told)


class FactorStart(Method):
    """Base of methods whose `method.factors` is a factorisation that training starts from.

    Attributes:
        origin: of the vectors; None where there are none.
    """

    origin: Origin | None = None

    def factorised(self, settings: FactorsConfig, data: RecData) -> Kept:
        """Returns the factors of the training rows, fitted where no earlier run has.

        Args:
            settings: which, none of them open but what the data's size decides.
            data: of which all training rows are read; of a sample that is its kept rows.

        Raises:
            DataError: there are no training rows, or no ratings where they are needed.
        """
        self.doing = "factorising"
        kept = kept_factors(
            settings,
            data,
            Path(self.config.data_root),
            self.world.device,
            self._say,
            seed=self.config.seed,
            evaluation=self.config.evaluation,
            monitor=monitor_of(self.config),
            stages=self.stages,
        )
        self.doing = FactorStart.doing
        self.stages.none("factorise")
        self.origin = Origin.of(kept)
        return kept

    def relief(self) -> list[str]:
        """Returns settings that lower the memory of what it is at, best first, and what each does."""
        return relief_of(self.config.method.factors) if self.doing == "factorising" else super().relief()

    def _say(self, line: str) -> None:
        """Tells the user what takes time; one rank does."""
        if self.world.is_main:
            print(line, file=sys.stderr)

    @property
    def seconds_cache(self) -> float | None:
        """Seconds that the factorisation took, whichever run did it."""
        return None if self.origin is None else self.origin.seconds

    @property
    def cache_id(self) -> str | None:
        """The digest of the factorisation."""
        return None if self.origin is None else self.origin.digest

    @property
    def factor_bytes(self) -> int | None:
        """Bytes of the factorisation's vectors."""
        return None if self.origin is None else self.origin.bytes

    def choices(self) -> dict[str, str]:
        """Returns what the factorisation chose and where it is from."""
        return {} if self.origin is None else dict(self.origin.choices)
