"""Task news: its loss adds up, its metrics are those of the scores, and it can be learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from news_helpers import data_of, ready_made, simulated, with_slates

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.data.source import TEST, TRAIN, VALID
from effrec_cli.data.types import Catalogue
from effrec_cli.distributed import World
from effrec_cli.errors import DataError, NonFiniteError
from effrec_cli.evaluation.impressions import METRICS, per_impression
from effrec_cli.methods.content.news import News
from effrec_cli.schema import Config
from effrec_cli.schema.dataset_synthetic import SyntheticConfig
from effrec_cli.schema.method_gram import GRAMConfig
from effrec_cli.schema.model_nrms import NRMSConfig

ALONE = World()


def task(*, batch_size=32, max_length=20, block_rows=None, data=None, **model):
    """Returns the task over the simulator's slates."""
    config = Config(
        dataset=SyntheticConfig(),
        model=NRMSConfig(**{"dropout": 0.0, "query_dim": 16, "max_length": max_length, **model}),
        method=GRAMConfig(batch_size=batch_size),
        seed=3,
    )
    config.evaluation.block_rows = block_rows
    return News(config, data or titled())


def titled():
    data = with_slates()
    titles = np.array([f"item {row}" for row in range(data.num_items)])
    return replace(data, items=Catalogue(data.items.ids, titles))


def made(news, dim=16, seed=0):
    """Returns a filter and a table of random vectors."""
    torch.manual_seed(seed)
    return news.filter(dim).eval(), torch.randn(news.num_items, dim)


def test_it_says_what_the_method_needs():
    news = task()
    assert (news.name, news.monitor, news.item_tensors) == ("news", "auc", ("history", "candidates"))
    assert len(news.contents) == news.num_items == len(news.train_counts)
    assert news.training_rows == news.batches().num_samples
    assert (news.train_counts == 0).any()


def test_an_open_batch_size_is_decided_and_said():
    news = task(batch_size=None)
    assert news.config.method.batch_size == news.batches().batch_size
    assert 50 < news.batches().steps_per_epoch < 200


def test_the_first_candidate_is_the_one_to_find():
    news = task()
    net, table = made(news)
    batch = news.batches().batch(0, 0, Share(), 0)
    tensors = batch.tensors
    scores = net(table, tensors["history"].clamp(min=0), tensors["lengths"], tensors["candidates"])
    expected = -scores.log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(news.loss(net, table, batch), expected)


@pytest.mark.parametrize(("ranks", "micros"), [(2, 1), (1, 4), (3, 2), (40, 1)])
def test_losses_and_gradients_of_the_shares_add_up(ranks, micros):
    news = task()
    torch.manual_seed(0)
    net = news.filter(12).double().eval()
    table = torch.randn(news.num_items, 12, dtype=torch.float64, requires_grad=True)

    def learnt(shares):
        total = torch.zeros((), dtype=torch.float64)
        net.zero_grad()
        table.grad = None
        for share in shares:
            part = news.loss(net, table, news.batches().batch(0, 2, share, 2))
            part.backward()
            total += part.detach()
        return [total, table.grad.clone(), *(weight.grad.clone() for weight in net.parameters())]

    shares = [Share(rank, ranks, micro, micros) for rank in range(ranks) for micro in range(micros)]
    for whole, parts in zip(learnt([Share()]), learnt(shares), strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)


def test_positions_may_stand_in_for_padding():
    news = task()
    net, table = made(news)
    batch = news.batches().batch(0, 1, Share(), 1)
    history = batch.tensors["history"]
    assert (history == PAD_ITEM).any()
    filled = {**batch.tensors, "history": torch.where(history == PAD_ITEM, 5, history)}
    torch.testing.assert_close(
        news.loss(net, table, replace(batch, tensors=filled)), news.loss(net, table, batch)
    )


