"""Model lightgcn: its graph, its propagation against dense matrices, and its tables under method dsl."""

import json
import shutil

import numpy as np
import pytest
import torch
from cadc_helpers import held_out
from dsl_helpers import begun, mask_of, method_on, step
from pair_helpers import data_of
from torch.utils.flop_counter import FlopCounterMode

from effrec_cli import compose
from effrec_cli.app import main
from effrec_cli.artifacts import open_run
from effrec_cli.data.batches import Share
from effrec_cli.errors import ConfigError
from effrec_cli.methods.sparse.graphs import graph_of
from effrec_cli.methods.sparse.network import tables_in
from effrec_cli.models.lightgcn import propagate
from effrec_cli.models.sparse.start import budget

MODEL = "model=lightgcn"
ROWS = [[0, 1, 2, 4], [1, 3, 1, 0], [3, 2], [2, 0, 3]]


def small():
    """Returns four users and five items, the last of each list held out; item 4 has no training row."""
    return data_of(ROWS, num_items=5, held=1)


def dense_graph():
    """Returns S of `small` as equation 7 has it, by hand."""
    met = {(user, item) for user, row in enumerate(ROWS) for item in row[:-1]}
    degree = [sum(pair[0] == user for pair in met) for user in range(4)]
    degree += [sum(pair[1] == item for pair in met) for item in range(5)]
    matrix = torch.zeros(9, 9)
    for user, item in met:
        matrix[user, 4 + item] = matrix[4 + item, user] = (degree[user] * degree[4 + item]) ** -0.5
    return matrix


def parts_of(graph):
    return graph.starts, graph.columns, graph.values


def spread_densely(table, layers):
    """Returns the mean of the layers, by products of dense matrices."""
    matrix = dense_graph()
    found = [table]
    for _ in range(layers):
        found.append(matrix @ found[-1])
    return torch.stack(found).mean(0)


def test_the_graph_is_that_of_the_training_rows_alone():
    graph = graph_of(small())
    assert graph.starts.dtype == graph.columns.dtype == torch.int32
    matrix = torch.sparse_csr_tensor(*parts_of(graph), (9, 9)).to_dense()
    torch.testing.assert_close(matrix, dense_graph(), rtol=1e-6, atol=0)
    assert not matrix[8].any()


@pytest.mark.parametrize("layers", [1, 3])
def test_propagation_and_its_gradient_are_those_of_dense_matrices(layers):
    torch.manual_seed(0)
    table, weights = torch.randn(9, 6, requires_grad=True), torch.randn(9, 6)
    expected = spread_densely(table, layers)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), table)
    found = propagate(*parts_of(graph_of(small())), table, layers)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), table)[0], gradient)


def test_an_operator_that_autocast_leaves_in_float32_and_whose_products_are_counted():
    graph, table = parts_of(graph_of(small())), torch.randn(9, 6)
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", dtype=torch.bfloat16):
        assert propagate(*graph, table, 2).dtype == torch.float32
    assert counter.get_total_flops() == 2 * 2 * len(graph[2]) * 6


def test_the_loss_ranks_by_propagated_vectors_and_regularises_those_before():
    method, batches = method_on(held_out(), MODEL, "method.mode=dense", "method.reg=0.3")
    batch = batches.batch(0, 0, Share(), 0)
    model = method.model
    users, items = model.users.table, model.items.table
    after = propagate(model.starts, model.columns, model.values, torch.cat([users, items]), 3)
    expected = 0.0
    triples = zip(
        *(batch.tensors[name].flatten().tolist() for name in ("users", "items", "negatives")), strict=True
    )
    for user, item, other in triples:
        gap = after[user] @ (after[40 + item] - after[40 + other])
        squares = sum(vector.square().sum() for vector in (users[user], items[item], items[other]))
        expected += torch.nn.functional.softplus(-gap) + 0.15 * squares
    torch.testing.assert_close(method.loss(batch), expected / batch.total_targets)


@pytest.mark.parametrize("structure", ["row", "global"])
def test_what_is_masked_stays_zero_and_the_budget_what_it_was(structure):
    words = [MODEL, f"method.structure={structure}", "method.update_every=0.5", "method.turns=1"]
    method, batches, engine = begun(*words, "method.batch_size=32")
    tables = list(tables_in(method.model).values())
    first = [mask_of(table) for table in tables]
    for _ in range(20):
        step(method, batches, engine)
        for table, rows in zip(tables, (40, 30), strict=True):
            assert int(table.mask.sum()) == budget(rows, 12, 0.25, structure)
            state = engine.optimizers[0].state[table.weights]
            for numbers in (table.weights.detach(), state["exp_avg"], state["exp_avg_sq"]):
                assert not numbers[~table.mask].any()
                assert numbers[table.mask].any()
    assert len(method._told) >= 3
    assert not any(torch.equal(old, mask_of(table)) for old, table in zip(first, tables, strict=True))


