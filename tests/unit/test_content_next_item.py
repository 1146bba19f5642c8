"""Task next_item over item vectors: shares add up, drawn rows stand for the catalogue, new items apart."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ranking_helpers import TableScorer, make_data
from test_cce import V, chain

from effrec_cli.data.batches import Share
from effrec_cli.data.types import Catalogue
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.cold import cold_cases
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.content.items import ITEMS, ItemBatches
from effrec_cli.methods.content.next_item import COLUMNS, NextItem, with_scores_added
from effrec_cli.schema import Config
from effrec_cli.schema.content_next_item import NextItemSettings, next_item_problems
from effrec_cli.schema.model_bert4rec import BERT4RecConfig
from effrec_cli.schema.model_sasrec import SASRecConfig

WIDE, DIM = 6, 8
SHARES = [Share(rank, 2, micro, 3) for rank in range(2) for micro in range(3)]
WAYS = [
    {"candidates": candidates, "correction": correction, "loss": loss, "num_sampled": 9}
    for candidates, correction in (("step", "logq"), ("step", "none"), ("all", "logq"))
    for loss in ("cce", "cce_sampled")
]
IN_BATCH = [{"candidates": "batch", "correction": correction} for correction in ("popularity", "none")]


def named(data):
    """Gives the items titles, so that they have something to be encoded."""
    return replace(data, items=Catalogue(data.items.ids, np.array([f"item {row}" for row in data.items.ids])))


def make(data=None, model=None, batch_size=7, **own):
    sasrec = {"dim": DIM, "num_layers": 1, "max_length": 5, "dropout": 0.0, **(model or {})}
    method = SimpleNamespace(name="gram", batch_size=batch_size, next_item=NextItemSettings(**own))
    task = NextItem(Config(model=SASRecConfig(**sasrec), method=method, seed=5), named(data or chain()))
    torch.manual_seed(0)
    return task, task.filter(WIDE).double()


def table(num_items=V):
    return torch.randn(num_items, WIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_and_gradients(task, filter, shares, batches):
    """Returns the loss of a step, added up over shares, and the gradients of vectors and filter."""
    vectors, total = table().requires_grad_(), 0.0
    filter.zero_grad()
    for share in shares:
        batch = batches.batch(1, 1, share, 3)
        loss = task.loss(filter, vectors[torch.from_numpy(batch.host[ITEMS])], batch)
        loss.backward()
        total += float(loss.detach())
    return [torch.tensor(total), vectors.grad, *(each.grad for each in filter.parameters())]


@pytest.mark.parametrize("own", [*WAYS, *IN_BATCH])
@pytest.mark.parametrize("unique", [True, False])
def test_ranks_and_micro_batches_add_up(own, unique):
    task, filter = make(**own)
    batches = ItemBatches(task.batches(), task.item_tensors, unique=unique)
    whole = loss_and_gradients(task, filter, [Share()], batches)
    parts = loss_and_gradients(task, filter, SHARES, batches)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert float(whole[0]) > 0


@pytest.mark.parametrize("own", [{}, *IN_BATCH])
def test_an_empty_share_costs_nothing(own):
    task, filter = make(**own)
    batches = ItemBatches(task.batches(), task.item_tensors, together=True)
    batch = batches.batch(0, 0, Share(0, 9), 0)
    assert batch.size == 0
    assert task.loss(filter, table()[torch.from_numpy(batch.host[ITEMS])], batch).item() == 0


def rows_and_scores(task, filter, batch):
    """Returns the states of a batch, its targets, and their scores over the catalogue."""
    inputs, vectors = batch.tensors["inputs"].clamp(min=0), table()
    hidden = filter(vectors, inputs, batch.tensors["lengths"], batch.tensors["valid"]).detach()
    items = filter.item_vectors(vectors).detach()
    targets = batch.tensors["candidates"][batch.tensors["labels"]]
    return hidden, items, targets, hidden @ items.T / task.temperature


def plain_loss(task, filter, batch):
    vectors, inputs = table(), batch.tensors["inputs"].clamp(min=0)
    return task.loss(filter, vectors, replace(batch, tensors={**batch.tensors, "inputs": inputs}))


@pytest.mark.parametrize("own", [{"candidates": "all"}, {"num_negatives": V}, {"num_negatives": V + 9}])
def test_with_every_row_there_it_is_the_softmax_over_the_catalogue(own):
    task, filter = make(**own)
    batch = task.batches().batch(0, 0, Share(), 0)
    _, _, targets, scores = rows_and_scores(task, filter, batch)
    expected = F.cross_entropy(scores, targets)
    torch.testing.assert_close(plain_loss(task, filter, batch), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("drawn", [0, 4])
def test_without_correction_it_is_the_softmax_over_the_candidates(drawn):
    task, filter = make(num_negatives=drawn, correction="none")
    batch = task.batches().batch(0, 0, Share(), 0)
    scores = rows_and_scores(task, filter, batch)[-1][:, batch.tensors["candidates"]]
    expected = F.cross_entropy(scores, batch.tensors["labels"])
    torch.testing.assert_close(plain_loss(task, filter, batch), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("loss", "draws"), [("cce", 400), ("cce_sampled", 600)])
def test_drawn_rows_stand_for_the_catalogue_on_average(loss, draws):
    """The sum that a row's logarithm is taken of, over many draws of the same windows, is the exact one."""
    task, filter = make(
        data=chain(num_users=9), batch_size=2, num_negatives=6, loss=loss, num_sampled=9, temperature=3
    )
    batches = task.batches()
    hidden, items, targets, scores = rows_and_scores(task, filter, batches.batch(0, 0, Share(), 0))
    assert len(set(targets.tolist())) < V // 2
    row, target = 0, targets[0]
    found = []
    for step in range(draws):
        batch = batches.batch(0, 0, Share(), step)
        batch.tensors["labels"] = batch.tensors["labels"][row : row + 1]
        one = replace(batch, total_targets=1, first_target=step)
        value = task._loss(hidden[row : row + 1], items[batch.tensors["candidates"]], one)
        found.append(float(torch.exp(value + scores[row, target])))
    exact = float(scores[row].exp().sum())
    assert abs(np.mean(found) - exact) < 4.5 * np.std(found) / draws**0.5
    assert np.std(found) > 1e-3 * exact
    uncorrected = float(scores[row, batch.tensors["candidates"]].exp().sum())
    assert abs(uncorrected - exact) > 10 * np.std(found) / draws**0.5, "the correction is what makes it right"


