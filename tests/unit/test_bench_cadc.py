"""Suite `cadc`: every peer does its cell's work, on one objective, one dataset, one stopping rule."""

import numpy as np
import pytest
import torch

from effrec_cli.bench import cadc, cadc_fit, cadc_runs, cadc_steps
from effrec_cli.bench.suites import Options
from effrec_cli.models.attributes import AttributeTable
from effrec_cli.schema.crosschecks import cross_problems

CPU = torch.device("cpu")
CELLS = {cell.name: cell for cell in cadc.cells(Options(CPU, quick=True))}
SWEEPS, WHOLE = CELLS["quick sweeps"], CELLS["quick runs"]
AT_HALF = CELLS["quick strategies at 50 %"]
BY_RATE = {
    cell.parameters[cadc_runs.PERCENT]: cell
    for cell in cadc.cells(Options(CPU))
    if cell.name.startswith(cadc.BY_RATE)
}
STEPS = {name: CELLS[f"quick steps of {name}"] for name in cadc_steps.MODELS}
ON_GPU = Options(torch.device("cuda"))


def test_a_matrix_has_the_shape_of_movielens_20m():
    users, items, draws = 13_849, 26_744, 2_270_000
    matrix = cadc_fit.drawn_matrix(users, items, draws)
    degrees = matrix.degrees().double()
    assert len(matrix) == pytest.approx(2_000_000, rel=0.02)
    assert degrees.min() >= 15
    assert degrees.mean() / degrees.median() == pytest.approx(144 / 68, rel=0.2), "as MovieLens 20M's users"
    popular = torch.bincount(matrix.columns.long(), minlength=items)
    assert (popular > 0).float().mean() > 0.9
    assert popular.max() / users > 0.3, "the most popular film was rated by half of the users"


@pytest.mark.parametrize("peer", cadc_fit.fitters(CPU))
def test_a_fit_is_told_by_sweep_and_lowers_the_objective(peer):
    figures = cadc.trial(SWEEPS, peer, CPU)()
    assert set(figures) == {"cells", "sweep", "before", "peak memory", "objective"} < set(cadc.UNITS)
    assert 0 < figures["sweep"] < 10
    matrix = cadc_fit.drawn_matrix(60, 40, 900)
    shape = {**SWEEPS.parameters, "sweeps": 0}
    assert figures["cells"] == len(matrix) < 900
    start = cadc_fit.objective(matrix, shape, cadc_fit.FITTERS["effrec cg"](matrix, shape)) / len(matrix)
    assert figures["objective"] < 0.9 * start


def test_sweeps_are_timed_apart_from_what_comes_before(monkeypatch):
    work = cadc.trial(SWEEPS, "effrec cholesky", CPU)
    clock = iter([0.0, 7.0, 10.0, 10.0, 11.0, 11.5])
    monkeypatch.setattr(cadc_fit, "_now", lambda matrix: next(clock))
    figures = work()
    assert (figures["sweep"], figures["before"]) == (2.0, 7.5)


def test_by_implicit_the_same_objective_is_solved_from_the_same_start():
    pytest.importorskip("implicit")
    parameters = {**SWEEPS.parameters, "sweeps": 3}
    matrix = cadc_fit.drawn_matrix(60, 40, 900)
    ours, theirs = (cadc_fit.FITTERS[f"{who} cholesky"](matrix, parameters) for who in ("effrec", "implicit"))
    assert torch.allclose(ours.users, theirs.users, atol=1e-4)
    assert torch.allclose(ours.items, theirs.items, atol=1e-4)
    assert len(theirs.sweeps) == 3
    assert ours.users.abs().max() > 0.01


def test_implicit_takes_part_where_it_is_installed_and_on_a_cpu(monkeypatch):
    own = ("effrec cg", "effrec cholesky", "effrec blocks")
    monkeypatch.setattr(cadc_fit, "find_spec", lambda name: None)
    assert cadc_fit.fitters(CPU) == own
    monkeypatch.setattr(cadc_fit, "find_spec", lambda name: name)
    assert cadc_fit.fitters(CPU) == tuple(cadc_fit.FITTERS)
    assert cadc_fit.fitters(ON_GPU.device) == own


def test_runs_differ_by_strategy_and_rate_alone(tmp_path):
    made = {peer: cadc_runs.config_of(WHOLE.parameters, peer, CPU, tmp_path) for peer in cadc_runs.RUNS}
    base = made["100 %, rand"]
    for config in made.values():
        assert (config.dataset, config.run, config.evaluation, config.optimizer, config.seed) == (
            base.dataset,
            base.run,
            base.evaluation,
            base.optimizer,
            base.seed,
        )
    alone = made.pop(cadc_runs.ALONE)
    assert (alone.method.name, alone.model.name, alone.method.dim) == ("ials", "none", 8)
    told = {peer: (each.method.embedding, each.method.sample.rate) for peer, each in made.items()}
    assert told == {
        "100 %, rand": ("rand", 1.0),
        "100 %, init_frz": ("init_frz", 1.0),
        "10 %, rand": ("rand", 0.1),
        "10 %, init_frz": ("init_frz", 0.1),
        "10 %, residual": ("residual", 0.1),
    }


