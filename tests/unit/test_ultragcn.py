"""Model ultragcn: what its loss reads of training rows, the loss itself, and its tables under method dsl."""

import json
import math

import pytest
import torch
from cadc_helpers import held_out
from dsl_helpers import begun, dense_of, mask_of, method_on, step

from effrec_cli import compose
from effrec_cli.app import main
from effrec_cli.data import cooccurrence
from effrec_cli.data.batches import Share
from effrec_cli.errors import ConfigError
from effrec_cli.methods.sparse.graphs import constraints_of
from effrec_cli.methods.sparse.network import tables_in
from effrec_cli.models.sparse.start import budget

MODEL = "model=ultragcn"
FEW = [MODEL, "method.num_negatives=3", "model.num_neighbors=4"]


def rows_of(data):
    """Returns the training items of each user."""
    return [
        data.sequences.items[low:high].tolist()
        for low, high in zip(data.train_start, data.train_end, strict=True)
    ]


def omega_of(rows, num_items):
    """Returns omega [V][V] by loops (equation 10), 0 on the diagonal."""
    both = [[0] * num_items for _ in range(num_items)]
    for row in rows:
        for one in row:
            for other in row:
                both[one][other] += 1
    sums = [sum(each) for each in both]
    found = [[0.0] * num_items for _ in range(num_items)]
    for one in range(num_items):
        for other in range(num_items):
            if one != other and both[one][other]:
                share = both[one][other] / (sums[one] - both[one][one])
                found[one][other] = share * math.sqrt(sums[one] / sums[other])
    return found


def degrees_of(rows, num_items):
    return [len(row) for row in rows], [sum(item in row for row in rows) for item in range(num_items)]


def test_neighbours_are_those_of_largest_omega_block_by_block(monkeypatch):
    data = held_out()
    monkeypatch.setattr(cooccurrence.cooccurrences, "__defaults__", (12 * 30 * 7,))
    found = constraints_of(data, 5)
    expected = torch.tensor(omega_of(rows_of(data), 30))
    torch.testing.assert_close(found.likeness, expected.topk(5, dim=1).values)
    torch.testing.assert_close(found.likeness, expected.gather(1, found.neighbours.long()))
    assert not (found.neighbours == torch.arange(30)[:, None]).any()


def loss_by_loops(model, batch, rows, reg):
    """Returns the loss of a batch as the paper writes it, with each vector's share of the regulariser."""
    of_users, of_items = degrees_of(rows, 30)
    omega, total = omega_of(rows, 30), sum(map(len, rows))
    p, q = dense_of(model.users).tolist(), dense_of(model.items).tolist()

    def score(user, item):
        return sum(one * other for one, other in zip(p[user], q[item], strict=True))

    def beta(user, item):
        return math.sqrt((of_users[user] + 1) / (of_items[item] + 1)) / of_users[user]

    tensors, losses = batch.tensors, 0.0
    for user, item, others in zip(
        *(tensors[name].tolist() for name in ("users", "items", "negatives")), strict=True
    ):
        losses += (0.5 + 2 * beta(user, item)) * math.log1p(math.exp(-score(user, item)))
        for other in others:
            weight = 0.25 + 3 * beta(user, other)
            losses += 7 / len(others) * weight * math.log1p(math.exp(score(user, other)))
        near = sorted(range(30), key=lambda each: -omega[item][each])[:4]
        losses += 0.6 * sum(omega[item][each] * math.log1p(math.exp(-score(user, each))) for each in near)
        squares = [sum(number**2 for number in vector) for vector in (p[user], q[item])]
        shares = squares[0] / of_users[user] + squares[1] / of_items[item]
        losses += reg / 2 * total / batch.total_targets * shares
    return losses / batch.total_targets