def test_a_number_that_grows_begins_with_a_step_of_one_rate():
    """Though all of a table has a gradient in each step: its moments and age begin anew."""
    words = [MODEL, "method.update_every=2", "optimizer.lr=0.01", "method.batch_size=32", "method.reg=0"]
    method, batches, engine = begun(*words, total_steps=1000)
    tables = list(tables_in(method.model).values())
    before = [mask_of(table) for table in tables]
    while not method._told:
        step(method, batches, engine)
    grown = [mask_of(table) & ~old for table, old in zip(tables, before, strict=True)]
    assert all(new.any() for new in grown)
    step(method, batches, engine)
    for table, new in zip(tables, grown, strict=True):
        moved = table.weights.detach()[new].abs()
        assert moved.max() < 0.0101
        assert moved.median() > 0.0099  # eps shortens that of a tiny gradient


def test_all_numbers_live_is_the_dense_table_to_the_bit():
    ends = []
    for words in (["method.mode=dense"], ["method.density=1", "method.mode=dsl"]):
        method, batches, engine = begun(MODEL, *words)
        step(method, batches, engine, 10)
        ends.append([table.weights.detach() for table in tables_in(method.model).values()])
    for dense, masked in zip(*ends, strict=True):
        assert torch.equal(dense, masked)


def test_storage_is_chosen_by_what_the_model_reads():
    chosen = {}
    for model in ("lightgcn", "bpr_mf"):
        method, _ = method_on(held_out(), f"model={model}")
        chosen[model] = method.own.storage, method.choices()["method.storage"]
    assert chosen["lightgcn"] == ("masked", "masked: lightgcn reads whole tables")
    assert chosen["bpr_mf"] == ("packed", "packed: bpr_mf reads rows of tables")
    assert method_on(held_out(), MODEL, "method.mode=dense")[0].choices() == {}


def test_whole_tables_that_are_packed_are_refused():
    with pytest.raises(ConfigError, match="reads whole tables") as told:
        compose.compose(["method=dsl", MODEL, "method.storage=packed"])
    assert "method.storage=masked" in str(told.value)


def run(tmp_path, *words):
    small = ["dataset.num_users=60", "dataset.num_items=40", "run.device=cpu", "evaluation.ks=[5,20]"]
    argv = ["train", "method=dsl", MODEL, f"data_root={tmp_path / 'data'}", f"run.dir={tmp_path / 'run'}"]
    assert main([*argv, *small, "method.dim=8", "run.max_epochs=2", *words]) == 0
    return tmp_path / "run", json.loads((tmp_path / "run" / "result.json").read_text())


@pytest.mark.parametrize("mode", ["dsl", "dense", "magnitude", "dense_int8"])
def test_what_is_kept_scores_as_what_was_judged_and_without_the_dataset(mode, tmp_path, capsys):
    folder, result = run(tmp_path, f"method.mode={mode}")
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]["test"]
    there = open_run(folder, torch.device("cpu"))
    users = torch.arange(len(there.users.ids))
    expected = there.method.scorer().score(users, None)
    shutil.rmtree(tmp_path / "data")
    alone = open_run(folder, torch.device("cpu"))
    assert alone.data is None
    assert torch.equal(alone.method.scorer().score(users, None), expected)
    assert expected.std(0).min() > 0


def test_a_rounds_multiply_adds_are_those_of_the_rows_that_it_reads():
    """The first reads what is live of each neighbour, the others sums, which are dense."""
    model = method_on(small(), MODEL, "method.dim=4")[0].model
    live = torch.tensor([0, 1, 2, 3, 4, 3, 2, 1, 4])
    found = sum(int(live[column]) for column in dense_graph().nonzero()[:, 1].tolist())
    edges = int((dense_graph() != 0).sum())
    assert model.multiply_adds(live) == {"multiply_adds": found + 2 * 4 * edges, "of": 3 * 4 * edges}


def test_served_vectors_are_dense_and_the_result_says_so(tmp_path):
    _, result = run(tmp_path)
    rows, told = result["dataset"]["users"] + result["dataset"]["items"], result["sparsity"]
    assert (told["live"], told["of"]) == (2 * rows, 8 * rows)
    assert (told["served_bytes"], told["multiply_adds"]) == (4 * 8 * rows, 8)
    whole = told["propagation"]["of"]
    assert whole == 3 * 2 * result["cost"]["training_rows"] * 8, "rounds, both ways, rows, numbers"
    assert told["propagation"]["multiply_adds"] == pytest.approx(whole * (0.25 + 2) / 3)
    assert 4 * 8 * rows < result["cost"]["model_bytes"] < 4 * 8 * rows + 1000
    assert result["choices"]["method.storage"].startswith("masked")


def test_the_graph_of_a_sample_is_that_of_its_rows():
    data = held_out()
    fewer = np.minimum(data.train_end, data.sequences.offsets[:-1] + 1)
    sampled = type(data)(**{**vars(data), "train_end": fewer})
    assert len(graph_of(sampled).values) == 2 * sampled.num_train < len(graph_of(data).values)


@pytest.mark.parametrize("model", ["bpr_mf", "lightgcn", "ultragcn"])
def test_models_of_ids_alone_are_not_for_cadc(model):
    with pytest.raises(ConfigError, match="made of ids alone") as told:
        compose.compose(["method=cadc", f"model={model}"])
    assert "method=dsl" in str(told.value)