def test_half_precision_keeps_what_is_added_to_scores():
    hidden, items = torch.randn(5, 7).bfloat16(), torch.randn(4, 7).bfloat16()
    added = torch.tensor([0.0, 3.917, 7.1234, 11.9])
    wide = [each.double() for each in with_scores_added(hidden, items, added)]
    assert wide[0].shape == (5, 7 + COLUMNS)
    exact = hidden.double() @ items.double().T + added.double()
    torch.testing.assert_close(wide[0] @ wide[1].T, exact, rtol=0, atol=11.9 * 2**-16)


def test_the_scorer_multiplies_the_last_state_with_the_projected_table():
    task, filter = make()
    filter.eval()
    scorer = task.scorer(filter, table())
    history = torch.tensor([3, 1, 4, 1, 5, 9, 2])
    found = scorer.score(torch.tensor([-1]), Histories(history, torch.tensor([0, len(history)])))
    hidden = filter(table(), history[None, -5:], torch.tensor([5]))[0, -1]
    torch.testing.assert_close(found[0], filter.item_vectors(table()) @ hidden)
    assert not filter.training


@pytest.mark.parametrize("training", [True, False])
def test_judging_leaves_the_filter_in_the_mode_it_was_in(training):
    task, filter = make(model={"dropout": 0.5})
    filter.train(training)
    first = task.judge(filter, table(), "valid", World())
    assert filter.training is training
    assert first == task.judge(filter, table(), "valid", World()), "and draws nothing"


# Items 0 to 3 are met in training, 4 and 5 are not: user 1's target and one of user 3's are cold.
COLD = make_data([[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 1]], [[3], [4], [1], [5, 2]], 6)


def test_cases_with_new_items_stand_apart(monkeypatch):
    scores = np.zeros((4, 6))
    scores[1, [5, 4]] = [9, 8]  # the second of user 1's list
    monkeypatch.setattr(NextItem, "scorer", lambda self, filter, table: TableScorer(scores))
    task, filter = make(COLD)
    found = task.judge(filter, table(6), "test", World())
    plain = rank_cases(TableScorer(scores), task.data, COLD.test, task.config.evaluation)
    assert found["cases_cold"] == 1, "a case with any target that was met is not cold"
    assert found["hr@1_cold"] == 0
    assert found["hr@5_cold"] == 1
    assert found["ndcg@5_cold"] == pytest.approx(1 / np.log2(3))
    assert {name: value for name, value in found.items() if "_cold" not in name} == plain
    told = {f"{name}_cold" for name in plain if name.partition("@")[0] in ("ndcg", "hr")}
    assert told | {"cases_cold"} == found.keys() - plain.keys()
    items = task.by_frequency["items"]
    assert [(group["rows"], group["cases"]) for group in items] == [([0, 0], 2), ([3, 3], 3)]
    task.judge(filter, table(6), "valid", World())
    assert task.by_frequency is None


