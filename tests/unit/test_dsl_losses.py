"""What a step of method dsl penalises, reads and sums: by hand, and of models with several tables."""

from types import SimpleNamespace

import pytest
import torch
from cadc_helpers import held_out
from dsl_helpers import begun, method_on, step

from effrec_cli import compose
from effrec_cli.data.batches import Share
from effrec_cli.errors import ConfigError
from effrec_cli.methods.sparse.network import tables_in
from effrec_cli.models.sparse.growth import GradientScores

MODELS = ["bpr_mf", "neumf", "two_tower", "dlrm"]


def first_batch(*words, data=None):
    method, batches = method_on(data or held_out(), *words)
    return method, batches.batch(0, 0, Share(), 0)


@pytest.mark.parametrize("loss", ["bpr", "bce"])
@pytest.mark.parametrize("model", MODELS)
def test_all_vectors_that_a_row_reads_are_penalised(model, loss):
    words = [f"model={model}", f"method.loss={loss}", "method.num_negatives=3", "method.init_sd=1"]
    method, batch = first_batch(*words, "method.reg=0.5")
    tensors, expected = batch.tensors, 0.0
    items = torch.cat([tensors["items"][:, None], tensors["negatives"]], 1)
    for name, table in tables_in(method.model).items():
        rows = tensors["users"] if "users" in name else items
        expected += float(table(rows).detach().square().sum())
    without = first_batch(*words, "method.reg=0")[0].loss(batch)
    told = (method.loss(batch) - without).item()
    assert told == pytest.approx(0.25 * expected / batch.total_targets, rel=1e-4)


@pytest.mark.parametrize("words", [["method.loss=bpr"], ["method.loss=bce"], ["model=ultragcn"]], ids=str)
def test_no_vector_is_read_in_the_place_of_a_negative_that_is_none(words):
    method, batch = first_batch(*words, "method.num_negatives=2", "method.storage=masked", "method.reg=0.1")
    if "model=ultragcn" in words:
        method.model.item_weight = 0.0
    keep = batch.tensors["items"] != 0
    for name in ("users", "items", "negatives"):
        batch.tensors[name] = batch.tensors[name][keep]
    batch.tensors["negatives"][:] = -1
    read = []
    honest = method.model.items.look_up
    method.model.items.look_up = lambda rows: read.append(rows) or honest(rows)
    method.loss(batch).backward()
    rows = torch.cat([each.flatten() for each in read])
    allowed = set(batch.tensors["items"].tolist())
    if "model=ultragcn" in words:
        allowed |= set(method.model.neighbours[batch.tensors["items"]].flatten().tolist())
    assert set(rows.tolist()) <= allowed


def test_users_without_a_training_row_are_silent_in_every_table():
    data = held_out()
    end = data.train_end.copy()
    end[[3, 7]] = data.train_start[[3, 7]]
    from dataclasses import replace

    method, _ = method_on(replace(data, train_end=end), "model=neumf")
    for name in ("users", "network_users"):
        assert not tables_in(method.model)[name].weights[[3, 7]].any()
        assert tables_in(method.model)[name].weights[[0, 1]].all()


class Scaler:
    """Scales by a power of two, which a step may change."""

    def __init__(self, after):
        self.scale, self._after = torch.tensor(8.0), after

    def update(self):
        self.scale.fill_(self._after)


@pytest.mark.parametrize(("after", "counted"), [(8.0, 1.0), (16.0, 1.0), (4.0, 0.0)])
def test_gradients_are_summed_by_the_scale_that_they_had(after, counted):
    """A scale doubles after good steps, and is halved where one is given up: that one counts nothing."""
    sums = []
    for scaler in (None, Scaler(after)):
        method, batches, engine = begun("method.batch_size=32", "method.turns=1", total_steps=1000)
        honest, engine.scaler = engine.update, scaler
        if scaler is not None:
            engine.backward = lambda loss: (loss * 8).backward()
            engine.update = lambda honest=honest, scaler=scaler: (honest(), scaler.update())
        step(method, batches, engine)
        sums.append(tables_in(method.model)["items"].scores.sums.float())
    assert sums[0].any()
    torch.testing.assert_close(sums[1], sums[0] * counted, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("mode", ["dsl", "set", "topk_anneal"])
def test_a_rank_without_samples_changes_places_as_the_others_do(mode):
    """It takes part in the update alone, and is asked for what it has summed: nothing."""
    words = [f"method.mode={mode}", "method.update_every=0.5", "method.batch_size=32"]
    ends = []
    for alone in (False, True):
        method, batches, engine = begun(*words)
        empty = SimpleNamespace(total_targets=32, size=0)
        for _ in range(20):
            if alone:
                method.update_alone(empty, engine)
                engine.steps += 1
            else:
                step(method, batches, engine)
        ends.append([(update["step"], update["live"]) for update in method._told])
    assert ends[0] == ends[1] != []


def test_sums_of_a_rank_without_samples_are_zeros():
    scores = GradientScores(4, 3, 0, 4, torch.device("cpu"))
    scores.settle(8)
    assert not scores.touched.any()


STRONG = "dataset.split.kind=strong"


@pytest.mark.parametrize(
    "words", ["method=dsl", "method=dsl model=neumf", "method=cadc method.embedding=rand"]
)
def test_users_whom_training_never_sees_are_for_models_that_make_them_of_histories(words):
    with pytest.raises(ConfigError, match="whom training never sees") as caught:
        compose.compose([*words.split(), STRONG])
    assert caught.value.where == "dataset.split.kind"
    compose.compose([*words.split(), "dataset.split.kind=random"])


@pytest.mark.parametrize(
    "words",
    ["method=dsl model=multvae", "method=dsl model=sasrec", "method=cadc", "method=ials", "method=cce"],
)
def test_others_take_them(words):
    compose.compose([*words.split(), STRONG])
