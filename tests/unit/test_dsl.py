"""Method dsl: its budget, its steps against a masked dense table, and its ends (papers/dsl section 5)."""

import json
from dataclasses import replace

import pytest
import torch
from cadc_helpers import held_out
from dsl_helpers import begun, dense_of, mask_of, method_on, step

from effrec_cli.app import main
from effrec_cli.methods.sparse.network import tables_in
from effrec_cli.models.sparse.start import budget

STRUCTURES = ["row", "global"]
MOVING = ["dsl", "rigl", "set"]
OFTEN = ["method.update_every=0.5", "method.batch_size=32"]
ALL_AT_ONCE = [*OFTEN, "method.turns=1"]


def tables(method):
    return list(tables_in(method.model).values())


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", MOVING)
@pytest.mark.parametrize("storage", ["packed", "masked"])
def test_the_budget_is_the_same_after_every_update(mode, structure, storage):
    often = OFTEN if mode == "set" else ALL_AT_ONCE
    words = [f"method.mode={mode}", f"method.structure={structure}", f"method.storage={storage}", *often]
    method, batches, engine = begun(*words)
    expected = [budget(40, 12, 0.25, structure), budget(30, 12, 0.25, structure)]
    places = [mask_of(table) for table in tables(method)]
    for _ in range(20):
        step(method, batches, engine)
        assert [int(mask_of(table).sum()) for table in tables(method)] == expected
        for table in tables(method):
            assert not dense_of(table)[~mask_of(table)].any()
    assert len(method._told) >= 3
    assert all(update["live"] == sum(expected) for update in method._told)
    assert any(
        not torch.equal(old, mask_of(table)) for old, table in zip(places, tables(method), strict=True)
    )


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", [*MOVING, "static"])
def test_packed_and_masked_tables_learn_the_same(mode, structure):
    words = [f"method.mode={mode}", f"method.structure={structure}", *([] if mode == "static" else OFTEN)]
    ends = []
    for storage in ("packed", "masked"):
        method, batches, engine = begun(*words, f"method.storage={storage}", "method.batch_size=32")
        step(method, batches, engine, 25)
        ends.append([(dense_of(table), mask_of(table)) for table in tables(method)])
    for (packed, places), (masked, mask) in zip(*ends, strict=True):
        assert torch.equal(places, mask)
        torch.testing.assert_close(packed, masked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MOVING)
@pytest.mark.parametrize("storage", ["packed", "masked"])
def test_tables_of_one_budget_share_it(mode, storage):
    """Numbers move from one table to another; their sum, and the optimizer's state, go with them."""
    words = [f"method.mode={mode}", "method.structure=global", "method.redistribute=true"]
    often = OFTEN if mode == "set" else ALL_AT_ONCE
    method, batches, engine = begun(*words, f"method.storage={storage}", *often)
    first = [int(mask_of(table).sum()) for table in tables(method)]
    for _ in range(20):
        step(method, batches, engine)
        assert sum(int(mask_of(table).sum()) for table in tables(method)) == sum(first)
        for table in tables(method):
            states = engine.optimizers[0].state[table.weights]
            assert {each.shape for each in states.values()} == {table.weights.shape}
    told = [list(update["live_by_table"].values()) for update in method._told]
    assert told[-1] == [int(mask_of(table).sum()) for table in tables(method)]
    assert any(live != first for live in told), "no number has moved from one table to the other"
    assert {update["live"] for update in method._told} == {sum(first)}


def test_tables_of_one_budget_learn_the_same_packed_and_masked():
    ends = []
    for storage in ("packed", "masked"):
        words = ["method.structure=global", "method.redistribute=true", f"method.storage={storage}"]
        method, batches, engine = begun(*words, *OFTEN, "method.batch_size=32")
        step(method, batches, engine, 25)
        ends.append([(dense_of(table), mask_of(table)) for table in tables(method)])
    for (packed, places), (masked, mask) in zip(*ends, strict=True):
        assert torch.equal(places, mask)
        torch.testing.assert_close(packed, masked, atol=1e-5, rtol=1e-5)


