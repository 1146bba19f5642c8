"""Where the seconds of a run of method cadc go, and what it keeps (papers/cadc section 1.5 and test 17)."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from compare_helpers import leave_run, make_cost, make_result
from torch import nn

from effrec_cli import artifacts, result, run
from effrec_cli.app import main
from effrec_cli.engine import Engine
from effrec_cli.evaluation.cost import CostMeter
from effrec_cli.evaluation.stages import Stages
from effrec_cli.methods import cadc
from effrec_cli.methods.ctr import method as ctr
from effrec_cli.methods.factors import kept
from effrec_cli.report.board import board_table
from effrec_cli.report.compare import compare
from effrec_cli.report.records import as_records
from effrec_cli.report.tables import cost_table

TINY = ["experiment=smoke_cadc", "run.device=cpu", "run.max_epochs=1"]
STAGES = ["data", "factorise", "sample", "build", "total", "test", "save"]


def slow(monkeypatch, clock, place, name, seconds):
    """Lets a function move the clock, and do what it does; `seconds` may depend on its arguments."""
    inner = getattr(place, name)

    def slower(*given, **named):
        clock.now += seconds(*given) if callable(seconds) else seconds
        return inner(*given, **named)

    monkeypatch.setattr(place, name, slower)


@pytest.fixture
def clock(monkeypatch):
    """Returns a clock that moves by known seconds in each part of a run, and nowhere else."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(run, "CostMeter", partial(CostMeter, clock=lambda: clock.now))
    slow(monkeypatch, clock, run, "load", 50)
    slow(monkeypatch, clock, kept, "fit", 20)
    slow(monkeypatch, clock, cadc, "sample", 5)
    slow(monkeypatch, clock, ctr, "clicks_of", 17)
    slow(monkeypatch, clock, ctr, "keep_rows", 5)
    slow(monkeypatch, clock, cadc.CADC, "build", 11)
    slow(monkeypatch, clock, cadc.CADC, "training_step", 0.25)
    slow(monkeypatch, clock, cadc.CADC, "judge", lambda self, part: {"valid": 3, "test": 7}[part])
    slow(monkeypatch, clock, Engine, "restore_best", 0.5)
    slow(monkeypatch, clock, artifacts, "save", 13)
    return clock


def trained(root, folder, *words):
    fitted = [] if "method.embedding=rand" in words else ["method.factors.sweeps=2"]
    assert main(["train", f"data_root={root}", f"run.dir={folder}", *TINY, *fitted, *words]) == 0
    return json.loads((folder / "result.json").read_text())


def test_17_stages_add_up_to_the_wall_time_with_the_factorisation_once(tmp_path, clock, capsys):
    began = clock.now
    first = trained(tmp_path / "data", tmp_path / "a")
    cost, wall = first["cost"], clock.now - began
    told = {what: cost[f"seconds_{what}"] for what in STAGES}
    training = cost["seconds_total"] - cost["seconds_validation"]
    assert told == {
        "data": 50, "factorise": 20, "sample": 5, "build": 11.5, "total": training + 3, "test": 7, "save": 13
    }  # fmt: skip
    assert training > 0
    assert cost["seconds_wall"] == sum(told.values()) == wall
    assert cost["seconds_cache"] == 20
    out = " ".join(capsys.readouterr().out.split())
    assert "beside it: factors" in out
    assert "471 of 4.66 k rows; all of them" in out

    began = clock.now
    again = trained(tmp_path / "data", tmp_path / "b")["cost"]
    assert (again["seconds_factorise"], again["seconds_cache"]) == (0, 20), "found, so nobody pays twice"
    assert again["cache_id"] == cost["cache_id"]
    assert again["seconds_wall"] == clock.now - began == wall - 20

    sample, dataset = first["dataset"]["sample"], first["dataset"]
    assert cost["factor_bytes"] == (dataset["users"] + dataset["items"]) * 16 * 4
    assert 0 < sample["rows_kept"] < sample["rows"]
    assert sample["bytes_kept"] / sample["rows_kept"] == sample["bytes"] / sample["rows"]


def test_a_network_without_factors_or_sample_has_no_such_stages(tmp_path, clock):
    words = ["method.embedding=rand", "method.sample.rate=1"]
    cost = trained(tmp_path / "data", tmp_path / "run", *words)["cost"]
    missing = ("seconds_factorise", "seconds_sample", "seconds_cache", "cache_id", "factor_bytes")
    assert [cost[name] for name in missing] == [None] * 5
    assert sum(cost[f"seconds_{what}"] or 0 for what in STAGES) == cost["seconds_wall"]


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (["method.sample.rate=0.5"], 5),
        (["method.sample.rate=1", "method.negative_rate=0.5"], 5),
        (["method.sample.rate=1"], None),
    ],
)
def test_drawing_labelled_rows_is_a_stage_and_reading_them_is_none_of_it(words, seconds, tmp_path, clock):
    task = ["model=dlrm", "method.task=ctr", "method.batch_size=128", *words]
    cost = trained(tmp_path / "data", tmp_path / "run", *task)["cost"]
    assert cost["seconds_sample"] == seconds
    assert cost["seconds_factorise"] == 20
    assert cost["seconds_build"] >= 17
    assert sum(cost[f"seconds_{what}"] or 0 for what in STAGES) == cost["seconds_wall"]


