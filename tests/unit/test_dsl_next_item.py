"""Method dsl on task next_item: a sequence model whose item table is sparse, against a masked dense one."""

import json

import pytest
import torch
from cadc_helpers import held_out
from dsl_helpers import begun, dense_of, mask_of, step
from test_dsl_memory import peak_of

from effrec_cli.app import main
from effrec_cli.compose import compose
from effrec_cli.errors import ConfigError, EffrecError
from effrec_cli.methods.sparse.next_item import NextItemDSL
from effrec_cli.models.sparse.start import budget

SMALL = ["model.max_length=8", "model.num_layers=1", "model.dropout=0"]
OFTEN = ["method.update_every=0.5", "method.batch_size=8"]
LOSSES = ["cce", "cce_sampled"]
MOVING = ["dsl", "rigl", "set"]


def sequence(*words, model="sasrec", data=None, **settings):
    return begun(f"model={model}", *SMALL, *words, data=data or held_out(longest=14), **settings)


def items(method):
    return method.model.items


def ends(*words, steps=20, model="sasrec"):
    """Returns all weights after some steps, the table as a dense one, and its mask."""
    method, batches, engine = sequence(*words, model=model)
    step(method, batches, engine, steps)
    rest = [tensor for name, tensor in method.model.named_parameters() if not name.startswith("items.")]
    return [dense_of(items(method)), *rest], items(method)