def test_no_optimizer_state_is_held_for_what_is_not_live():
    method, batches, engine = begun("method.density=0.25", *OFTEN)
    step(method, batches, engine, 12)
    for table in tables(method):
        kept = engine.optimizers[0].state[table.weights]
        assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == dict.fromkeys(
            ("exp_avg", "exp_avg_sq", "row_steps"), (table.shape.rows, 3)
        )
        assert kept["row_steps"].dtype == torch.int16


def test_all_numbers_live_is_the_dense_trainer_to_the_bit():
    ends = []
    for mode in ("dense", "dsl"):
        method, batches, engine = begun(
            f"method.mode={mode}", *(["method.density=1"] if mode == "dsl" else [])
        )
        step(method, batches, engine, 20)
        ends.append([dense_of(table) for table in tables(method)])
    for dense, sparse in zip(*ends, strict=True):
        assert torch.equal(dense, sparse)


def test_nothing_dropped_is_a_static_mask_to_the_bit():
    ends = []
    for words in (["method.mode=static"], [*OFTEN, "method.drop_rate=0", "method.final_rate=0"]):
        method, batches, engine = begun("method.batch_size=32", *words)
        step(method, batches, engine, 20)
        ends.append([dense_of(table) for table in tables(method)])
    for static, still in zip(*ends, strict=True):
        assert torch.equal(static, still)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_rows_that_no_step_read_keep_their_places(structure):
    data = held_out(num_items=60)
    method, batches, engine = begun(f"method.structure={structure}", *ALL_AT_ONCE, data=data, total_steps=400)
    method.own.batch_size = 4
    batches = method.batches(data)
    engine.steps_per_epoch = batches.steps_per_epoch
    method.fit(engine)
    users = method.model.users
    read, before = set(), mask_of(users)
    while not method._told:
        epoch, position = divmod(engine.steps, batches.steps_per_epoch)
        from effrec_cli.data.batches import Share

        read |= set(batches.batch(epoch, position, Share(), engine.steps).tensors["users"].tolist())
        step(method, batches, engine)
    unread = [user for user in range(40) if user not in read]
    assert unread
    assert torch.equal(mask_of(users)[unread], before[unread])
    assert not torch.equal(mask_of(users), before)


def test_turns_change_one_stretch_of_rows_after_the_other():
    method, batches, engine = begun("method.turns=2", "method.update_every=1", "method.batch_size=32")
    interval = method._rewiring.plan.interval
    for half in (slice(0, 20), slice(20, 40), slice(0, 20)):
        before = mask_of(method.model.users)
        step(method, batches, engine, interval)
        changed = (mask_of(method.model.users) != before).any(1)
        rest = torch.ones(40, dtype=torch.bool)
        rest[half] = False
        assert changed[half].any()
        assert not changed[rest].any()


def test_turns_left_open_are_no_more_than_steps_between_updates():
    words = ["method.density=0.1", "method.batch_size=32"]
    free, batches = method_on(held_out(), *words)
    assert free.own.turns == 2
    method, batches, engine = begun(*words, f"method.update_every={1 / batches.steps_per_epoch}")
    assert method.own.turns == 1
    step(method, batches, engine)
    assert len(method._told) == 1


def test_a_whole_windows_gradient_is_that_of_rigl_where_it_is_one_step():
    ends = []
    for words in (["method.window=0"], ["method.window=0.01"]):
        method, batches, engine = begun(*OFTEN, *words)
        step(method, batches, engine, 10)
        ends.append(mask_of(method.model.items))
    assert torch.equal(*ends)


def test_gradients_of_a_step_that_is_given_up_count_nothing():
    method, batches, engine = begun(*OFTEN)
    step(method, batches, engine)
    sums = method.model.users.scores.sums.clone()
    engine.last_micro_batch = False
    step(method, batches, engine)
    method.drop_step()
    engine.last_micro_batch = True
    method._rewiring.settle(32, None)
    assert torch.equal(method.model.users.scores.sums, sums)


def test_same_seed_same_places_and_another_seed_others():
    first, again, other = (method_on(held_out(), seed=seed)[0] for seed in (1, 1, 2))
    for one, two, three in zip(tables(first), tables(again), tables(other), strict=True):
        assert torch.equal(mask_of(one), mask_of(two))
        assert torch.equal(one.weights, two.weights)
        assert not torch.equal(mask_of(one), mask_of(three))


