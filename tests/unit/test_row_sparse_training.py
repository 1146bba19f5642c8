"""Row-sparse gradients in the engine: norm, clipping, flag, accumulation, checkpoints, memory, settings."""

import sys
from pathlib import Path

import pytest
import torch
from effrec_kernels import RowAdam

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from toy import RowsMethod, make_config, make_engine

from effrec_cli.data.batches import Share
from effrec_cli.loop import primitives
from effrec_cli.optim import make_optimizers
from effrec_cli.schema import OptimizerConfig
from effrec_cli.tensorfile import read_tensors


class Dense(RowsMethod):
    sparse = False


@pytest.fixture(params=["as on a CPU", "as on a GPU"])
def slots(request, monkeypatch):
    """On a GPU coalesced gradients keep their slots, unused ones among them."""
    if request.param == "as on a GPU":
        ours = primitives.coalesce
        monkeypatch.setattr(
            primitives, "coalesce", lambda one, compact=None: ours(one, compact=bool(compact))
        )


def first_step(path, kind, **settings):
    config = make_config(**settings)
    engine = make_engine(path, config, method=kind(config))
    for micro in range(config.run.accumulate):
        engine.last_micro_batch = False
        engine.method.training_step(engine.batches.batch(0, micro, Share(), 0), engine)
    engine.reduce()
    norm = engine.clip()
    engine.check(norm)
    return engine, norm


def table(engine):
    return engine.method.model["table"].weight


@pytest.mark.parametrize("accumulate", [1, 2])
def test_norm_and_clipping_are_those_of_dense_gradients(tmp_path, slots, accumulate):
    settings = {"run__clip_norm": 0.01, "run__accumulate": accumulate}
    rows, norm = first_step(tmp_path / "rows", RowsMethod, **settings)
    dense, true = first_step(tmp_path / "dense", Dense, **settings)
    torch.testing.assert_close(norm, true, rtol=1e-5, atol=0)
    assert norm > 0.01
    gradient = table(rows).grad
    held = torch.zeros(len(table(rows)) + 1, 8).index_add_(0, gradient._indices()[0], gradient._values())
    torch.testing.assert_close(held[:-1], table(dense).grad, rtol=1e-5, atol=1e-9)


def test_only_drawn_rows_move(tmp_path, slots):
    engine, _ = first_step(tmp_path, RowsMethod)
    before = table(engine).detach().clone()
    drawn = set(table(engine).grad._indices()[0].tolist()) - {len(before)}
    engine.step()
    engine.zero()
    assert set((table(engine) != before).any(1).nonzero().flatten().tolist()) == drawn
    assert len(drawn) < len(before)
    assert table(engine).grad is None


def test_a_bad_number_bars_the_step(tmp_path, slots):
    engine, _ = first_step(tmp_path, RowsMethod)
    before = {name: one.clone() for name, one in engine.method.state_dict().items()}
    table(engine).grad._values()[0, 0] = float("nan")
    engine.check(engine.clip())
    engine.step()
    assert all(torch.equal(one, before[name]) for name, one in engine.method.state_dict().items())
    assert engine.guard.failure().cause == "gradient"


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    settings = {"run__checkpoint_every_steps": 3, "run__clip_norm": 0.5, "run__accumulate": 2}

    def trained(path, **more):
        config = make_config(**{**settings, **more})
        engine = make_engine(path, config, method=RowsMethod(config))
        engine.loop()
        engine.folder.close()
        return engine

    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", run__max_steps=7)
    parts = trained(tmp_path / "parts")
    assert whole.steps == parts.steps == 12
    for name, tensor in whole.method.state_dict().items():
        assert torch.equal(tensor, parts.method.state_dict()[name]), name
    newest = max((tmp_path / "parts" / "checkpoints").iterdir())
    kept, _ = read_tensors(newest / "optimizers.safetensors")
    sizes = {name: tuple(one.shape) for name, one in kept.items() if name.startswith("1.")}
    assert sizes == {"1.0.exp_avg": (50, 8), "1.0.exp_avg_sq": (50, 8), "1.0.row_steps": (50,)}
    for name, one in whole.optimizers[1].state[table(whole)].items():
        assert torch.equal(one, kept[f"1.0.{name}"]), name


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_tables_of_rows_get_an_adam_of_rows(name):
    config = OptimizerConfig(name=name, lr=0.1, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.2)
    large, other = torch.nn.Parameter(torch.ones(9, 2)), torch.nn.Parameter(torch.ones(3, 3))
    dense, rows = make_optimizers([large, other], config, {large: 4})
    assert type(dense) is {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    assert type(rows) is RowAdam
    (group,) = rows.param_groups
    assert group.pop("params") == [large]
    wanted = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2}
    assert group == wanted | {"decoupled": name == "adamw", "slot_steps": False}
    assert [p for group in dense.param_groups for p in group["params"]] == [other]
    (alone,) = make_optimizers([large], config, {large: 4})
    assert type(alone) is RowAdam