def meter_of(clock):
    return CostMeter(torch.device("cpu"), clock=lambda: clock.now)


def test_inner_stages_and_the_loop_are_no_part_of_the_stage_around_them():
    clock = SimpleNamespace(now=5.0)
    meter = meter_of(clock)
    with meter.beside("build"):
        clock.now += 1
        with meter.beside("sample"):
            clock.now += 10
        meter.start()
        clock.now += 100
        meter.stop()
        clock.now += 2
        with meter.beside("sample"):
            clock.now += 20
    found = meter.costs(nn.Identity(), training_rows=1)
    assert (found.seconds_build, found.seconds_sample, found.seconds_total) == (3, 30, 100)
    assert found.seconds_wall == 133


def test_wall_time_of_a_resumed_run_has_the_training_of_its_earlier_parts():
    clock = SimpleNamespace(now=5.0)
    first = meter_of(clock)
    first.start()
    clock.now += 40
    state = first.state()
    clock.now += 1000
    meter = meter_of(clock)
    with meter.beside("build"):
        clock.now += 2
        meter.load(state)
        meter.lose(7)
        meter.start()
        clock.now += 3
        meter.stop()
    found = meter.costs(nn.Identity(), training_rows=1)
    assert (found.seconds_total, found.seconds_build, found.seconds_wall) == (50, 2, 52)


def test_each_look_at_the_clock_waits_for_the_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    stages = Stages(torch.device("cuda"), clock=lambda: float(len(waited)))
    with stages.of("sample"):
        pass
    assert waited == [torch.device("cuda")] * 3
    assert stages.seconds == {"sample": 1.0}


def test_a_factorisation_is_shared_by_the_runs_of_a_table_that_start_from_it(tmp_path):
    def cost(cache_id, drawing=1.0):
        return make_cost(seconds_cache=60.0, seconds_sample=drawing, cache_id=cache_id)

    runs = {
        "ce": [cost("one"), cost("one", 3.0)],
        "cce": [cost("one")],
        "bce": [cost("other")],
        "gbce": [make_cost(seconds_cache=90.0)],  # a cache of features, which is no factorisation
    }
    for loss, costs in runs.items():
        for seed, each in enumerate(costs, 1):
            leave_run(tmp_path / f"{loss}{seed}", make_result(loss=loss, seed=seed, cost=each))
    found = compare([tmp_path])
    (board,) = found.boards
    seconds = {each.first.config["method"]["loss"]: each.seconds_with_factors for each in board.entries}
    assert seconds == pytest.approx({"ce": 30 + 2 + 20, "cce": 30 + 1 + 20, "bce": 30 + 1 + 60, "gbce": 30})
    assert "total with factors" in [column.header for column in board_table(board).columns]
    (table,) = as_records(found)["tables"]
    assert sorted(row["seconds_with_factors"] for row in table["rows"]) == pytest.approx([30, 51, 52, 91])


def test_a_table_without_factorisations_has_no_column_for_them(tmp_path):
    leave_run(tmp_path / "run", make_result(cost=make_cost(seconds_cache=90.0)))
    (board,) = compare([tmp_path]).boards
    assert board.entries[0].seconds_with_factors is None
    assert "total with factors" not in [column.header for column in board_table(board).columns]


def test_a_result_from_before_these_were_measured_is_read_and_shown(tmp_path):
    folder = leave_run(tmp_path / "run", make_result(cost=make_cost(seconds_data=2.0)))
    record = json.loads((folder / "result.json").read_text())
    for name in (*(f"seconds_{stage}" for stage in STAGES if stage not in ("data", "total", "test")),
                 "seconds_wall", "cache_id", "factor_bytes"):  # fmt: skip
        del record["cost"][name]
    (folder / "result.json").write_text(json.dumps(record))
    found = result.read(folder)
    assert (found.cost.seconds_wall, found.cost.seconds_build, found.cost.seconds_data) == (None, None, 2.0)
    names = [row[0] for row in cost_table(found).rows]
    assert "beside it: data" in names
    assert not {"whole run", "beside it: build", "beside it: factors", "kept factors"} & set(names)