def test_metrics_are_those_of_the_models_scores():
    news = task()
    net, table = made(news)
    shown, found = news.impressions, []
    for row in shown.of_part("test"):
        low, high = shown.offsets[row], shown.offsets[row + 1]
        past = shown.history_items[shown.history_start[row] : shown.history_end[row]][-20:]
        with torch.no_grad():
            scores = net(
                table,
                torch.from_numpy(past.astype(np.int64))[None] if len(past) else torch.zeros(1, 1).long(),
                torch.tensor([len(past)]),
                torch.from_numpy(shown.candidates[low:high].astype(np.int64))[None],
            )
        values, mixed = per_impression(
            scores[0], torch.from_numpy(shown.clicks[low:high]), torch.tensor([high - low])
        )
        found += values[mixed].tolist()
    judged = news.judge(net, table, "test", ALONE)
    assert [judged[name] for name in METRICS] == pytest.approx(np.mean(found, axis=0), abs=1e-6)
    assert {f"{name}_cold" for name in METRICS} <= set(judged)
    protocol = news.protocol()
    assert protocol["impressions"]["test"] == len(found)
    assert protocol["left_out"]["test"] == len(shown.of_part("test")) - len(found)


def test_neither_blocks_nor_ranks_change_a_metric(monkeypatch):
    news = task()
    net, table = made(news)
    whole = news.judge(net, table, "valid", ALONE)
    assert task(block_rows=7).judge(net, table, "valid", ALONE) == pytest.approx(whole, abs=1e-9)
    parts = []

    def kept(self, tensors):
        parts.append(tensors[0].clone())
        tensors[0].copy_(sum(parts))

    monkeypatch.setattr(World, "sum_", kept)
    monkeypatch.setattr("effrec_cli.methods.content.news._BLOCK_BYTES", 1 << 20)
    alone = task()
    of_one = alone.judge(net, table, "valid", ALONE)
    parts.clear()
    shares = [alone.judge(net, table, "valid", World(rank, 3)) for rank in range(3)]
    assert shares[-1] == of_one  # to the last bit: blocks are dealt whole
    judged = [int(part[0, -1]) for part in parts]
    assert sum(judged) == alone.protocol()["impressions"]["valid"]
    assert min(judged) > 0


def test_nan_is_refused():
    news = task()
    net, table = made(news)
    with pytest.raises(NonFiniteError):
        news.judge(net, table * torch.nan, "valid", ALONE)


def test_true_chances_are_the_ceiling_and_a_random_model_is_far_below():
    news = task()
    ceiling = news.ceiling("test")
    net, table = made(news)
    judged = news.judge(net, table, "test", ALONE)
    assert ceiling["auc"] > 0.7
    assert abs(judged["auc"] - 0.5) < 0.05
    assert all(judged[name] < ceiling[name] for name in METRICS)
    side = {name: array for name, array in news.data.side.items() if name != "impressions_chance"}
    assert task(data=replace(news.data, side=side)).ceiling("test") is None


def test_vectors_of_the_items_can_be_learned_through_it():
    news = task(batch_size=128)
    torch.manual_seed(0)
    net, table = news.filter(32), torch.nn.Parameter(torch.randn(news.num_items, 32) * 0.1)
    optimizer = torch.optim.Adam([table, *net.parameters()], lr=1e-2)
    losses = []
    for epoch in range(4):
        for position in range(news.batches().steps_per_epoch):
            loss = news.loss(net, table, news.batches().batch(epoch, position, Share(), 0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.1
    judged = news.judge(net.eval(), table.detach(), "test", ALONE)
    assert judged["auc"] > 0.6


def test_data_without_impressions_or_contents_are_refused():
    with pytest.raises(DataError, match="has no impressions"):
        task(data=data_of([[(0, 1)]], {}))
    data, _ = simulated()
    with pytest.raises(DataError, match="says nothing of its items"):
        task(data=data)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(("part", "name"), [(VALID, "valid"), (TEST, "test")])
def test_a_part_without_anything_to_judge_is_refused_before_training(part, name, label):
    mixed, alike = [(0, 1), (1, 0)], [(0, label), (1, label)]
    slates = [alike if each == part else mixed for each in (TRAIN, VALID, TEST)]
    data = ready_made([1, 2, 3], [TRAIN, VALID, TEST], slates, [[2], [2], [2]])
    with pytest.raises(DataError, match=f"No impression of the {name} part has both") as caught:
        task(data=data)
    assert "1 impressions" in str(caught.value)
    assert "fix: " in str(caught.value)
