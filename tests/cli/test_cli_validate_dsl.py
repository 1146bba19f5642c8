"""`effrec validate` of method dsl: tables are sized without being filled; memory is that of live numbers."""

import json

import pytest

from effrec_cli import compose
from effrec_cli.methods.dsl import DSL
from effrec_cli.standin import stand_in

SMALL = ["method=dsl", "dataset.num_users=40", "dataset.num_items=30", "dataset.num_clusters=3"]
RUNS = [
    "method.mode=dsl",
    "method.structure=global",
    "method.storage=masked",
    "method.mode=topk_anneal",
    "method.mode=dense",
    "method.mode=dense_small",
    "model=neumf method.layers=2of4",
    "model=dlrm",
    "model=two_tower",
    "model=ultragcn method.num_negatives=5",
    "model=lightgcn",
    "model=multvae model.hidden=8 model.latent=4",
    "model=sasrec model.dim=8",
    "model=bert4rec model.dim=8 method.loss=cce",
]


@pytest.mark.parametrize("words", RUNS)
def test_a_run_is_sized_without_being_built(effrec, words):
    asked = [*SMALL, *words.split()]
    done = effrec("validate", "--json", *asked)
    report = json.loads(done.out)
    assert done.code == 0, report
    config = compose.compose([*asked, "data_root=/nowhere", "run.device=cpu"])
    method = DSL(config)
    method.rehearses = True
    model = method.build(method.prepare(stand_in(30, "synthetic")))
    held = [*model.parameters(), *model.buffers()]
    assert report["parameters"]["all"] == sum(each.numel() for each in model.parameters())
    assert report["memory"]["weights"] == sum(each.nbytes for each in held)


@pytest.mark.parametrize(("structure", "more"), [("row", 0), ("global", 1)])
def test_memory_is_that_of_live_numbers_and_what_ranks_growth(effrec, structure, more):
    words = ["method.dim=64", "method.density=0.25", "method.turns=1", "method.batch_size=4"]
    done = effrec("validate", "--json", *SMALL, *words, f"method.structure={structure}")
    found = json.loads(done.out)
    rows = found["parameters"]["all"] // 16
    assert found["memory"]["weights"] == rows * 16 * 5 + more * 8 * (rows + 2)
    assert found["memory"]["optimizer"] == rows * 16 * 10 + rows * 64 * 2
    slots = 12 * (16 if more else 1)  # four users, and eight items
    assert found["memory"]["gradients"] == slots * (2 * 4 * (1 if more else 16) + 8)
