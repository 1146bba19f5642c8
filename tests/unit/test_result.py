"""`result.json`: its layout is a promise, and every wrong path gets one clear error."""

import json
import math
from dataclasses import replace

import pytest

from effrec_cli import durable, result
from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.evaluation.cost_record import Cost, Parameters
from effrec_cli.lock import FolderLock
from effrec_cli.report import tables

COST = Cost(
    seconds_total=12.5,
    seconds_per_epoch=1.25,
    seconds_to_95=3.0,
    joules=None,
    peak_memory_bytes=1 << 20,
    memory_kind="rss_growth",
    parameters=Parameters(all=10, trainable=9, nonzero=8),
    model_bytes=400,
    training_rows=77,
    flops_per_sample=1e6,
)
RESULT = result.Result(
    metrics={"valid": {"ndcg@10": 0.2}, "test": {"ndcg@10": 0.1}},
    protocol={"candidates": "full"},
    cost=COST,
    dataset={"name": "synthetic", "hash": "ab12"},
    method="cce",
    model="sasrec",
    kernel="torch",
    seed=3,
    commit=None,
    versions={"torch": "2.13"},
    device={"kind": "cpu", "name": "a CPU", "count": 1},
    config={"method": {"name": "cce", "loss": "ce"}},
)

# design section 3: the names that scripts rely on.
PROMISED = {
    "metrics", "protocol", "cost", "dataset", "method", "model", "kernel", "seed", "commit", "versions",
    "device", "config",
}  # fmt: skip
PROMISED_COST = {
    "seconds_total", "seconds_per_epoch", "seconds_to_95", "joules", "peak_memory_bytes", "memory_kind",
    "parameters", "model_bytes", "training_rows", "flops_per_sample",
}  # fmt: skip


def test_what_is_written_is_read_back(tmp_path):
    result.write(tmp_path, RESULT)
    assert result.read(tmp_path) == RESULT
    assert result.read(tmp_path / "result.json") == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"], "nothing is left aside"


def test_layout_is_the_promised_one(tmp_path):
    result.write(tmp_path, RESULT)
    record = json.loads((tmp_path / "result.json").read_text())
    assert set(record) >= PROMISED
    assert set(record["cost"]) >= PROMISED_COST
    assert record["cost"]["parameters"] == {"all": 10, "trainable": 9, "nonzero": 8}
    assert record["cost"]["joules"] is None
    assert record["metrics"] == RESULT.metrics
    assert record["schema_version"] == 1
    assert "ceiling" not in record, "only synthetic data have one"


def test_ceiling_is_kept_where_there_is_one(tmp_path):
    result.write(tmp_path, replace(RESULT, ceiling={"ndcg@10": 0.4}))
    assert result.read(tmp_path).ceiling == {"ndcg@10": 0.4}


def test_deciles_are_kept_where_there_are_some_and_old_files_have_none(tmp_path):
    result.write(tmp_path, RESULT)
    assert "by_frequency" not in json.loads((tmp_path / "result.json").read_text())
    assert result.read(tmp_path).by_frequency is None
    told = {"users": [{"decile": 1, "rows": [0, 3], "cases": 2, "ndcg@10": 0.5}], "items": []}
    result.write(tmp_path, replace(RESULT, by_frequency=told))
    assert result.read(tmp_path).by_frequency == told


def test_numbers_that_json_lacks_become_null(tmp_path):
    bad = {"test": {"ndcg@10": math.nan, "hr@10": 0.5}}
    result.write(tmp_path, replace(RESULT, metrics=bad, protocol={"ks": (1, math.inf)}))
    again = result.read(tmp_path)
    assert again.metrics == {"test": {"ndcg@10": None, "hr@10": 0.5}}
    assert again.protocol == {"ks": [1, None]}


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    result.write(tmp_path, RESULT)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full_disk)
    with pytest.raises(EnvironmentFault, match="No space"):
        result.write(tmp_path, replace(RESULT, seed=9))
    assert result.read(tmp_path).seed == 3
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_unknown_folder_names_the_nearest_run(tmp_path):
    (tmp_path / "cce-ml-1m").mkdir()
    (tmp_path / "cce-notes").mkdir()
    result.write(tmp_path / "cce-ml-1m", RESULT)
    with pytest.raises(ConfigError, match="no run folder") as caught:
        result.read(tmp_path / "cce-ml-2m")
    assert caught.value.nearest == str(tmp_path / "cce-ml-1m")
    assert caught.value.exit_code == 2


def test_folder_that_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(ConfigError, match="holds neither"):
        result.read(tmp_path)


def leave_status(folder, state):
    (folder / "status.json").write_text(json.dumps({"state": state, "step": 40, "reason": "SIGTERM"}))


@pytest.mark.parametrize(
    ("state", "said"), [("running", "killed"), ("failed", "failed"), ("interrupted",) * 2]
)
def test_run_without_result_says_its_status_and_how_to_go_on(tmp_path, state, said):
    leave_status(tmp_path, state)
    with pytest.raises(ConfigError, match=f"{said} at step 40") as caught:
        result.read(tmp_path)
    assert caught.value.fix == f"effrec resume {tmp_path}"
    assert caught.value.where == "SIGTERM"


def test_run_that_is_still_going_is_not_to_be_resumed(tmp_path):
    leave_status(tmp_path, "running")
    lock = FolderLock(tmp_path)
    lock.take()
    with pytest.raises(ConfigError, match="running at step 40") as caught:
        result.read(tmp_path)
    lock.release()
    assert caught.value.fix == f"effrec show {tmp_path}"


def test_newer_layout_asks_for_an_upgrade(tmp_path):
    result.write(tmp_path, replace(RESULT, schema_version=2))
    with pytest.raises(ConfigError, match=r"newer effrec.*version 2.*up to 1"):
        result.read(tmp_path)


@pytest.mark.parametrize("text", ['{"schema_version": 1, "metr', "[]", "{}", '{"schema_version": "one"}', ""])
def test_damaged_file_is_called_damaged(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        result.read(tmp_path)
    assert str(tmp_path) in caught.value.where


@pytest.mark.parametrize("key", ["metrics", "config", "cost"])
def test_missing_key_is_named(tmp_path, key):
    result.write(tmp_path, RESULT)
    record = json.loads((tmp_path / "result.json").read_text())
    del record[key]
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=key):
        result.read(tmp_path)


def test_keys_of_a_later_addition_are_passed_over(tmp_path):
    result.write(tmp_path, RESULT)
    record = json.loads((tmp_path / "result.json").read_text())
    record["weather"] = "fine"
    record["cost"]["water_litres"] = 3
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert result.read(tmp_path) == RESULT


def test_training_state_has_the_sums_that_rank_growth():
    cost = replace(COST, weights_bytes=5, gradient_bytes=3, optimizer_bytes=2)
    for sparsity, held, words in (
        (None, 10, "optimizer 2 B, as"),
        ({"growth_bytes": 7}, 17, "growth sums 7 B, as"),
    ):
        found = replace(RESULT, cost=cost, sparsity=sparsity)
        assert tables._held(found) == held
        assert words in tables._parts_held(found)