@pytest.mark.parametrize("structure", ["row", "global"])
@pytest.mark.parametrize("mode", [*MOVING, "static"])
@pytest.mark.parametrize("loss", LOSSES)
def test_packed_and_masked_tables_learn_the_same(loss, mode, structure):
    words = [f"method.loss={loss}", f"method.mode={mode}", f"method.structure={structure}"]
    words += ["method.batch_size=8"] if mode == "static" else OFTEN
    (packed, table), (masked, twin) = (
        ends(*words, f"method.storage={each}") for each in ("packed", "masked")
    )
    assert torch.equal(mask_of(table), mask_of(twin))
    for one, other in zip(packed, masked, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", MOVING)
def test_the_budget_is_the_same_after_every_update(mode, loss):
    turns = [] if mode == "set" else ["method.turns=1"]
    method, batches, engine = sequence(f"method.mode={mode}", f"method.loss={loss}", *OFTEN, *turns)
    live, before = budget(30, 12, 0.25, "row"), mask_of(items(method))
    for _ in range(12):
        step(method, batches, engine)
        assert int(mask_of(items(method)).sum()) == live
        assert not dense_of(items(method))[~mask_of(items(method))].any()
    assert len(method._told) >= 3
    assert all(update["live"] == live for update in method._told)
    assert not torch.equal(before, mask_of(items(method)))


@pytest.mark.parametrize("model", ["sasrec", "bert4rec"])
def test_all_numbers_live_is_the_dense_trainer_to_the_bit(model):
    (dense, _), (sparse, _) = (
        ends(*words, model=model)
        for words in (["method.mode=dense"], ["method.density=1", "method.mode=static"])
    )
    for one, other in zip(dense, sparse, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("loss", LOSSES)
def test_all_numbers_live_and_watched_is_the_dense_trainer_up_to_the_order_of_sums(loss):
    (dense, _), (sparse, _) = (
        ends(f"method.loss={loss}", more) for more in ("method.mode=dense", "method.density=1")
    )
    for one, other in zip(dense, sparse, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-4)


def test_the_losses_are_those_of_method_cce():
    from effrec_kernels import linear_cross_entropy, sampled_cross_entropy, unpack

    from effrec_cli.data.batches import Share

    method, batches, _ = sequence("method.num_negatives=7", "method.batch_size=8")
    batch = batches.batch(0, 0, Share(), 5)
    hidden = method.model(*(batch.tensors[name] for name in ("inputs", "lengths", "valid")))
    targets = batch.tensors["targets"].flatten()[batch.tensors["valid"]]
    given = hidden, unpack(items(method).packed), targets
    drawn = {"num_negatives": 7, "sharing": "batch", "correction": "logq", "seed": 1, "step": 5}
    torch.testing.assert_close(method.loss(batch), sampled_cross_entropy(*given, **drawn))
    method.own.loss = "cce"
    torch.testing.assert_close(method.loss(batch), linear_cross_entropy(*given))


@pytest.mark.parametrize(
    "words", [["method.mode=dense"], ["method.mode=dense_int8"], [], ["method.values=int8"]]
)
@pytest.mark.parametrize("model", ["sasrec", "bert4rec"])
def test_scores_are_products_with_the_table_as_it_is_served(model, words):
    from torch import nn

    from effrec_cli.evaluation.history_scorer import SequenceScorer
    from effrec_cli.evaluation.scorer import Histories
    from effrec_cli.methods.sparse.scorer import served_network

    method, _, _ = sequence(*words, model=model)
    histories = Histories(torch.arange(13), torch.tensor([0, 3, 3, 13]))
    users = torch.arange(3)
    found = method.scorer().score(users, histories)
    served = served_network(method.model, method.own)
    dense = served.items.look_up(torch.arange(30))
    served.items = nn.Embedding.from_pretrained(dense)
    served.items.sparse = False
    mask_token = getattr(served, "mask_token", None)
    assert mask_token == (None if model == "sasrec" else 30)
    expected = SequenceScorer(served, 8, 30, torch.device("cpu"), mask_token).score(users, histories)
    torch.testing.assert_close(found, expected)


def test_only_rows_of_a_step_move_under_a_sample_and_all_move_under_the_full_softmax():
    data = held_out(num_items=400, longest=14)
    for loss, all_move in (("cce_sampled", False), ("cce", True)):
        words = [f"method.loss={loss}", "method.batch_size=4", "method.num_negatives=5"]
        method, batches, engine = sequence(*words, data=data)
        before = dense_of(items(method))
        step(method, batches, engine)
        moved = (dense_of(items(method)) != before).any(1)
        assert moved.all() == all_move


@pytest.mark.parametrize("loss", LOSSES)
def test_no_step_makes_the_table_dense(loss, monkeypatch):
    from effrec_kernels import arguments

    monkeypatch.setattr(arguments, "default_chunk_bytes", lambda device: 1 << 18)
    rows, dim = 80_000, 64
    words = [f"method.loss={loss}", f"method.dim={dim}", "method.density=0.05", "method.turns=50"]
    words += ["method.batch_size=4", "method.num_negatives=50", "method.update_every=40"]
    method, batches, engine = sequence(*words, data=held_out(num_items=rows, longest=14))
    step(method, batches, engine, 2)
    peak, _ = peak_of(lambda: step(method, batches, engine))
    assert method._rewiring.plan.watches(2)
    assert peak < rows * dim * 4 / 4, peak


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_ranks_growth_under_the_full_softmax_is_no_larger_than_the_table_with_its_state(accumulate):
    # Sums in 16 bits, and the gradients of all micro-batches in 32.
    held = (2 + 4 * accumulate) * 12
    for loss, turns in (("cce_sampled", 1), ("cce", -(-held // (3 * 15)))):
        method, _, _ = sequence(f"method.loss={loss}", f"run.accumulate={accumulate}")
        assert method.own.turns == turns


def test_widths_are_the_models():
    assert sequence("method.dim=null", "model.dim=16")[0].own.dim == 16
    method, _, _ = sequence("method.dim=null")
    assert items(method).width == method.config.model.dim == 32
    assert sequence()[0].config.model.dim == 12


def test_what_was_left_open_is_settled():
    method, batches, _ = sequence()
    assert isinstance(method, NextItemDSL)
    own = method.own
    assert (own.loss, own.num_negatives, own.storage) == ("cce_sampled", 255, "packed")
    assert own.batch_size >= 16
    assert not hasattr(batches, "negatives")


WRONG = [
    ("model=sasrec method.loss=bpr", "method.loss"),
    ("model=sasrec method.loss=bce", "method.loss"),
    ("model=bpr_mf method.loss=cce", "method.loss"),
    ("model=bpr_mf method.loss=cce_sampled", "method.loss"),
    ("model=sasrec method.mode=dense_small", "method.mode"),
    ("model=sasrec method.filter_negatives=true", "method.filter_negatives"),
    ("model=sasrec method.reg=0.1", "method.reg"),
    ("model=bpr_mf method.sequence_window=last", "method.sequence_window"),
    ("model=sasrec model.dim=32 method.dim=64", "method.dim"),
    ("model=sasrec optimizer.sparse_rows=true", "optimizer.sparse_rows"),
]


@pytest.mark.parametrize(("words", "where"), WRONG, ids=lambda each: each)
def test_settings_that_do_not_go_together(words, where):
    with pytest.raises(EffrecError) as caught:
        compose(["method=dsl", "data_root=/nowhere", *words.split()])
    assert where in str(caught.value)
    assert str(caught.value).count("\n") < 6, "one error"


def test_a_width_that_heads_cannot_share():
    with pytest.raises(ConfigError, match="heads"):
        sequence("method.dim=9")


RUN = [
    "dataset.num_users=120",
    "dataset.num_items=80",
    "run.device=cpu",
    "evaluation.ks=[5,20]",
    "model.dim=16",
    *SMALL,
]


def run(tmp_path, *words, name="run"):
    folder = tmp_path / name
    argv = ["train", "method=dsl", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *RUN, *words]
    assert main(argv) == 0
    return folder, json.loads((folder / "result.json").read_text())


KEPT = [
    *(f"model=sasrec method.mode={mode}" for mode in (*MOVING, "static", "dense", "magnitude", "dense_int8")),
    "model=sasrec method.loss=cce",
    "model=sasrec method.loss=cce method.storage=masked method.values=bf16",
    "model=sasrec method.structure=global method.values=int8",
    "model=bert4rec",
    "model=bert4rec method.loss=cce method.structure=global",
]


@pytest.mark.parametrize("words", KEPT)
def test_what_is_kept_scores_as_what_was_judged(words, tmp_path, capsys):
    folder, result = run(tmp_path, *words.split(), "run.max_epochs=2")
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]["test"]
    told = result["sparsity"]
    items = result["dataset"]["items"]
    assert told["of"] == items * 16
    assert told["live"] == items * (16 if "dense" in words else 4)
