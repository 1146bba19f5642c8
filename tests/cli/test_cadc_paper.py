"""The paper's experiments of method cadc: what is known of them, and what is missing here."""

import json
from pathlib import Path

import numpy as np
import pytest

from effrec_cli import compose

SETS = {"ml1m": "ml-1m", "ml10m": "ml-10m", "epinions": "epinions"}


@pytest.mark.parametrize("name", SETS)
def test_what_is_known_of_the_paper_stands_in_its_experiments(name):
    path = [] if name != "epinions" else ["dataset.path=ratings_data.txt"]
    config = compose.compose([f"experiment=paper_cadc_{name}", *path])
    own, sample = config.method, config.method.sample
    assert (config.dataset.name, config.model.name) == (SETS[name], "two_tower")
    assert (own.embedding, sample.rate, sample.mode) == ("init_frz", 0.1, "uniform")
    assert (config.evaluation.ks, config.evaluation.metrics) == ([10], ["hr", "ndcg"])
    assert config.dataset.split.kind == "leave_one_out"


@pytest.mark.parametrize("name", ["ml1m", "ml10m"])
def test_a_set_that_is_not_here_is_told_with_what_fetches_it(effrec, name):
    done = effrec("validate", f"experiment=paper_cadc_{name}")
    assert done.code == 0
    assert f"effrec data fetch {SETS[name]}" in done.out


@pytest.mark.parametrize("verb", ["validate", "train"])
def test_a_set_that_is_a_file_of_yours_is_asked_for(effrec, verb):
    done = effrec(verb, "experiment=paper_cadc_epinions")
    assert done.code == 2
    assert "dataset.path is not set" in done.err
    assert "dataset.path=FILE" in done.err


def test_epinions_trains_from_a_file_as_it_is_published(effrec):
    """Without a header line and without times."""
    draw = np.random.default_rng(0)
    lines = [
        f"{user} {item} {draw.integers(1, 6)}"
        for user in range(1, 41)
        for item in draw.choice(np.arange(1, 31), 13, replace=False)
    ]
    Path("ratings_data.txt").write_text("\n".join(lines) + "\n")
    words = ["dataset.path=ratings_data.txt", "run.max_epochs=1", "run.device=cpu", "run.dir=run"]
    done = effrec("train", "experiment=paper_cadc_epinions", *words)
    assert done.code == 0, done.err
    result = json.loads(Path("run/result.json").read_text())
    assert (result["dataset"]["users"], result["dataset"]["interactions"]) == (40, 520)
    assert set(result["metrics"]["test"]) == {"hr@10", "ndcg@10"}
