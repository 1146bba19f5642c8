"""Method cce with gradients of rows: values, padding, when they are chosen, and what is refused."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from effrec_kernels import RowAdam
from test_cce import chain, make
from test_check import composed, refused

from effrec_cli import run
from effrec_cli.data.batches import Share
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.methods.cce import CCE
from effrec_cli.methods.next_item import row_sparse
from effrec_cli.runfolder import RunFolder
from effrec_cli.schema import Config, OptimizerConfig, check
from effrec_cli.schema.method_cce import CCEConfig
from effrec_cli.schema.model_bert4rec import BERT4RecConfig
from effrec_cli.schema.model_sasrec import SASRecConfig


def method(sparse, data=None, model=None, kind=SASRecConfig, **own):
    settings = {"dim": 16, "num_layers": 1, "max_length": 8, "dropout": 0.0, **(model or {})}
    own = {"num_negatives": 15, "batch_size": 16, "sharing": "tile", "tile_rows": 8, **own}
    config = Config(model=kind(**settings), method=CCEConfig(**own))
    config.optimizer.sparse_rows = sparse
    made = CCE(config)
    made.build(made.prepare(data or chain()))
    return made


def gradients(made, shares):
    batches = made.batches(made.data)
    for share in shares:
        made.loss(batches.batch(0, 0, share, step=3)).backward()
    return [parameter.grad for parameter in made.model.parameters()]


SPLIT = [Share(micro=at, micros=2) for at in range(2)]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shares", [[Share()], SPLIT], ids=["whole", "split"])
@pytest.mark.parametrize(
    "own",
    [
        *({"sharing": sharing} for sharing in ("tile", "sequence", "batch")),
        {"loss": "bce_sampled"},
        {"loss": "gbce", "sharing": "sequence"},
        {"loss": "gbce", "sampler": "popularity", "in_batch": 4},
        {"loss": "sce", "sharing": "row", "sce_items": 9},
    ],
)
def test_gradients_are_the_dense_ones(own, shares, packed):
    options = {**own, "model": {"packed": packed}}
    dense, rows = (gradients(method(sparse, **options), shares) for sparse in (False, True))
    assert rows[0].is_sparse
    for one, other in zip(dense, rows, strict=True):
        torch.testing.assert_close(other.to_dense(), one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("packed", [True, False])
def test_padding_touches_no_item(packed):
    """Windows of 1 to 10 items, padded with row 0, which no one reads or draws."""
    data = chain(num_items=4000)
    data.sequences.items[data.sequences.items == 0] = 1
    data.train_end[::2] -= 5
    made = method(True, data, {"max_length": 10, "packed": packed})
    batch = made.batches(data).batch(0, 0, Share(), step=3)
    assert (batch.tensors["lengths"] < batch.tensors["inputs"].shape[1]).any()
    made.loss(batch).backward()
    assert 0 not in made.model.items.weight.grad._indices()


def test_the_table_moves_by_rows_and_the_rest_as_ever():
    made = method(True)
    dense, rows = made.optimizers(made.model)
    assert type(dense) is torch.optim.Adam
    assert type(rows) is RowAdam
    table = made.model.item_embeddings
    assert [id(p) for group in rows.param_groups for p in group["params"]] == [id(table)]
    assert id(table) not in [id(p) for group in dense.param_groups for p in group["params"]]
    assert len(make().optimizers(make().model)) == 1


def slots_of_step(made, ranks, micros):
    """Returns how many rows a step reads, and its losses hold, on average; and how many are foretold."""
    batches, seen = made.batches(made.data), 0
    shares = [Share(rank, ranks, micro, micros) for rank in range(ranks) for micro in range(micros)]
    for position in range(batches.steps_per_epoch):
        for share in shares:
            rows = made._rows(batches.batch(0, position, share, step=position))
            made.model.zero_grad()
            made._loss(dataclasses.replace(rows, hidden=rows.hidden.detach())).backward()
            seen += made.model.item_embeddings.grad._nnz()
    made.config.run.accumulate, made.world = micros, World(size=ranks)
    (capacity,) = made.row_sparse(made.model).values()
    return (seen + batches.items_per_epoch) / batches.steps_per_epoch, capacity


@pytest.mark.parametrize("model", [SASRecConfig, BERT4RecConfig])
@pytest.mark.parametrize(("ranks", "micros"), [(1, 1), (2, 3)])
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"sharing": "sequence"},
        {"sharing": "batch", "loss": "gbce"},
        {"window": "last"},
        {"tile_rows": 3},
        {"loss": "sce", "sharing": "row", "sce_items": 9},
    ],
)
def test_rows_of_a_step_are_those_that_it_draws(model, ranks, micros, own):
    """Of tiles that are cut, each piece draws; how long tiles are, differs from step to step."""
    data = chain(num_users=90, num_items=200)
    data.train_end[::3] -= 3
    found, said = slots_of_step(method(True, data, kind=model, **own), ranks, micros)
    assert said == pytest.approx(found, rel=0.1 if ranks == 1 or "sharing" in own else 0.2)


@pytest.mark.parametrize(
    ("items", "own", "chosen"),
    [
        (4000, {}, True),
        (1000, {}, False),
        (4000, {"sharing": "row"}, False),
        (4000, {"loss": "ce_sampled"}, False),
        (4000, {"loss": "bce_sampled"}, True),
        (1000, {"loss": "gbce"}, False),
        (4000, {"loss": "gbce", "sharing": "row"}, False),
        (4000, {"loss": "sce", "sharing": "row", "sce_items": 8}, True),
        (4000, {"loss": "sce", "sharing": "row"}, False),
        (4000, {"kernel": "reference"}, False),
    ],
)
def test_rows_are_chosen_where_a_step_draws_few(items, own, chosen):
    made = method(None, chain(num_items=items), **own)
    assert made.config.optimizer.sparse_rows is chosen
    assert bool(made.row_sparse(made.model)) == chosen
    assert made.model.items.sparse == chosen
    if own == {}:
        assert (row_sparse.rows_of_step(made.config, made.batches(made.data), items) <= items / 4) == chosen


@pytest.mark.parametrize(
    ("items", "own", "why"),
    [
        (4000, {}, "true, for a step draws {rows:,} rows, no more than a quarter of 4,000 items"),
        (1000, {}, "false, for a step draws {rows:,} rows, more than a quarter of 1,000 items"),
        (4000, {"sharing": "row"}, "false, for true needs targets that share negatives: with their "
         "own, a step draws too many rows"),
    ],
)  # fmt: skip
def test_the_choice_and_why_are_told(items, own, why):
    made = method(None, chain(num_items=items), **own)
    rows = row_sparse.rows_of_step(made.config, made.batches(made.data), items)
    assert made.choices() == {"optimizer.sparse_rows": why.format(rows=rows)}
    assert method(False, chain(num_items=items), **own).choices() == {}


def test_a_run_that_goes_on_says_what_it_began_with():
    made = method(None)
    made.config.optimizer.sparse_rows = None
    made.recall({"sparse_rows": True})
    made.prepare(chain())
    assert made.config.optimizer.sparse_rows is True
    assert made.choices()["optimizer.sparse_rows"].startswith(
        "true, as the run began; chosen here: false, for "
    )


def test_rows_of_a_step_are_counted_once(monkeypatch):
    made, counted = method(True), []
    monkeypatch.setattr(row_sparse, "rows_of_step", lambda *_: counted.append(1) or 7)
    made.optimizers(made.model)
    assert list(made.row_sparse(made.model).values()) == [7]
    assert counted == [1]


def test_ranks_take_the_choices_of_the_first(tmp_path):
    """Theirs may be of another device; here the first sampled, and moves rows."""
    first = CCEConfig(loss="cce_sampled", sharing="tile", batch_size=16), OptimizerConfig(sparse_rows=True)
    world = SimpleNamespace(size=1, device=torch.device("cpu"), from_main=lambda own: first)
    own = CCEConfig(loss="auto", sharing="tile", batch_size=16, num_negatives=255)
    config = Config(model=SASRecConfig(dim=16), method=own)
    made = CCE(config, world)
    run._build(made, chain(), RunFolder(tmp_path))
    assert (own.loss, made.config.method.loss) == ("cce", "cce_sampled")
    assert made.model.items.sparse
    assert [type(one) for one in made.optimizers(made.model)] == [torch.optim.Adam, RowAdam]


def test_sgd_moves_all_rows():
    config = Config(model=SASRecConfig(dim=16), method=CCEConfig(sharing="tile", batch_size=16))
    config.optimizer.name = "sgd"
    made = CCE(config)
    made.prepare(chain(num_items=100_000))
    assert config.optimizer.sparse_rows is False


@pytest.mark.parametrize(
    "sections",
    [
        {"method": {"sharing": "row"}},
        {"method": {"sharing": "tile", "tile_rows": 1}},
        {"method": {"loss": "cce"}},
        {"method": {"loss": "ce_sampled", "sharing": "tile"}},
        {"method": {"loss": "bce"}},
        {"method": {"loss": "auto", "sharing": "tile"}},
        {"method": {"loss": "gbce"}},
        {"method": {"loss": "bce_sampled", "sharing": "tile", "kernel": "reference"}},
        {"method": {"loss": "sce", "kernel": "reference"}},
        {"method": {"loss": "sce"}, "optimizer": {"name": "sgd"}},
        {"method": {"sharing": "tile", "kernel": "reference"}},
        {"method": {"sharing": "tile"}, "optimizer": {"name": "sgd"}},
        {"method": {"name": "ease"}, "model": {"name": "none"}},
    ],
)
def test_what_cannot_be_rows_is_refused(sections):
    optimizer = {"sparse_rows": True, **sections.get("optimizer", {})}
    error = refused(composed(**{**sections, "optimizer": optimizer}))
    assert error.where == "optimizer.sparse_rows"
    assert error.fix
    check.build(composed(**{**sections, "optimizer": {**optimizer, "sparse_rows": None}}))


@pytest.mark.parametrize(
    ("loss", "why"),
    [("auto", "loss=auto may become cce, whose is dense"), ("ce", "that of loss=ce is dense")],
)
def test_the_refusal_says_what_is_dense(loss, why):
    error = refused(composed(method={"loss": loss}, optimizer={"sparse_rows": True}))
    assert error.what == f"sparse_rows=true needs a loss whose gradient is rows; {why}."


@pytest.mark.parametrize(
    "own", [{"sharing": "tile"}, {"loss": "gbce", "sharing": "batch"}, {"loss": "sce"}], ids=str
)
def test_rows_may_be_asked_for(own):
    config = check.build(composed(method=own, optimizer={"sparse_rows": True}))
    assert config.optimizer.sparse_rows is True


@pytest.mark.parametrize(
    "own",
    [{"loss": "bce_sampled"}, {"loss": "gbce", "sharing": "batch"}, {"loss": "sce", "sharing": "row"}],
    ids=str,
)
def test_training_is_that_of_dense_adam_where_every_row_is_drawn(own):
    """Six items and as many negatives as draw them all, for 20 steps."""
    own = {"num_negatives": 200, "sce_items": 6, **own}
    ends = []
    for sparse in (False, True):
        made = method(sparse, chain(num_items=6), **own)
        batches, optimizers = made.batches(made.data), made.optimizers(made.model)
        before = made.model.item_embeddings.detach().clone()
        for step in range(20):
            epoch, position = divmod(step, batches.steps_per_epoch)
            made.model.zero_grad()
            made.loss(batches.batch(epoch, position, Share(), step)).backward()
            for optimizer in optimizers:
                optimizer.step()
        ends.append(made.model.item_embeddings.detach())
    assert (ends[0] - before).abs().max() > 0.01
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


def test_a_model_without_such_a_look_up_is_refused(monkeypatch):
    monkeypatch.setattr(row_sparse, "model_for", lambda task, name: object)
    with pytest.raises(ConfigError, match="look-up") as caught:
        method(True)
    assert caught.value.where == "optimizer.sparse_rows"
    assert method(None, chain(num_items=4000)).config.optimizer.sparse_rows is False
