"""Method dsl: what grows is what the whole gradient asks for, and it pays (papers/dsl section 5)."""

import json

import pytest
import torch
from cadc_helpers import held_out
from dsl_helpers import begun, dense_of, mask_of, step
from test_rewire import Given, by_force

from effrec_cli.app import main
from effrec_cli.data.batches import Share
from effrec_cli.methods.sparse.losses import loss_of
from effrec_cli.methods.sparse.network import tables_in
from effrec_cli.models.bpr_mf import BPRMF
from effrec_cli.models.sparse.rewire import Rule
from effrec_cli.models.sparse.tables import DenseTable, PackedTable, Shape


def dense_gradients(method, batch):
    """Returns the gradient of each whole table, by autograd on dense copies."""
    copies = [DenseTable(Shape(table.shape.rows, 12)) for table in tables_in(method.model).values()]
    for copy, table in zip(copies, tables_in(method.model).values(), strict=True):
        copy.table.data.copy_(dense_of(table))
    loss_of(BPRMF(*copies), batch, method.own).backward()
    return [copy.table.grad.to_dense() for copy in copies]


@pytest.mark.parametrize("structure", ["row", "global"])
def test_14_one_step_of_the_whole_batch_grows_what_rigl_does(structure):
    words = [
        "method.window=1",
        "method.turns=1",
        "method.update_every=1",
        "method.reg=0",
        "optimizer.lr=1e-12",
    ]
    method, batches, engine = begun(f"method.structure={structure}", "method.batch_size=4096", *words)
    assert batches.steps_per_epoch == 1
    before = [(dense_of(table), mask_of(table)) for table in tables_in(method.model).values()]
    gradients = dense_gradients(method, batches.batch(0, 0, Share(), 0))
    share = method._rewiring.plan.share(1)
    step(method, batches, engine)
    assert len(method._told) == 1
    for (dense, mask), gradient, table in zip(
        before, gradients, tables_in(method.model).values(), strict=True
    ):
        # Sums have eleven binary digits, so two that ask for as much to one in a thousand may change places.
        close = by_force(dense, mask, Given(gradient), Rule(share, within_rows=structure == "row"))
        assert (mask_of(table) != close).sum() <= 2


SMALL = [
    "dataset.num_users=400",
    "dataset.num_items=200",
    "dataset.interactions_per_user=25",
    "method.dim=32",
]
EASY = ["dataset.num_clusters=8", "dataset.follow=0", "dataset.drift=1", "dataset.session_length=1"]


def run(tmp_path, name, *words):
    folder = tmp_path / name
    where = [f"data_root={tmp_path / 'data'}", f"run.dir={folder}", "run.device=cpu"]
    assert main(["train", "method=dsl", *where, *SMALL, *EASY, *words]) == 0
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_21_numbers_that_move_beat_those_that_stay(seed, tmp_path):
    words = ["run.max_epochs=8", "run.validate_every=4", "optimizer.lr=0.003", f"seed={seed}"]
    moving, still = (
        run(tmp_path, mode, *words, f"method.mode={mode}", "method.density=0.125")
        for mode in ("dsl", "static")
    )
    assert moving["sparsity"]["served_bytes"] == still["sparsity"]["served_bytes"]
    scores = [one["metrics"]["test"]["ndcg@10"] for one in (moving, still)]
    assert scores[0] > 1.2 * scores[1]


def test_19_metrics_are_of_all_users_however_many_are_scored_at_once(tmp_path):
    found = [
        run(tmp_path, f"by{rows}", "run.max_epochs=1", f"evaluation.block_rows={rows}")["metrics"]
        for rows in (7, 400)
    ]
    assert found[0] == found[1]


def read_in_half(self, rows, honest=PackedTable.look_up):
    """Returns vectors of numbers rounded to bfloat16, whose gradients move the float32 ones."""
    found = honest(self, rows)
    return found + (found.bfloat16().float() - found).detach()


def places_after_an_epoch(seed, compute=torch.float32):
    """Returns which numbers are live after the first update, bool [all]."""
    words = ["method.dim=64", "method.update_every=1", "method.turns=1", "method.batch_size=256"]
    data = held_out(num_users=400, num_items=300)
    method, batches, engine = begun(*words, data=data, total_steps=1000, seed=seed)
    engine.autocast = lambda: torch.autocast("cpu", compute, enabled=compute != torch.float32)
    step(method, batches, engine, batches.steps_per_epoch)
    assert len(method._told) == 1
    assert all(table.weights.dtype == torch.float32 for table in tables_in(method.model).values())
    return torch.cat([mask_of(table) for table in tables_in(method.model).values()])


def test_22_half_precision_makes_the_same_decisions(monkeypatch):
    """Of numbers read in bfloat16, with float32 master and state; and of all products in bfloat16."""
    seeds = (1, 2, 3)
    full = torch.cat([places_after_an_epoch(seed) for seed in seeds])
    computed = torch.cat([places_after_an_epoch(seed, torch.bfloat16) for seed in seeds])
    monkeypatch.setattr(PackedTable, "look_up", read_in_half)
    read = torch.cat([places_after_an_epoch(seed) for seed in seeds])
    assert 0 < (full != read).float().mean() <= 0.001
    assert 0 < (full != computed).float().mean() <= 0.002
