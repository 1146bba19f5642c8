"""What `benchmarks/dsl_quality.py` runs, and what it makes of finished runs."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from effrec_cli.compose import compose
from effrec_cli.schema.method_dsl import MODES, column_bytes, live_of, small_dim

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quality():
    spec = importlib.util.spec_from_file_location("dsl_quality", ROOT / "benchmarks" / "dsl_quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_mode_is_a_valid_run_at_every_density(quality, tmp_path):
    modes = set()
    for words in quality.variants().values():
        config = compose(["dataset=synthetic", *quality.overrides_of(words, 3, tmp_path / "here")])
        modes.add(config.method.mode)
        assert config.seed == 3
        assert config.run.dir == str(tmp_path / "here")
    assert modes == set(MODES)


@pytest.mark.parametrize("percent", [50, 25, 10, 5])
def test_what_stands_in_a_cell_has_as_many_bytes_or_fewer(quality, percent):
    sizes = {}
    for name, words in quality.variants().items():
        if name.endswith(f"@{percent}"):
            own = compose(["dataset=synthetic", "method=dsl", *words]).method
            sparse = live_of(own) * (4 + column_bytes(own.dim))
            sizes[name] = 4 * small_dim(own) if own.mode == "dense_small" else sparse
    sparse = {size for name, size in sizes.items() if not name.startswith("dense_small")}
    assert len(sparse) == 1
    assert sparse.pop() - 4 < sizes[f"dense_small@{percent}"] <= sizes[f"dsl@{percent}"]


def test_what_is_wanted_is_run_and_the_words_of_the_user_come_last(quality, monkeypatch, tmp_path):
    asked = []

    def started(command, **options):
        asked.append(command[command.index("train") + 1 :])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(quality.many_runs.subprocess, "run", started)
    done = tmp_path / "static@25-1"
    done.mkdir()
    (done / "result.json").write_text("{}")
    words = ["train", str(tmp_path), "--seeds", "1", "2", "--only", "static@25", "dense", "--dim", "32"]
    assert quality.main([*words, "--", "dataset=synthetic", "method.dim=8"]) == 0
    assert [line[1] for line in asked] == ["method.mode=dense", "method.mode=dense", "method.mode=static"]
    assert all(line[-2:] == ["dataset=synthetic", "method.dim=8"] for line in asked)
    assert all("method.dim=32" in line for line in asked)


def test_records_have_scores_and_bytes_and_no_run_is_told(quality, tmp_path):
    with pytest.raises(SystemExit, match="No finished run"):
        quality.records_of("suite", "here", tmp_path)
    for seed, score in ((1, 0.2), (2, 0.4)):
        folder = tmp_path / f"dsl@25-{seed}"
        folder.mkdir()
        found = {
            "seed": seed,
            "commit": "abc",
            "metrics": {"test": {"ndcg@10": score, "mrr@10": 1.0}},
            "cost": {"weights_bytes": 1 << 20, "gradient_bytes": None, "optimizer_bytes": 3 << 20},
            "sparsity": {"served_bytes": 1 << 19, "growth_bytes": 1 << 19},
        }
        (folder / "result.json").write_text(json.dumps(found))
    (made,) = quality.records_of("suite", "here", tmp_path)
    assert (made["cell"], made["peer"], made["parameters"]) == ("25 %, here", "dsl", {"seeds": 2})
    medians = {name: figure["median"] for name, figure in made["figures"].items()}
    assert medians == {"ndcg@10": pytest.approx(0.3), "served": 0.5, "training state": 4.5}
    assert made["figures"]["served"]["unit"] == "MiB"