@pytest.mark.parametrize("mode", ["dsl", "dense"])
def test_the_loss_is_that_of_plain_loops(mode):
    weights = ["w1=0.5", "w2=2", "w3=0.25", "w4=3", "negative_weight=7", "item_weight=0.6"]
    words = [*FEW, *(f"model.{word}" for word in weights), "method.reg=0.2", f"method.mode={mode}"]
    method, batches = method_on(held_out(), *words)
    batch = batches.batch(0, 0, Share(), 0)
    expected = loss_by_loops(method.model, batch, rows_of(method.data), 0.2)
    assert method.loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_over_an_epoch_all_vectors_are_penalised_alike():
    nothing = [f"model.{name}=0" for name in ("w1", "w2", "w3", "w4", "item_weight")]
    method, batches = method_on(held_out(), *FEW, *nothing, "method.reg=0.2", "method.batch_size=20")
    for table in tables_in(method.model).values():
        table.weights.data.fill_(1.0)  # 3 of 12 numbers live: the squares of each row sum to 3
    epoch = [batches.batch(0, at, Share(), at) for at in range(batches.steps_per_epoch)]
    total = sum(method.loss(batch).item() * batch.total_targets**2 for batch in epoch)
    rows = rows_of(method.data)
    named = len(rows) + len({item for row in rows for item in row})
    assert total == pytest.approx(sum(map(len, rows)) * 0.1 * 3 * named, rel=1e-4)


def test_a_negative_that_is_none_counts_nothing():
    method, batches = method_on(held_out(), *FEW, "model.item_weight=0")
    tensors = batches.batch(0, 0, Share(), 0).tensors
    users, items, negatives = (tensors[name] for name in ("users", "items", "negatives"))
    kept = negatives.clone()
    kept[:, 1:] = -1
    one = method.model.loss_of_rows(users, items, kept, 0.0)
    alone = method.model.loss_of_rows(users, items, negatives[:, :1], 0.0)
    none = method.model.loss_of_rows(users, items, torch.full_like(negatives, -1), 0.0)
    method.model.negative_weight = 0.0
    torch.testing.assert_close(none, method.model.loss_of_rows(users, items, negatives, 0.0))
    torch.testing.assert_close(one - none, (alone - none) / 3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("structure", ["row", "global"])
def test_packed_and_masked_tables_learn_the_same_under_one_budget(structure):
    ends = []
    for storage in ("packed", "masked"):
        words = [
            *FEW,
            f"method.storage={storage}",
            f"method.structure={structure}",
            "method.update_every=0.5",
        ]
        method, batches, engine = begun(*words, "method.batch_size=32", "method.turns=1")
        tables = list(tables_in(method.model).values())
        for _ in range(15):
            step(method, batches, engine)
            expected = [budget(rows, 12, 0.25, structure) for rows in (40, 30)]
            assert [int(mask_of(table).sum()) for table in tables] == expected
        assert method._told
        ends.append([(dense_of(table), mask_of(table)) for table in tables])
    for (packed, places), (masked, mask) in zip(*ends, strict=True):
        assert torch.equal(places, mask)
        torch.testing.assert_close(packed, masked, atol=1e-5, rtol=1e-5)


def test_negatives_are_as_many_as_published_unless_said():
    assert method_on(held_out(), MODEL)[0].own.num_negatives == 800
    assert method_on(held_out(), *FEW)[0].own.num_negatives == 3
    assert method_on(held_out())[0].own.num_negatives == 1


def test_another_loss_is_refused():
    with pytest.raises(ConfigError, match="has a loss of its own"):
        compose.compose(["method=dsl", MODEL, "method.loss=bce"])


def test_what_is_kept_scores_as_what_was_judged(tmp_path, capsys):
    folder = tmp_path / "run"
    small = ["dataset.num_users=60", "dataset.num_items=40", "run.device=cpu", "evaluation.ks=[5,20]"]
    argv = ["train", "method=dsl", *FEW, f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *small]
    assert main([*argv, "method.dim=8", "run.max_epochs=2"]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["sparsity"]["live"] == 2 * 100
    assert result["sparsity"]["served_bytes"] == 5 * 2 * 100
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]["test"]
