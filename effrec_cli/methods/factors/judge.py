"""How well vectors do on the validation cases, while they are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.methods.factors.fit import Judge
from effrec_cli.methods.factors.scorer import FactorScorer
from effrec_cli.schema import EvaluationConfig

MOST_CASES = 10_000
"""Cases looked at between sweeps; more are thinned out evenly. All of them can take longer than a sweep."""


def seen_users(data: RecData) -> Tensor:
    """Returns whether training has a row of each user, bool [U]."""
    return torch.from_numpy(data.train_end > data.train_start)


def judge_of(
    kind: str,
    data: RecData,
    evaluation: EvaluationConfig,
    monitor: str,
    world: World,
    *,
    fold_all: bool = False,
    last: int | None = None,
) -> Judge | None:
    """Returns what ranks `MOST_CASES` of the validation cases by one metric; None where there are none.

    Args:
        kind: of factorisation.
        data: the dataset; of validation and test rows only those of validation are read.
        evaluation: how cases are ranked.
        monitor: the metric, such as `ndcg@10`; no other is computed.
        world: whose ranks share the cases.
        fold_all: as of `FactorScorer`.
        last: likewise.
    """
    if not len(data.valid):
        return None
    name, _, depth = monitor.partition("@")
    alone = replace(evaluation, metrics=[name], ks=[int(depth)])
    seen = seen_users(data).to(world.device)
    cases = data.valid[:: -(-len(data.valid) // MOST_CASES)]

    def judge(state: Mapping[str, Tensor]) -> float:
        scorer = FactorScorer(kind, {**state, "seen": seen}, fold_all=fold_all, last=last)
        return rank_cases(scorer, data, cases, alone, world=world)[monitor]

    return judge