def test_rows_that_anneal_lose_their_smallest_numbers_until_the_budget_is_left():
    words = ["method.mode=topk_anneal", "method.density=0.25", "method.batch_size=32", "method.stop=0.5"]
    method, batches, engine = begun(*words, "method.update_every=0.5", total_steps=40)
    widths = []
    for _ in range(30):
        before = [(dense_of(table), mask_of(table)) for table in tables(method)]
        step(method, batches, engine)
        widths.append(method.model.users.values.shape[1])
        for (_, mask), table in zip(before, tables(method), strict=True):
            assert not (mask_of(table) & ~mask).any(), "nothing grows"
            assert (mask_of(table).sum(1) == widths[-1]).all()
            kept = engine.optimizers[0].state[table.weights]
            assert kept["exp_avg"].shape == kept["exp_avg_sq"].shape == table.weights.shape
            assert len(kept["row_steps"]) == len(table.weights)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 12
    assert widths[19:] == [3] * 11, "half of training is 20 steps"
    assert [update["live"] for update in method._told][-1] == 3 * 70


def test_what_is_narrowed_is_the_smallest_and_states_stay_with_their_numbers():
    method, batches, engine = begun("method.mode=topk_anneal", "method.batch_size=32")
    step(method, batches, engine, 3)
    table = method.model.items
    numbers, moments = (
        table.values.detach().clone(),
        engine.optimizers[0].state[table.values]["exp_avg"].clone(),
    )
    columns = table.columns.clone()
    method._rewiring._narrow(table, 5)
    order = numbers.abs().sort(dim=1, descending=True, stable=True).indices[:, :5].sort(dim=1).values
    assert torch.equal(table.values, numbers.gather(1, order))
    assert torch.equal(table.columns, columns.gather(1, order))
    assert torch.equal(engine.optimizers[0].state[table.values]["exp_avg"], moments.gather(1, order))
    step(method, batches, engine, 2)
    assert table.values.isfinite().all()


@pytest.mark.parametrize("words", [["method.mode=dense"], [], ["method.structure=global"]], ids=str)
def test_users_without_a_training_row_have_zeros(words):
    data = held_out()
    end = data.train_end.copy()
    end[[3, 7]] = data.train_start[[3, 7]]
    method, _ = method_on(replace(data, train_end=end), *words)
    silent = ~dense_of(method.model.users).any(1)
    assert silent[[3, 7]].all()
    assert not silent[[0, 1, 2]].any()


SMALL = [
    "dataset.num_users=120",
    "dataset.num_items=80",
    "run.device=cpu",
    "evaluation.ks=[5,20]",
    "method.dim=16",
]


def run(tmp_path, *words, name="run"):
    folder = tmp_path / name
    argv = ["train", "method=dsl", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *SMALL, *words]
    assert main(argv) == 0
    return folder, json.loads((folder / "result.json").read_text())


MODES = ["dsl", "rigl", "set", "static", "topk_anneal", "dense", "dense_small", "magnitude", "dense_int8"]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_kept_scores_as_what_was_judged(mode, tmp_path, capsys):
    folder, result = run(tmp_path, f"method.mode={mode}", "run.max_epochs=2")
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]["test"]


def test_what_is_kept_of_tables_of_one_budget_scores_as_what_was_judged(tmp_path, capsys):
    words = ["method.structure=global", "method.redistribute=true", "model=neumf"]
    folder, result = run(tmp_path, *words, "run.max_epochs=3")
    assert len({update["live"] for update in result["sparsity"]["updates"]}) == 1
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]["test"]


@pytest.mark.parametrize("values", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_file_is_as_large_as_what_it_holds(values, structure, tmp_path):
    words = [f"method.values={values}", f"method.structure={structure}", "run.max_epochs=1"]
    _, result = run(tmp_path, "dataset.num_items=4000", "method.density=0.5", *words)
    rows = result["dataset"]["users"] + result["dataset"]["items"]
    live = rows * 8
    expected = live * ({"fp32": 4, "bf16": 2, "int8": 1}[values] + 1)
    expected += 4 * rows if values == "int8" else 0
    expected += 8 * (rows + 2) if structure == "global" else 0
    assert expected < result["cost"]["model_bytes"] < 1.01 * expected + 1000
