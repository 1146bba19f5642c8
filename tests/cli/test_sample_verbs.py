"""`effrec data sample`, and runs on what it makes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SMALL = ["dataset.num_users=60", "dataset.num_items=40", "dataset.side=[]"]
POP = ["train", "method=pop"]


def told(folder):
    return json.loads((Path(folder) / "result.json").read_text())


def test_a_sample_is_written_trained_on_and_judged_beside_the_whole(effrec):
    done = effrec("data", "sample", "synthetic", "--out", "half", *SMALL, "dataset.sample.rate=0.5")
    assert done.code == 0
    assert "training rows kept in half" in done.out
    assert "effrec train dataset=sample dataset.path=half" in done.out
    on_half, whole = [*POP, "dataset=sample", "dataset.path=half"], [*POP, *SMALL]
    assert effrec(*on_half, "run.dir=runs/half").code == 0
    assert effrec(*whole, "run.dir=runs/whole").code == 0
    assert effrec(*whole, "dataset.sample.rate=0.5", "run.dir=runs/again").code == 0
    half, all_rows, again = (told(f"runs/{name}") for name in ("half", "whole", "again"))
    assert half["dataset"]["sample"]["parent"] == all_rows["dataset"]["hash"] != half["dataset"]["hash"]
    assert half["dataset"] == again["dataset"]
    assert half["metrics"] == again["metrics"] != all_rows["metrics"]
    assert half["protocol"] == all_rows["protocol"]
    assert half["cost"]["training_rows"] == half["dataset"]["sample"]["rows_kept"]
    assert all_rows["cost"]["training_rows"] == half["dataset"]["sample"]["rows"]
    assert half["dataset"]["interactions"] == all_rows["dataset"]["interactions"]
    assert "sample" not in all_rows["dataset"]
    board = json.loads(effrec("compare", "runs/half", "runs/whole", "--json").out)["tables"]
    assert len(board) == 1
    assert board[0]["content_hash"] == all_rows["dataset"]["hash"]
    assert {row["settings"]["sample_rate"] for row in board[0]["rows"]} == {0.5, 1.0}


def test_a_run_on_a_folder_is_scored_again_from_it(effrec):
    effrec("data", "sample", "synthetic", "--out", "half", *SMALL, "dataset.sample.rate=0.5")
    effrec(*POP, "dataset=sample", "dataset.path=half", "run.dir=run")
    for path in Path("data/prepared").glob("synthetic-*"):
        path.rename(path.with_name(f"gone-{path.name}"))
    scored = effrec("evaluate", "run", "--json")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["metrics"]["ndcg@10"] == told("run")["metrics"]["test"]["ndcg@10"]


def test_weights_that_a_method_leaves_unread_are_told(effrec):
    done = effrec(*POP, *SMALL, "dataset.sample.rate=0.5", "dataset.sample.mode=propensity", "run.dir=run")
    assert done.code == 0
    assert "pop leaves the importance weights of the sample unread" in done.err


def test_describe_and_validate_know_samples(effrec):
    words = [*SMALL, "dataset.sample.rate=0.5", "dataset.sample.mode=temporal"]
    before = effrec("validate", "method=pop", *words)
    assert before.code == 0, before.err
    assert "temporal" in effrec("data", "describe", "synthetic", *words).out
    found = json.loads(effrec("data", "describe", "synthetic", *words, "--json").out)
    assert found["split"]["train_rows"] == found["sample"]["rows_kept"] < found["sample"]["rows"]
    assert "seed" not in found["sample"]


def test_a_file_is_sampled_without_preparing_anything(effrec):
    rows = {"who": [f"u{n % 50}" for n in range(2000)], "what": [n % 37 for n in range(2000)]}
    pq.write_table(pa.table({**rows, "when": list(range(2000))}), "in.parquet")
    words = ["--parquet", "in.parquet", "--user", "who", "--item", "what", "--time", "when"]
    done = effrec("data", "sample", *words, "--out", "out.parquet", "dataset.sample.rate=0.25")
    assert done.code == 0
    kept = pq.read_table("out.parquet")
    assert f"{len(kept)} of 2,000 training rows kept in out.parquet" in done.out
    assert 400 < len(kept) < 600
    assert json.loads(kept.schema.metadata[b"effrec.sample"])["rate"] == 0.25
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["synthetic", "--out", "x"], 2, "dataset.sample.rate=0.1"),
        (["--out", "x", "dataset.sample.rate=0.1"], 2, "one dataset, or --parquet FILE"),
        (["synthetic", "dataset.sample.rate=0.1"], 2, "--out"),
        (["synthetic", "--out", "x", "dataset.sample.mode=unifrom"], 2, "uniform"),
        (["synthetic", "--out", "x", "dataset.sample.rate=2"], 2, "dataset.sample.rate"),
        (["--parquet", "in.parquet", "--out", "x", "dataset.num_users=3"], 2, "dataset.sample.rate=0.1"),
        (["--parquet", "absent", "--out", "x", "dataset.sample.rate=0.1"], 2, "no such file"),
        (["--parquet", "in.parquet", "--users", "u", "--out", "x"], 2, "--user"),
    ],
)
def test_usage_errors_exit_2(effrec, words, code, text):
    done = effrec("data", "sample", *words)
    assert done.code == code
    assert text in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [["model=nrms"], ["model=dkt"]])
def test_tasks_on_other_rows_refuse_a_sample_before_anything_is_prepared(effrec, words):
    done = effrec("train", "method=gram", *words, "dataset.sample.rate=0.5")
    assert done.code == 2
    assert "A sample keeps some of the interactions" in done.err
    assert not Path("data").exists()


def test_help(effrec):
    done = effrec("data", "sample", "--help")
    assert done.code == 0
    assert "--parquet" in done.out