def test_a_run_is_charged_for_the_factorisation_every_time():
    turns = [cadc.trial(WHOLE, "10 %, init_frz", CPU)() for _ in range(2)]
    for figures in turns:
        assert figures["factorise"] > 0, "nothing is found that an earlier turn has fitted"
        assert figures["in all"] == figures["factorise"] + figures["sample"] + figures["train"]
        assert 1 <= figures["epochs"] <= 2
        assert set(figures) < set(cadc.UNITS)
    assert turns[0]["ndcg@10"] == turns[1]["ndcg@10"]


def test_a_run_without_factors_is_charged_for_training_alone():
    figures = cadc.trial(WHOLE, "100 %, rand", CPU)()
    assert figures["in all"] == figures["train"] > 0
    assert not {"factorise", "sample"} & set(figures)
    assert figures["share of ceiling"] > 0


def test_strategies_stand_at_each_rate_beside_who_needs_no_sample():
    assert list(BY_RATE) == [1, 5, 10, 25, 50, 100]
    assert [cell.name for cell in BY_RATE.values()] == [f"strategies at {rate} %" for rate in BY_RATE]
    every = BY_RATE[1].peers
    assert every == (
        *("pop", "factorisation of all rows", "factorisation of the sample"),
        *("rand", "init_frz", "init_upd", "residual", "residual over the rest"),
    )
    assert all(cell.peers == every for rate, cell in BY_RATE.items() if rate < 100)
    assert set(every) - set(BY_RATE[100].peers) == {"factorisation of the sample", "residual over the rest"}


@pytest.mark.parametrize("percent", [1, 100])
def test_strategies_differ_by_what_they_read_alone(percent, tmp_path):
    cell, rate = BY_RATE[percent], percent / 100
    made = {peer: cadc_runs.config_of(cell.parameters, peer, CPU, tmp_path) for peer in cell.peers}
    for config in made.values():
        assert not list(cross_problems(config)), "no setting contradicts another, or does nothing"
        assert (config.run.max_steps, config.run.patience) == (cell.parameters["steps"], None)
    dataset = {peer: config.dataset.sample.rate for peer, config in made.items()}
    assert {peer: each for peer, each in dataset.items() if each < 1} == (
        {"factorisation of the sample": rate} if percent < 100 else {}
    )
    own = {peer: config.method for peer, config in made.items() if config.method.name == "cadc"}
    assert {each.sample.rate for each in own.values()} == {rate}
    assert {each.batch_size for each in own.values()} == {cell.parameters["batch"]}
    told = {peer: (each.embedding, each.factorise) for peer, each in own.items()}
    expected = {name: (name, "auto") for name in ("rand", "init_frz", "init_upd", "residual")}
    assert told == expected | ({"residual over the rest": ("residual", "rest")} if percent < 100 else {})


