"""Task knowledge_tracing: its loss adds up, its judgement is one for all ranks, and it learns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tracing_helpers import epoch_of, make_data, settings, simulated

from effrec_cli.data.batches import PAD_ITEM, Share
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError, DataError, NonFiniteError
from effrec_cli.evaluation.auc import auc, log_loss
from effrec_cli.methods.content.tracing import KnowledgeTracing
from effrec_cli.schema.model_dkt import DKTConfig
from effrec_cli.schema.model_dkt_transformer import TransformerDKTConfig

MODELS = [DKTConfig(max_length=8, dropout=0.0), TransformerDKTConfig(max_length=8, dropout=0.0)]
EACH = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
WIDTH = 6


def task_of(model=MODELS[0], data=None, **options):
    return KnowledgeTracing(settings(model, **options), data or make_data())


def filter_of(task, width=WIDTH):
    torch.manual_seed(0)
    return task.filter(width).double()


def table_of(task, width=WIDTH):
    rng = torch.Generator().manual_seed(2)
    return torch.randn(task.num_items, width, dtype=torch.float64, generator=rng)


def positions(batch, stand_in=0):
    """The batch as a method hands it on: positions for rows, here the same, any of them for padding."""
    items = batch.tensors["items"]
    return replace(batch, tensors={**batch.tensors, "items": items.masked_fill(items == PAD_ITEM, stand_in)})


def gradient(task, batches, stand_in=0):
    """The summed loss of some batches and its gradient by the table and all weights."""
    filter, table = filter_of(task), table_of(task).requires_grad_()
    loss = sum(task.loss(filter, table, positions(batch, stand_in)) for batch in batches)
    loss.backward()
    return torch.cat(
        [loss.detach()[None], table.grad.flatten(), *(p.grad.flatten() for p in filter.parameters())]
    )


@EACH
@pytest.mark.parametrize(("ranks", "micros"), [(1, 3), (2, 2), (4, 1)])
def test_ranks_and_micro_batches_add_up_to_the_whole_step(model, ranks, micros):
    task = task_of(model)
    batches = task.batches()
    whole = gradient(task, [batches.batch(0, 1, Share(), 1)])
    shares = [Share(rank, ranks, micro, micros) for rank in range(ranks) for micro in range(micros)]
    parts = gradient(task, [batches.batch(0, 1, share, 1) for share in shares])
    assert torch.allclose(whole, parts, rtol=0, atol=1e-12)


@EACH
def test_what_stands_for_padding_changes_neither_loss_nor_gradient(model):
    task = task_of(model)
    batches = [task.batches().batch(0, 0, Share(), 0)]
    assert torch.allclose(gradient(task, batches, 0), gradient(task, batches, 7), rtol=0, atol=1e-12)


def test_the_loss_is_the_mean_cross_entropy_of_the_targets():
    task = task_of()
    batch = task.batches().batch(0, 0, Share(), 0)
    filter, table = filter_of(task), table_of(task)
    tensors = positions(batch).tensors
    logits = filter(table, tensors["items"], tensors["correct"], tensors["lengths"]).flatten()
    expected = log_loss(logits[batch.tensors["valid"]].detach().numpy(), batch.tensors["labels"].numpy())
    assert task.loss(filter, table, positions(batch)).item() == pytest.approx(expected, abs=1e-12)


@EACH
@pytest.mark.parametrize("part", ["valid", "test"])
def test_every_held_out_answer_is_judged_from_the_whole_past(model, part):
    """With windows as long as any history, the logits are those of one pass over each user's answers."""
    model = replace(model, max_length=64)
    task = task_of(model)
    filter, table, answers = filter_of(task).eval(), table_of(task), task.answers
    logits = np.empty(len(answers))
    for start, end in zip(answers.offsets[:-1], answers.offsets[1:], strict=True):
        items = torch.from_numpy(answers.items[start:end].astype(np.int64))[None]
        correct = torch.from_numpy(answers.correct[start:end].astype(np.int64))[None]
        if end > start:
            logits[start:end] = filter(table, items, correct, torch.tensor([end - start])).detach()[0]
    held, cold = answers.of_part(part), task.train_counts == 0
    found = task.judge(filter, table, part, World())
    assert found["auc"] == pytest.approx(auc(logits[held], answers.correct[held]), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(logits[held], answers.correct[held]), abs=1e-9)
    new = held[cold[answers.items[held]]]
    assert 0 < len(new) < len(held)
    assert found["auc_cold"] == pytest.approx(auc(logits[new], answers.correct[new]), abs=1e-12)
    assert ("auc_low" in found) == (part == "test")


