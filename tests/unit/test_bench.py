"""`effrec bench`: peers take turns, a failing one stops no other, and every suite's cells do real work."""

import errno
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from effrec_kernels.work import Rates, sampled_work

from effrec_cli.bench import ceilings, e2e, harness, loss, script, suites
from effrec_cli.bench.loss_peers import PEERS, available
from effrec_cli.bench.suites import Cell, Options
from effrec_cli.bench.worker import Failed, Worker
from effrec_cli.commands import bench
from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.schema.method_cce import LOSSES

CPU = torch.device("cpu")
QUICK = Options(CPU, quick=True)


class FakeWorker:
    """Stands in for a process; peers called `bad...` fail in the way their name says."""

    calls: list[str] = []

    def __init__(self, suite, cell, peer, device):
        self.peer = peer

    def prepare(self):
        self.calls.append(f"prepare {self.peer}")
        if self.peer == "bad start":
            raise Failed("no such package")

    def work(self):
        self.calls.append(f"work {self.peer}")
        if self.peer == "bad work":
            raise Failed("out of memory")
        return {"time": float(len(self.calls))}

    def stop(self):
        self.calls.append(f"stop {self.peer}")


class FakeSuite:
    UNITS = {"time": "s"}

    @staticmethod
    def cells(options):
        return [Cell("first", ("a", "b"), {"n": 1}, repeats=2), Cell("second", ("a",), repeats=1)]


@pytest.fixture
def calls(monkeypatch):
    FakeWorker.calls = []
    monkeypatch.setattr(harness, "Worker", FakeWorker)
    return FakeWorker.calls


def test_peers_take_turns_and_end(calls):
    found = list(harness.measure_cell("fake", FakeSuite, FakeSuite.cells(QUICK)[0], QUICK))
    work = ["work a", "work b"]
    assert calls == ["prepare a", "prepare b", *work, *work, "stop a", "stop b"]
    assert [(record["peer"], record["figures"]["time"]["repeats"]) for record in found] == [
        ("a", 2),
        ("b", 2),
    ]
    assert found[0]["parameters"] == {"n": 1}
    assert found[0]["figures"]["time"]["unit"] == "s"


def test_failing_peer_leaves_its_error_and_stops_no_other(calls):
    cell = Cell("x", ("bad start", "bad work", "good"), repeats=3)
    found = {record["peer"]: record for record in harness.measure_cell("fake", FakeSuite, cell, QUICK)}
    assert found["bad start"]["error"] == "no such package"
    assert found["bad work"]["error"] == "out of memory"
    assert found["good"]["figures"]["time"]["repeats"] == 3
    assert "error" not in found["good"]
    assert calls.count("work bad work") == 1, "it is not asked again"
    assert "work bad start" not in calls
    assert sum(call.startswith("stop") for call in calls) == 3


def test_no_cell_is_started_after_the_time_is_up_but_one_always_is(calls):
    said = []
    found = list(harness.measure("fake", FakeSuite, replace(QUICK, minutes=0.0), said.append))
    assert {record["cell"] for record in found} == {"first"}
    assert "second" in said[-1]
    assert len({record["cell"] for record in harness.measure("fake", FakeSuite, QUICK, said.append)}) == 2


def test_cells_are_chosen_by_name(calls):
    found = harness.measure("fake", FakeSuite, replace(QUICK, only="sec"), lambda text: None)
    assert {record["cell"] for record in found} == {"second"}
    with pytest.raises(ConfigError) as caught:
        list(harness.measure("fake", FakeSuite, replace(QUICK, only="secnd"), lambda text: None))
    assert caught.value.nearest == "second"


def test_a_worker_is_a_process_that_does_the_work():
    cell = Cell(
        "quick", ("torch ce",), {"rows": 8, "items": 20, "negatives": 4, "dim": 4, "dtype": "float32"}
    )
    workers = [Worker("loss", cell, peer, CPU) for peer in ("torch ce", "nobody")]
    try:
        workers[0].prepare()
        assert workers[0].work()["time"] > 0
        with pytest.raises(Failed, match="nobody"):
            workers[1].prepare()
    finally:
        for worker in workers:
            worker.stop()