def test_equal_steps_are_validated_about_five_times_whatever_the_rate(tmp_path):
    looks = {}
    for percent, cell in BY_RATE.items():
        config = cadc_runs.config_of(cell.parameters, "rand", CPU, tmp_path)
        rows = percent / 100 * 4000 * 40
        an_epoch = -(-rows // cell.parameters["batch"])
        looks[percent] = cell.parameters["steps"] / (an_epoch * config.run.validate_every)
        assert config.run.max_epochs * an_epoch > cell.parameters["steps"], "steps end it, not epochs"
    assert all(4.5 <= looks[percent] <= 5 for percent in (1, 5, 10)), looks
    assert all(each < 4 for percent, each in looks.items() if percent > 10), "once an epoch is the most"


@pytest.mark.parametrize("peer", ["pop", "factorisation of the sample", "residual over the rest"])
def test_a_strategy_is_told_by_score_and_seconds(peer):
    figures = cadc.trial(AT_HALF, peer, CPU)()
    assert {"in all", "ndcg@10", "share of ceiling"} < set(figures) < set(cadc.UNITS)
    assert ("factorise" in figures) == ("sample" in figures) == (peer == "residual over the rest")
    assert figures["share of ceiling"] > 0


@pytest.mark.parametrize("model", cadc_steps.MODELS)
def test_steps_train_the_tables_or_leave_them(model):
    before, trained = {}, {}
    for peer in cadc_steps.STRATEGIES:
        work = cadc_steps.make_work(STEPS[model].parameters, peer, CPU)
        assert work.method.cache_id is None, "nothing is fitted for a step's sake"
        tables = [each.table for each in (work.model.users, work.model.items)]
        before[peer] = [each.clone() for each in tables]
        others = {name: each.detach().clone() for name, each in work.model.named_parameters()}
        work.run()
        trained[peer] = sum(each.numel() for each in work.model.parameters())
        moved = [not torch.equal(*each) for each in zip(before[peer], tables, strict=True)]
        assert moved == [peer == cadc_steps.TRAIN] * 2
        assert any(not torch.equal(each, others[name]) for name, each in work.model.named_parameters())
    assert trained[cadc_steps.TRAIN] - trained[cadc_steps.FROZEN] == (60 + 40) * 8


def test_a_step_reads_rows_of_its_own_and_attributes():
    parameters = STEPS["dlrm"].parameters
    work = cadc_steps.make_work(parameters, cadc_steps.FROZEN, CPU)
    users = [batch.tensors["users"].tolist() for batch in work.batches]
    assert [len(each) for each in users] == [parameters["batch"]] * parameters["steps"]
    assert users[0] != users[1]
    data = cadc_steps.drawn_data(parameters)
    assert np.array_equal(
        np.sort(np.concatenate(users)), np.repeat(np.arange(60), np.diff(data.sequences.offsets))
    )
    assert data.side["item_features"].shape == (40, cadc_steps.FEATURES)
    tables = [each for each in work.model.modules() if isinstance(each, AttributeTable)]
    # One row more is of those of whom nothing is known.
    assert {each.dense.shape for each in tables} == {(61, cadc_steps.FEATURES), (41, cadc_steps.FEATURES)}


def test_what_stands_between_steps_is_counted_to_the_byte():
    """Tables that train are there three times, with Adam's two numbers a value; frozen ones once."""
    held = {}
    for peer in (cadc_steps.TRAIN, cadc_steps.FROZEN):
        work = cadc_steps.make_work(STEPS["two_tower"].parameters, peer, CPU)
        work.run()
        held[peer] = work.held_bytes()
    a_table = (60 + 40) * 8 * 4
    assert held[cadc_steps.TRAIN] - held[cadc_steps.FROZEN] == 2 * a_table + 2 * 4


@pytest.mark.parametrize("peer", cadc_steps.STRATEGIES)
def test_a_step_has_its_figures(peer, monkeypatch):
    monkeypatch.setattr(cadc_steps, "median_seconds", lambda work, *_, **__: work() or 3.0)
    figures = cadc.trial(STEPS["two_tower"], peer, CPU)()
    assert set(figures) == {"step", "peak memory", "trainable parameters"} < set(cadc.UNITS)
    assert figures["step"] == 1500
    assert figures["peak memory"] > 0


def test_peers_are_compared_turn_by_turn():
    fits = {
        "effrec cg": [{"sweep": 2.0}, {"sweep": 1.0}],
        "implicit cg": [{"sweep": 4.0}],
    }
    found = cadc.compared(fits)
    assert found["effrec cg"] == [{"sweep": 2.0, "over implicit cg": 2.0}, {"sweep": 1.0}]
    runs = {
        "100 %, rand": [{"in all": 20.0, "ndcg@10": 0.1}],
        "100 %, init_frz": [{"in all": 10.0, "ndcg@10": 0.4}],
        "10 %, init_frz": [{"in all": 5.0, "ndcg@10": 0.2}],
    }
    (sampled,) = cadc.compared(runs)["10 %, init_frz"]
    assert sampled["time of 100 %, rand"] == 25
    assert sampled["ndcg@10 of 100 %, init_frz"] == 50
    rates = {"factorisation of all rows": [{"ndcg@10": 0.5}], "residual": [{"ndcg@10": 0.6}]}
    (residual,) = cadc.compared(rates)["residual"]
    assert residual["ndcg@10 of the factorisation"] == pytest.approx(120)
    steps = {cadc_steps.TRAIN: [{"step": 9.0}], cadc_steps.FROZEN: [{"step": 3.0}]}
    assert cadc.compared(steps)[cadc_steps.FROZEN] == [{"step": 3.0, "over tables that train": 3.0}]
    assert cadc.compared({"effrec cg": [{"sweep": 1.0}], "implicit cg": []})["effrec cg"] == [{"sweep": 1.0}]


def test_cells_are_named_apart_and_a_cpus_longest_is_last():
    for options in (Options(CPU), Options(CPU, quick=True), ON_GPU):
        cells = cadc.cells(options)
        assert len({cell.name for cell in cells}) == len(cells)
        assert len({peer for cell in cells for peer in cell.peers}) == len(
            cadc_fit.fitters(options.device)
        ) + len(cadc_runs.RUNS) + len(cadc_runs.strategies(1)) + len(cadc_steps.STRATEGIES)
    names = [cell.name for cell in cadc.cells(Options(CPU))]
    assert names[-1] == cadc.LARGE_MATRIX
    assert {cadc.MATRIX, cadc.LARGE_MATRIX} < {cell.name for cell in cadc.cells(ON_GPU)}
    large = next(cell for cell in cadc.cells(ON_GPU) if cell.name == cadc.LARGE_MATRIX).parameters
    assert (large["users"], large["items"], large["dim"]) == (138_493, 26_744, 64)
