"""Suite `dsl`: every peer does its cell's work on the same inputs, and bytes are those of the formula."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from dsl_helpers import dense_of

from effrec_cli.bench import dsl, dsl_blocks, dsl_runs, dsl_scores, dsl_steps
from effrec_cli.bench.suites import Cell, Options

CPU = torch.device("cpu")
CELLS = {cell.name: cell for cell in dsl.cells(Options(CPU, quick=True))}
STEPS, SCORES = CELLS["steps, d = 16, density 0.1, quick"], CELLS["scoring, d = 16, density 0.1, quick"]
RUNS = CELLS["quality, density 0.25"]
ON_GPU = Options(torch.device("cuda"))
SHAPE = STEPS.parameters | {"users": 600, "items": 400, "interactions": 4000, "dim": 128, "density": 0.25}


def work_of(peer, **parameters):
    return dsl_steps.make_work(SHAPE | parameters, peer, CPU)


@pytest.mark.parametrize("peer", dsl_steps.TABLES)
def test_bytes_are_those_of_the_formula(peer):
    work = work_of(peer)
    work.run()
    assert work.state_bytes() == pytest.approx(work.formula_bytes(), rel=0.05)
    if "global" not in peer:  # there a step's rows have more numbers than others, or fewer
        assert work.state_bytes() == pytest.approx(work.formula_bytes(), abs=200)


def test_the_formula_is_that_of_the_shape():
    """Of packed rows 5 + 10 bytes a number; of PyTorch's tables four numbers of 4 bytes."""
    packed, usual = (work_of(peer) for peer in ("packed row", dsl_steps.DENSE_ADAM))
    own = replace(packed.method.own, turns=4)
    without = dsl_steps.formula_bytes(replace(own, mode="static"), 600, 128, read=0)
    assert without == 600 * 32 * (5 + 8) + 4 * 600
    sums = dsl_steps.formula_bytes(own, 600, 128, read=0) - 600 * 32 * 15
    packed.run()
    assert sums == 150 * 128 * packed.model.users.scores.sums.element_size()
    assert dsl_steps.formula_bytes(own, 600, 128, read=10) == 600 * 32 * 15 + sums + 10 * (32 * 4 + 8)
    assert usual.formula_bytes() == 1000 * 128 * 16 + 8


@pytest.mark.parametrize("peer", dsl_steps.TABLES)
def test_steps_are_those_of_the_method_and_an_update_moves_places(peer):
    work = work_of(peer)
    before = [each.detach().clone() for each in work.model.parameters()]
    work.run()
    assert all(not torch.equal(*pair) for pair in zip(before, work.model.parameters(), strict=True))
    assert [len(batch.tensors["users"]) for batch in work.batches] == [SHAPE["batch"]] * SHAPE["steps"]
    work.update()
    moves = dsl_steps.TABLES[peer]["mode"] == "dsl"
    assert bool(work.method._told) == moves
    if moves:
        (told,) = work.method._told
        assert told["dropped"] == told["grown"] + told["regrown"] + told["restored"]
        assert told["grown"] > 0
        work.cycle()
        assert len(work.method._told) == 2


def test_dense_gradients_are_those_of_rows_made_dense():
    work, usual = (work_of(peer) for peer in (dsl_steps.DENSE, dsl_steps.DENSE_ADAM))
    for each in (work, usual):
        each.method.loss(each.batches[0]).backward()
    for rows, whole in zip(work.model.parameters(), usual.model.parameters(), strict=True):
        assert torch.equal(rows, whole)
        assert torch.allclose(rows.grad.to_dense(), whole.grad, atol=1e-9)
        assert whole.grad.layout == torch.strided


@pytest.mark.parametrize("peer", dsl_steps.TABLES)
def test_a_step_has_its_figures(peer, monkeypatch):
    monkeypatch.setattr(dsl_steps, "median_seconds", lambda work, *_, **__: work() or 3.0)
    figures = dsl.trial(STEPS, peer, CPU)()
    assert set(figures) < set(dsl.UNITS)
    assert figures["step"] == 1500
    moves = dsl_steps.TABLES[peer]["mode"] == "dsl"
    assert {"update", "steps between updates", "peak with an update"} <= set(figures) or not moves
    between = figures["steps between updates"] if moves else float("inf")
    assert figures["step with updates"] == 1500 + 3000 / between
    assert figures["peak memory"] >= figures["table"] >= figures["values"]


def test_an_update_comes_as_often_as_in_a_run():
    work = work_of("packed row", density=0.02)
    assert work.method.own.turns > 1
    assert work.moving.plan.interval == round(4000 / 16 / work.method.own.turns)


@pytest.mark.parametrize("peer", dsl_scores.SCORERS)
def test_scores_are_products_with_the_table(peer):
    table, shape = dsl_scores.table_of(SCORES.parameters, peer), SCORES.parameters
    users = torch.randn(5, table.shape.dim)
    every = table.look_up(torch.arange(shape["items"]))
    rounded = {"fp32": 1e-5, "bf16": 2e-2, "int8": 1e-4}[dsl_scores.SCORERS[peer][1]]
    assert torch.allclose(dsl_scores.scores(users, table), users @ every.t(), atol=rounded, rtol=rounded)
    figures = dsl.trial(SCORES, peer, CPU)()
    assert set(figures) == {"scores", "multiply-adds", "table"} < set(dsl.UNITS)
    wanted = {"dense": 16, "dense, bf16": 16, "dense, int8": 16, "packed global": 1.6}
    assert figures["multiply-adds"] == pytest.approx(wanted.get(peer, 2))