@pytest.mark.parametrize("peer", available(CPU))
def test_every_loss_that_runs_here_has_the_exact_value_and_gradients(peer):
    (cell,) = loss.cells(QUICK)
    figures = loss.errors_of(peer, loss.make_problem(cell.parameters, CPU))
    assert figures["error of loss"] < 1e-6
    assert figures["error of gradient"] < 1e-5


def test_an_error_in_a_loss_would_show(monkeypatch):
    (cell,) = loss.cells(QUICK)
    problem = loss.make_problem(cell.parameters, CPU)
    wrong = replace(PEERS["torch ce"], loss=lambda one: 1.01 * PEERS["effrec cce"].loss(one))
    monkeypatch.setitem(loss.PEERS, "wrong", wrong)
    figures = loss.errors_of("wrong", problem)
    assert figures["error of loss"] == pytest.approx(0.01, rel=1e-3)
    assert figures["error of gradient"] == pytest.approx(0.01, rel=1e-3)


def test_loss_trial_measures_time_memory_and_error():
    (cell,) = loss.cells(QUICK)
    figures = loss.trial(cell, "torch ce", CPU)()
    assert set(figures) == set(loss.UNITS) - {"share of roofline"}
    assert figures["time"] > 0


def test_the_roofline_counts_what_each_peer_has_to_move(monkeypatch):
    """At one byte and one operation a second, seconds are bytes, or operations where there are more."""
    monkeypatch.setattr(loss, "rates_of", lambda table: Rates(gather=1.0, add=1.0, products=1e9))
    parameters = {"rows": 64, "items": 100, "negatives": 32, "dim": 8, "dtype": "float32"}
    problem = loss.make_problem(parameters, CPU)
    alone, shared = (
        loss.roofline_seconds(f"effrec {name}", problem) for name in ("cce_sampled", "tiles of 64")
    )
    assert alone == sampled_work(64, 32, 8, item_bytes=4, hidden_bytes=4).seconds(Rates(1, 1, 1e9))
    assert alone > 5 * shared
    assert loss.roofline_seconds("torch ce", problem) == 100 * 8 * (2 * 4 + 4)


def test_rates_are_of_gathering_adding_and_multiplying(monkeypatch):
    monkeypatch.setattr(ceilings, "median_seconds", lambda work, device: work() is not None and 2.0)
    rates = ceilings.rates_of(torch.randn(1000, 16))
    assert rates.gather == rates.add == (1 << 20) * 64 / 2
    assert rates.products == 2 * 512**3 / 2


def test_ceilings_count_what_is_moved_and_computed(monkeypatch):
    monkeypatch.setattr(ceilings, "median_seconds", lambda work, device: work() is not None and 2.0)
    found = {}
    for cell in ceilings.cells(QUICK):
        found[cell.name] = ceilings.trial(cell, "torch", CPU)()
    assert found["copy"] == {"bandwidth": pytest.approx(2 * 64 * 2**20 / 1e9 / 2)}
    assert found["matrix product float32"] == {"rate": pytest.approx(2 * 512**3 / 1e12 / 2)}
    assert found["gather rows"] == {"bandwidth": pytest.approx(2 * (1 << 16) * 512 / 1e9 / 2)}


