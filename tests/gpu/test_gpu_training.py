"""Training on a GPU: it learns in bf16, resumes, moves to a CPU, never waits inside a step, and is costed."""

import pytest
import torch

pytest.importorskip("rich", reason="a run's progress needs rich")
pytest.importorskip("yaml", reason="a run's settings are kept as YAML")

from gpu_runs import BrokenOff, break_off_at, elsewhere, make_config

from effrec_cli.engine import Engine
from effrec_cli.run import run
from effrec_cli.tensorfile import read_tensors

pytestmark = pytest.mark.gpu


def weights(folder):
    return read_tensors(folder / "model.safetensors")[0]


def test_a_run_learns_in_bf16_and_says_what_it_cost(gpu, tmp_path):
    found = run(make_config(tmp_path / "run", lr=1e-2, max_epochs=16), [])
    untrained = run(make_config(tmp_path / "untrained", max_epochs=1, max_steps=1), [])
    assert found.precision == "bf16"
    assert found.device["kind"] == "cuda"
    assert found.metrics["test"]["ndcg@10"] > 2 * untrained.metrics["test"]["ndcg@10"]
    assert found.metrics["test"]["ndcg@10"] > 0.4 * found.ceiling["ndcg@10"]
    cost = found.cost
    assert cost.memory_kind == "cuda_allocated"
    table_and_states = 4 * 4 * cost.parameters.all
    assert table_and_states < cost.peak_memory_bytes < torch.cuda.get_device_properties(gpu).total_memory
    assert cost.seconds_total > cost.seconds_per_epoch > 0
    assert cost.joules is None or cost.joules > 0


def test_broken_off_run_goes_on_to_the_same_end(gpu, tmp_path, monkeypatch):
    options = {"precision": "fp32", "checkpoint_every_steps": 5}
    whole = run(make_config(tmp_path / "whole", **options), [])
    part = make_config(tmp_path / "part", **options)
    break_off_at(monkeypatch, 18)
    with pytest.raises(BrokenOff):
        run(part, [])
    monkeypatch.undo()
    resumed = run(elsewhere(part, "cuda"), [])
    assert resumed.metrics["test"]["ndcg@10"] == pytest.approx(whole.metrics["test"]["ndcg@10"], abs=0.02)
    ended, expected = weights(tmp_path / "part"), weights(tmp_path / "whole")
    for name, tensor in expected.items():
        assert (ended[name] - tensor).norm() <= 0.05 * tensor.norm(), name


def test_deterministic_runs_end_with_the_same_weights(gpu, tmp_path):
    for name in ("one", "two"):
        run(make_config(tmp_path / name, max_epochs=2, deterministic=True), [])
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_run_moves_between_devices(gpu, tmp_path, monkeypatch, first, then):
    config = make_config(tmp_path / "run", device=first, precision="fp32", checkpoint_every_steps=5)
    break_off_at(monkeypatch, 18)
    with pytest.raises(BrokenOff):
        run(config, [])
    monkeypatch.undo()
    moved = run(elsewhere(config, then), [])
    stayed = run(make_config(tmp_path / "stayed", device=then, precision="fp32"), [])
    assert moved.device["kind"] == then
    assert moved.metrics["test"]["ndcg@10"] == pytest.approx(stayed.metrics["test"]["ndcg@10"], abs=0.02)


def test_no_step_waits_for_the_gpu(gpu, tmp_path, monkeypatch):
    train_step = Engine._train_step
    watched = []

    def strict(engine, feeder):
        # Steps inside an epoch: the clocks at its ends wait on purpose.
        inside = 0 < engine.steps % engine.steps_per_epoch < engine.steps_per_epoch - 1
        torch.cuda.set_sync_debug_mode("error" if inside else "default")
        try:
            train_step(engine, feeder)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        watched.append(inside)

    monkeypatch.setattr(Engine, "_train_step", strict)
    # ce_sampled is left out: as the paper writes it, it selects rows by a mask, which waits.
    for loss in ("cce_sampled", "cce", "gbce", "ce"):
        config = make_config(tmp_path / loss, max_epochs=2, log_every=1000)
        config.method.loss = loss
        run(config, [])
    assert sum(watched) >= 8


def test_sync_check_would_notice_a_wait(gpu):
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.ones(3, device=gpu).sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