def test_times_are_taken_with_freed_blocks_kept_and_memory_with_blocks_given_back():
    code = """
import torch
from effrec_cli.bench import clock, dsl_blocks

def growth(back=False):
    freed = torch.ones(1 << 21)
    del freed
    if back:
        dsl_blocks.give_back()
    return clock.extra_bytes(lambda: torch.ones(1 << 21), torch.device("cpu"))

given_back = growth()
with dsl_blocks.kept_blocks():
    kept, of_kept = min(growth() for _ in range(5)), growth(back=True)
print(given_back, kept, of_kept, growth())
"""
    told = {name: str(1 << 18) for name in dsl_blocks._SET.values()}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | told
    )
    before, kept, of_kept, after = (float(each) for each in done.stdout.split())
    assert before > 7 << 20 < min(of_kept, after)
    assert kept < 1 << 20, "the block that was freed is taken again"


def test_a_narrow_dense_table_has_no_more_bytes_than_a_packed_one():
    sizes = [SCORES.parameters | {"dim": dim, "density": density} for dim, density in dsl.WIDTHS]
    for size in sizes:
        small, packed = (
            dsl.trial(Cell("", (), size), peer, CPU)()["table"] for peer in (dsl_scores.SMALL, "packed row")
        )
        assert 0.9 * packed < small <= packed


def test_a_masked_table_begins_as_a_packed_one():
    rows, masked = (work_of(peer).model.users for peer in ("packed row", "masked"))
    assert torch.equal(dense_of(rows), dense_of(masked))


def test_runs_differ_by_the_method_alone(tmp_path):
    made = {peer: dsl_runs.config_of(RUNS.parameters, peer, CPU, tmp_path) for peer in dsl_runs.RUNS}
    base = made["dense"]
    for config in made.values():
        names = ("dataset", "model", "run", "evaluation", "optimizer", "seed", "data_root")
        assert [getattr(config, name) for name in names] == [getattr(base, name) for name in names]
        assert config.run.patience is None
    told = {peer: (each.method.mode, each.method.dim, each.method.density) for peer, each in made.items()}
    assert told["dsl"] == ("dsl", 8, 0.25)
    assert told["dsl, 4 d"] == ("dsl", 32, 0.0625)
    assert {mode for mode, *_ in told.values()} == {
        *("dsl", "rigl", "set", "static", "dense", "dense_small", "magnitude", "dense_int8")
    }


def test_a_run_has_its_figures_and_each_turn_a_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(dsl_runs, "default_data_root", lambda: tmp_path)
    seeds, train = [], dsl_runs.train
    monkeypatch.setattr(dsl_runs, "train", lambda config: seeds.append(config.seed) or train(config))
    found = {}
    for peer in ("dsl", "dsl, 4 d", "dense_int8"):
        work = dsl.trial(RUNS, peer, CPU)
        found[peer] = work()
        assert set(found[peer]) < set(dsl.UNITS)
        assert found[peer]["file"] > found[peer]["served"] > 0
    work()
    assert seeds == [1, 1, 1, 2]
    assert found["dsl"]["served"] == found["dsl, 4 d"]["served"] == 100 * 2 * 5 / (1 << 20)
    assert found["dense_int8"]["served"] == 100 * (8 + 4) / (1 << 20)
    assert found["dsl"]["training state"] < found["dense_int8"]["training state"] / 2
    assert (found["dsl"]["multiply-adds"], found["dense_int8"]["multiply-adds"]) == (2, 8)


def test_peers_are_compared_with_dense_tables_turn_by_turn():
    samples = {
        "packed row": [{"step with updates": 6.0, "training state": 2.0, "table": 1.0}, {"table": 3.0}],
        "dense": [{"step with updates": 8.0, "training state": 5.0, "table": 4.0}],
        "dense, dense Adam": [{"step with updates": 9.0, "training state": 10.0, "table": 4.0}],
    }
    first, second = dsl.compared(samples)["packed row"]
    assert first["time of dense's"] == 75
    assert (first["state of dense's"], first["state of dense Adam's"]) == (40, 20)
    assert first["table of dense's"] == 25
    assert second == {"table": 3.0}
    scored = {"packed row": [{"scores": 3.0}], "dense": [{"scores": 2.0}]}
    assert dsl.compared(scored)["packed row"] == [{"scores": 3.0, "time of dense's": 150}]


def test_cells_are_named_apart_and_bytes_come_first():
    for options in (Options(CPU), Options(CPU, quick=True), ON_GPU):
        cells = dsl.cells(options)
        assert len({cell.name for cell in cells}) == len(cells)
        assert cells[0].peers == tuple(dsl_steps.TABLES)
        for peers in (dsl_steps.TABLES, dsl_scores.SCORERS, dsl_runs.RUNS):
            assert tuple(peers) in {cell.peers for cell in cells}
    shapes = {(cell.parameters["users"], cell.parameters["items"]) for cell in dsl.cells(ON_GPU)[:2]}
    assert shapes == {(31_668, 38_048)}
    measured = {
        (cell.parameters.get("users"), cell.parameters["dim"], cell.parameters["density"])
        for cell in dsl.cells(ON_GPU)
        if "steps" in cell.parameters
    }
    wanted = {(users, *width) for users in (31_668, 52_643) for width in dsl.WIDTHS}
    assert measured == wanted