def test_extra_memory_is_the_works_own():
    # In a process of its own, as every peer is: what a long one holds and gives back would be mixed in.
    code = """
import torch
from effrec_cli.bench import clock

held = torch.ones(1 << 22)
print(clock.extra_bytes(lambda: torch.ones(1 << 23).sum(), torch.device("cpu")))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 30 << 20 <= float(done.stdout) < 60 << 20


def test_gpu_cells_are_the_papers_shapes_in_bf16():
    cells = loss.cells(Options(torch.device("cuda")))
    assert cells[0].parameters["dtype"] == "bfloat16"
    assert {"beauty", "zvuk", "ml-20m", "megamarket"} <= {cell.name for cell in cells}


def test_a_run_of_each_loss_is_what_e2e_does(tmp_path):
    (cell,) = e2e.cells(QUICK)
    config = e2e.config_of(cell.parameters, cell.peers[0], CPU, tmp_path)
    assert cell.peers == LOSSES
    assert (config.method.loss, config.run.max_epochs, config.dataset.num_users) == ("ce", 1, 100)
    assert config.run.dir.startswith(str(tmp_path))


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setattr(script, "PACKAGE", tmp_path / "effrec_cli")
    return tmp_path / "benchmarks"


def test_scripts_cells_become_records(scripts):
    (scripts / "bench_data.py").write_text(
        "def cells():\n"
        "    return [{'suite': 'data', 'cell': 'csv', 'shape': {'rows': 9}, 'device': 'cpu', 'seconds': 2,\n"
        "             'peak_bytes': 5.0, 'good': True}]\n"
    )
    (record,) = script.measure("data")
    assert (record["cell"], record["peer"], record["parameters"]) == ("csv", "effrec", {"rows": 9})
    assert {name: (one["median"], one["unit"]) for name, one in record["figures"].items()} == {
        "seconds": (2.0, "s"),
        "peak_bytes": (5.0, "B"),
    }


def test_script_suites_need_a_source_tree(scripts):
    with pytest.raises(ConfigError, match="source tree"):
        next(script.measure("data"))


def test_unknown_suite_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        bench.main(["los"])
    assert caught.value.nearest == "loss"


def test_list_names_suites_cells_and_peers(capsys):
    assert bench.main(["--list", "--device", "cpu", "--quick"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in suites.SUITES)
    assert "quick: torch ce" in out


def test_suite_is_run_kept_and_told(calls, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suites, "module", lambda name: FakeSuite)
    assert bench.main(["loss", "--out", str(tmp_path), "--device", "cpu"]) == 0
    (path,) = tmp_path.glob("loss-*.json")
    kept = json.loads(path.read_text())["records"]
    assert [(record["cell"], record["peer"]) for record in kept] == [
        ("first", "a"),
        ("first", "b"),
        ("second", "a"),
    ]
    assert str(path) in capsys.readouterr().out


def test_suite_whose_peers_all_fail_ends_with_an_error_code(calls, tmp_path, monkeypatch):
    broken = type(
        "Broken", (), {"UNITS": {}, "cells": staticmethod(lambda options: [Cell("x", ("bad work",))])}
    )
    monkeypatch.setattr(suites, "module", lambda name: broken)
    assert bench.main(["loss", "--out", str(tmp_path), "--device", "cpu"]) == 1


@pytest.mark.parametrize("fault", ["below a file", "read-only"])
def test_a_folder_for_records_that_cannot_be_written_is_found_before_measuring(tmp_path, monkeypatch, fault):
    (tmp_path / "file").write_text("")
    folder = tmp_path / ("file" if fault == "below a file" else "") / "records"

    def refuse(**options):
        raise OSError(errno.EROFS, "refused")

    if fault == "read-only":
        monkeypatch.setattr("effrec_cli.bench.records.TemporaryFile", refuse)
    measured = []
    monkeypatch.setattr(suites, "measure", lambda *_: measured.append("something"))
    with pytest.raises(EnvironmentFault, match=str(folder)) as caught:
        bench.main(["loss", "--out", str(folder), "--device", "cpu"])
    assert not measured
    assert "--out FOLDER" in caught.value.fix


def test_quick_records_stay_out_of_the_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_RESULTS", tmp_path)
    assert bench.default_folder(quick=False) == tmp_path
    assert bench.default_folder(quick=True) != tmp_path
    monkeypatch.setattr(bench, "_RESULTS", tmp_path / "absent")
    assert bench.default_folder(quick=False) != tmp_path / "absent"


def test_tables_outside_a_source_tree_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_RESULTS", tmp_path / "absent")
    with pytest.raises(ConfigError, match="source tree"):
        bench.main(["--tables"])


def test_renewing_tables_says_what_changed(tmp_path, monkeypatch, capsys):
    results, page = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    page.write_text("<!-- bench:loss -->\nold\n<!-- /bench:loss -->\n")
    monkeypatch.setattr(bench, "_RESULTS", results)
    monkeypatch.setattr(bench, "_TREE", tmp_path)
    assert bench.main(["--tables"]) == 0
    assert capsys.readouterr().out == "renewed README.md\n"
    assert bench.main(["--tables"]) == 0
    assert capsys.readouterr().out.endswith("nothing to renew\n")


@pytest.mark.slow
def test_a_whole_run_gives_its_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFREC_DATA", str(tmp_path))
    (cell,) = e2e.cells(QUICK)
    figures = e2e.trial(cell, "cce", CPU)()
    assert set(figures) == set(e2e.UNITS) - {"energy"}
    assert 0 < figures["ndcg@10"] < 1
    assert figures["total"] >= figures["epoch"]
