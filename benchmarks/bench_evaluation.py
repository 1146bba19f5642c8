"""Full ranking of the shape of ML-20M: seconds for all metrics, with a scorer that is one matrix product.

`python benchmarks/bench_evaluation.py [num_users num_items dim]`; `cells()` is what `effrec bench` calls.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

for folder in ("", "kernels"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / folder))

from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences  # noqa: E402
from effrec_cli.evaluation.ranking import rank_cases  # noqa: E402
from effrec_cli.evaluation.scorer import Histories  # noqa: E402
from effrec_cli.schema import EvaluationConfig  # noqa: E402

MEAN_LENGTH = 144


class DotProduct:
    """Scores a user by the product of its vector with every item's."""

    def __init__(self, num_users: int, num_items: int, dim: int, device: torch.device) -> None:
        self.num_items, self.device = num_items, device
        draw = torch.Generator().manual_seed(0)
        self.users = torch.randn(num_users, dim, generator=draw).to(device)
        self.items = torch.randn(num_items, dim, generator=draw).to(device)

    def score(self, users: Tensor, histories: Histories) -> Tensor:
        return self.users[users] @ self.items.T


def make_data(num_users: int, num_items: int) -> RecData:
    """Returns histories of geometric length and Zipf-like items, last item held out."""
    draw = np.random.default_rng(0)
    lengths = 3 + draw.geometric(1 / (MEAN_LENGTH - 3), num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = (num_items * draw.random(offsets[-1]) ** 3).astype(np.int32)
    start, end = offsets[:-1], offsets[1:]
    cases = EvalCases(np.arange(num_users, dtype=np.int32), start, end - 1, end - 1, end)
    return RecData(
        name="bench", content_hash="0" * 64, sequences=Sequences(offsets, items), train_end=end - 2,
        valid=cases, test=cases, users=Catalogue(np.arange(num_users)), items=Catalogue(np.arange(num_items)),
    )  # fmt: skip


def seconds(scorer: DotProduct, data: RecData, metrics: list[str]) -> float:
    """Returns the wall time of one full ranking of all users."""
    settings = EvaluationConfig(metrics=metrics, monitor=f"{metrics[0]}@10")
    begin = time.perf_counter()
    rank_cases(scorer, data, data.test, settings)
    return time.perf_counter() - begin


def product_seconds(scorer: DotProduct, rows: int = 256) -> float:
    """Returns the wall time of the scores alone: the floor of any full ranking with this scorer."""
    begin = time.perf_counter()
    for block in torch.arange(len(scorer.users), device=scorer.device).split(rows):
        scores = scorer.users[block] @ scorer.items.T
    float(scores[0, 0])
    return time.perf_counter() - begin


def cells(num_users: int = 138_493, num_items: int = 26_744, dim: int = 64) -> list[dict[str, Any]]:
    """Returns one record for each measured setting; the unit is seconds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = make_data(num_users, num_items)
    scorer = DotProduct(num_users, num_items, dim, device)
    shape = {"users": num_users, "items": num_items, "dim": dim, "top": 100}
    every = ["ndcg", "hr", "mrr", "recall", "map", "precision", "coverage", "surprisal"]
    figures = {
        "matrix product alone": product_seconds(scorer),
        "ndcg": seconds(scorer, data, ["ndcg"]),
        "all metrics": seconds(scorer, data, every),
    }
    return [
        {"suite": "evaluation", "cell": name, "shape": shape, "device": device.type, "seconds": figure}
        for name, figure in figures.items()
    ]


if __name__ == "__main__":
    for cell in cells(*(int(word) for word in sys.argv[1:])):
        print(f"{cell['cell']:>24} {cell['seconds']:8.2f} s   {cell['shape']} on {cell['device']}")