def test_without_new_items_nothing_stands_apart():
    task, filter = make()
    assert not any("_cold" in name for name in task.judge(filter, table(), "test", World()))


def test_which_cases_are_cold():
    counts = np.array([1, 1, 1, 1, 0, 0])
    assert cold_cases(COLD, COLD.test, counts).users.tolist() == [1]
    assert cold_cases(COLD, COLD.test, np.zeros(6, np.int64)).users.tolist() == [0, 1, 2, 3]
    assert not len(cold_cases(COLD, COLD.test, counts + 1))
    assert not len(cold_cases(COLD, COLD.test[:0], counts))


def test_what_is_left_open_suits_the_data():
    task, filter = make(model={"dim": None}, batch_size=None)
    assert task.config.method.batch_size == 16
    assert task.config.model.dim == 32
    assert filter.item_vectors(table()).shape == (V, 32)
    assert task.temperature == pytest.approx(32**0.5)
    assert task.training_rows == task.data.num_train - task.data.num_users
    assert task.train_counts.sum() == task.data.num_train
    assert task.protocol()["candidates"] == "full"
    assert len(task.contents) == V


def test_a_model_that_reads_no_vectors_is_refused():
    config = Config(model=BERT4RecConfig(), method=SimpleNamespace(name="gram"))
    with pytest.raises(ConfigError, match="no form that reads the vectors") as caught:
        NextItem(config, named(chain()))
    assert caught.value.fix == "model=sasrec"


def test_a_width_that_does_not_divide_into_heads_is_refused():
    with pytest.raises(ConfigError, match="does not divide"):
        make(model={"num_heads": 3})


def test_without_a_projection_the_model_is_as_wide_as_the_vectors():
    task, filter = make(model={"dim": None}, projection=False)
    assert task.config.model.dim == WIDE
    batch = task.batches().batch(0, 0, Share(), 0)
    scores = rows_and_scores(task, filter, batch)
    torch.testing.assert_close(scores[1], table())
    with pytest.raises(ConfigError, match="no projection is between them") as caught:
        make(model={"dim": DIM}, projection=False)
    assert caught.value.where == f"model.dim={DIM} with method.next_item.projection=false"
    assert f"model.dim={WIDE}" in caught.value.fix


@pytest.mark.parametrize(
    ("given", "task", "where"),
    [
        ({"num_sampled": 9}, "next_item", ".num_sampled"),
        ({"candidates": "all", "num_negatives": 9}, "next_item", ".num_negatives"),
        ({"candidates": "all", "correction": "none"}, None, ".correction"),
        ({"candidates": "all", "correction": "popularity"}, None, ".correction"),
        ({"correction": "popularity"}, "next_item", ".correction"),
        ({"num_negatives": 0}, "next_item", ".correction"),
        ({"candidates": "batch"}, "next_item", ".correction"),
        ({**IN_BATCH[0], "num_negatives": 9}, "next_item", ".num_negatives"),
        ({**IN_BATCH[0], "loss": "cce_sampled"}, "next_item", ".loss"),
        ({**IN_BATCH[1], "kernel": "triton"}, "next_item", ".kernel"),
        ({"temperature": 0.5}, "news", ""),
    ],
)
def test_settings_that_would_do_nothing_are_refused(given, task, where):
    (problem,) = next_item_problems(NextItemSettings(**given), task)
    assert problem.path == f"method.next_item{where}"
    assert problem.fix


@pytest.mark.parametrize("own", [*WAYS[::2], *IN_BATCH, {}, {"num_negatives": 0, "correction": "none"}])
def test_settings_that_do_something_are_not(own):
    own = {key: value for key, value in own.items() if key != "num_sampled"}
    assert not list(next_item_problems(NextItemSettings(**own), "next_item"))
    assert not list(next_item_problems(NextItemSettings(), "news"))