def test_without_cold_items_there_is_no_auc_of_them():
    data = make_data([30] * 20)
    task = KnowledgeTracing(settings(cold_item_share=0), data)
    assert "auc_cold" not in task.judge(filter_of(task).eval(), table_of(task), "test", World())


def one_rank(rank, folder, world_size):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    Path(folder, f"{rank}.json").write_text(json.dumps(judged(World(rank, world_size))))
    dist.destroy_process_group()


def judged(world):
    """Metrics of a model over data of two blocks, and of one, of which the other rank has none."""
    found = []
    for sizes in ([30] * 60, [30] * 3):
        task = task_of(data=make_data(sizes))
        found.append(task.judge(filter_of(task).eval(), table_of(task), "test", world))
    return found


def test_two_ranks_find_what_one_process_finds(tmp_path):
    torch.multiprocessing.spawn(one_rank, (str(tmp_path), 2), nprocs=2)
    alone = judged(World())
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_a_logit_that_is_no_number_is_an_error():
    task = task_of()
    with pytest.raises(NonFiniteError, match="not a number"):
        task.judge(filter_of(task).eval(), torch.full_like(table_of(task), torch.nan), "valid", World())


def test_the_simulator_knows_the_ceiling_and_other_data_do_not():
    task = task_of(data=simulated())
    ceiling = task.ceiling("test")
    assert ceiling.keys() == {"auc", "auc_cold", "accuracy", "log_loss"}
    assert 0.65 < ceiling["auc"] < 0.95
    assert task_of().ceiling("test") is None


@EACH
def test_it_learns_the_simulated_answers_and_stays_below_the_ceiling(model):
    """Over vectors that are trained with it, as an encoder's would be."""
    model = replace(model, max_length=32, dropout=0.1)
    task = task_of(model, simulated(), batch_size=16, test_share=0.1, valid_share=0.1, cold_item_share=0.05)
    torch.manual_seed(3)
    table = torch.nn.Parameter(0.3 * torch.randn(task.num_items, 32))
    filter, batches = task.filter(32), task.batches()
    before = task.judge(filter.eval(), table.detach(), "test", World())["auc"]
    optimizer = torch.optim.Adam([table, *filter.parameters()], lr=1e-3)
    filter.train()
    for epoch in range(12):
        for batch in epoch_of(batches, epoch):
            optimizer.zero_grad()
            task.loss(filter, table, positions(batch)).backward()
            optimizer.step()
    after = task.judge(filter.eval(), table.detach(), "test", World())["auc"]
    assert before < 0.6
    assert 0.64 < after < task.ceiling("test")["auc"] + 0.01


def test_what_the_settings_leave_open_is_chosen_and_written_down():
    task = task_of(batch_size=None)
    assert task.config.method.batch_size == 16
    assert task.training_rows == task.train_counts.sum() == task.batches().targets_per_epoch
    assert (task.name, task.monitor, task.item_tensors) == ("knowledge_tracing", "auc", ("items",))


def test_the_protocol_tells_parts_and_cold_items():
    stamp = task_of().protocol()
    assert stamp["parts"] == {"last_of_each_user": {"test_share": 0.2, "valid_share": 0.2}}
    assert stamp["cold_items"] == {"share": 0.2, "seed": 42}
    assert stamp != task_of(cold_item_share=0.1).protocol()


def test_heads_that_do_not_divide_the_vectors_are_refused():
    with pytest.raises(ConfigError, match="do not divide into 2 heads"):
        task_of(MODELS[1]).filter(7)


@pytest.mark.parametrize("label", [0, 1])
def test_a_part_of_one_kind_is_an_error(label):
    correct = np.full(200, label, dtype=np.uint8)
    with pytest.raises(DataError, match="of the valid part are " + ("right" if label else "wrong")):
        task_of(data=make_data([20] * 10, answers_correct=correct))
