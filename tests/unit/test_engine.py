"""The loop: when it stops, what it records, what it does with gradients, and with numbers that are none."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from toy import ToyBatches, ToyMethod, make_config, make_engine, run

from effrec_cli import checkpoint
from effrec_cli.errors import ConfigError, DataError, Interrupted, NonFiniteError, OutOfMemoryError
from effrec_cli.tensorfile import read_tensors


def metrics(folder, kind=None):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if kind in (None, record["kind"])]


def weights(engine):
    return {name: tensor.clone() for name, tensor in engine.method.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


class Scripted:
    """Validation scores told beforehand."""

    def __init__(self, *scores):
        self.scores = list(scores)

    def __call__(self):
        return {"ndcg@10": self.scores.pop(0)}


# Limits, patience, the best.


@pytest.mark.parametrize(
    ("settings", "reason", "steps", "validations"),
    [
        ({"run__max_epochs": 3}, "max_epochs", 12, [4, 8, 12]),
        ({"run__max_epochs": 3, "run__validate_every": 2}, "max_epochs", 12, [8, 12]),
        ({"run__max_epochs": 9, "run__max_steps": 6}, "max_steps", 6, [4, 6]),
        ({"run__max_epochs": 2, "run__max_steps": 8}, "max_epochs", 8, [4, 8]),
        ({"run__max_epochs": 0}, "max_epochs", 0, [0]),
        ({"run__max_epochs": 9, "run__max_minutes": 1e-9}, "max_minutes", 1, [1]),
    ],
)
def test_a_limit_ends_it_with_a_last_validation(tmp_path, settings, reason, steps, validations):
    engine = run(tmp_path, **settings)
    assert (engine.stopped, engine.steps) == (reason, steps)
    assert [record["step"] for record in metrics(tmp_path, "valid")] == validations
    assert engine.epochs == steps // 4


def test_minutes_add_up_over_interruptions(tmp_path):
    config = make_config(run__max_minutes=1.0)
    engine = make_engine(tmp_path, config)
    engine.elapsed_before_s = 59.0
    engine._save()
    engine.folder.close()
    resumed = make_engine(tmp_path, make_config(run__max_minutes=59 / 60))
    resumed.loop()
    assert (resumed.stopped, resumed.steps) == ("max_minutes", 0)


def test_patience_ends_it_and_the_best_weights_come_back(tmp_path):
    config = make_config(run__max_epochs=9, run__patience=2)
    kept = []
    scores = Scripted(0.1, 0.3, 0.3, 0.2)

    def validate():
        kept.append(weights(engine))
        return scores()

    engine = make_engine(tmp_path, config, validate=validate)
    engine.loop()
    assert engine.stopped == "patience"
    assert engine.steps == 16
    assert engine.best_metrics == {"ndcg@10": 0.3}
    assert not same(weights(engine), kept[1])
    engine.restore_best()
    assert same(weights(engine), kept[1]), "an equal score is no improvement"


def test_patience_and_the_best_weights_outlive_the_process(tmp_path):
    config = make_config(run__max_epochs=3, run__patience=3)
    first = make_engine(tmp_path, config, validate=Scripted(0.5, 0.2, 0.1))
    first.loop()
    first.restore_best()
    first.folder.close()
    later = make_engine(
        tmp_path, make_config(run__max_epochs=9, run__patience=3), validate=Scripted(0.4, 0.9)
    )
    later.loop()
    assert (later.stopped, later.steps) == ("patience", 16)
    later.restore_best()
    assert same(weights(later), weights(first))


def test_an_unknown_monitor_names_the_nearest_and_loses_nothing(tmp_path):
    engine = make_engine(tmp_path, make_config(evaluation__monitor="ndgc@10"))
    with pytest.raises(ConfigError) as caught:
        engine.loop()
    assert caught.value.nearest == "ndcg@10"
    assert caught.value.where == "evaluation.monitor"
    assert checkpoint.load(tmp_path / "checkpoints").state["steps"] == 4
    engine.folder.close()
    whole = run(tmp_path / "whole")
    assert same(weights(run(tmp_path)), weights(whole))


def test_a_monitor_that_is_not_finite_is_an_error(tmp_path):
    engine = make_engine(tmp_path, make_config(), validate=Scripted(float("nan")))
    with pytest.raises(NonFiniteError, match="ndcg@10 is nan"):
        engine.loop()


def test_nothing_to_train_on_is_a_data_error(tmp_path):
    batches = ToyBatches(num_samples=0)
    with pytest.raises(DataError, match="nothing to train on"):
        make_engine(tmp_path, make_config(), batches=batches).loop()


# Steps.


def test_it_learns(tmp_path):
    run(tmp_path, run__max_epochs=40)
    scores = [record["ndcg@10"] for record in metrics(tmp_path, "valid")]
    assert scores[-1] > scores[0] + 0.2


def test_training_records_are_means_of_whole_steps(tmp_path):
    seen = []

    class Listening(ToyMethod):
        dropout = 0.0

        def training_step(self, batch, engine):
            found = super().training_step(batch, engine)
            seen.append(found["loss"].item())
            return found

    config = make_config(run__max_epochs=1, run__log_every=2, run__accumulate=2)
    make_engine(tmp_path, config, method=Listening(config)).loop()
    records = metrics(tmp_path, "train")
    assert [record["step"] for record in records] == [2, 4]
    assert records[0]["loss"] == pytest.approx(sum(seen[:4]) / 2)
    assert records[1]["loss"] == pytest.approx(sum(seen[4:]) / 2)


@pytest.mark.parametrize("micros", [2, 3, 9])
def test_micro_batches_of_any_number_equal_one_batch(tmp_path, micros):
    """Also with more micro-batches than samples, where some are empty."""

    class Dry(ToyMethod):
        dropout = 0.0

    results = []
    for accumulate in (1, micros):
        config = make_config(run__accumulate=accumulate, run__clip_norm=0.3)
        engine = make_engine(tmp_path / str(accumulate), config, method=Dry(config))
        engine.loop()
        results.append(weights(engine))
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_each_groups_rate_follows_the_schedule_from_its_own_start(tmp_path):
    rates = []

    class Two(ToyMethod):
        def training_step(self, batch, engine):
            rates.append([group["lr"] for one in engine.optimizers for group in one.param_groups])
            return super().training_step(batch, engine)

    config = make_config(optimizer__warmup_steps=4, optimizer__lr=0.01, run__max_epochs=2)
    method = Two(config)
    model = method.build()
    optimizers = [
        torch.optim.Adam(model[0].parameters(), lr=0.01),
        torch.optim.SGD(model[4].parameters(), lr=0.5),
    ]
    make_engine(tmp_path, config, method=method, optimizers=optimizers).loop()
    assert [rate[0] for rate in rates[:5]] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert [rate[1] for rate in rates[:5]] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])


def test_clipping_is_joint_over_optimizers(tmp_path):
    config = make_config(run__clip_norm=1.0)
    model = nn.ParameterList([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))])
    method = ToyMethod(config)
    method.model = model
    optimizers = [torch.optim.SGD([parameter], lr=1.0) for parameter in model]
    engine = make_engine(tmp_path, config, method=method, optimizers=optimizers)
    model[0].grad, model[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert engine.clip().item() == pytest.approx(5.0)
    engine.step()
    assert model[0].tolist() == pytest.approx([-0.6, 0.0])
    assert model[1].tolist() == pytest.approx([-0.8])


def test_a_sparse_gradient_is_clipped_by_its_rows_added_up(tmp_path):
    config = make_config(run__clip_norm=1.0)
    table = nn.Embedding(5, 1, sparse=True)
    nn.init.zeros_(table.weight)
    method = ToyMethod(config)
    method.model = table
    engine = make_engine(
        tmp_path, config, method=method, optimizers=[torch.optim.SGD(table.parameters(), lr=1.0)]
    )
    engine.backward((table(torch.tensor([1, 1, 3])).flatten() * torch.tensor([1.0, 2.0, 4.0])).sum())
    assert engine.clip().item() == pytest.approx(5.0)
    engine.step()
    assert table.weight.flatten().tolist() == pytest.approx([0.0, -0.6, 0.0, -0.8, 0.0])


def test_seeds_differ_between_steps_and_parts_but_not_between_runs(tmp_path):
    def draws(folder, **settings):
        drawn = []

        class Drawing(ToyMethod):
            def training_step(self, batch, engine):
                drawn.append(torch.rand(()).item())
                return super().training_step(batch, engine)

        config = make_config(run__accumulate=2, **settings)
        make_engine(folder, config, method=Drawing(config)).loop()
        return drawn

    first = draws(tmp_path / "1")
    assert len(set(first)) == 24
    assert draws(tmp_path / "2") == first
    assert not set(draws(tmp_path / "3", seed=2)) & set(first)


def test_the_model_trains_in_training_mode_and_is_judged_in_evaluation_mode(tmp_path):
    modes = []

    class Watching(ToyMethod):
        def training_step(self, batch, engine):
            modes.append(("train", self.model.training, torch.is_grad_enabled()))
            return super().training_step(batch, engine)

        def score(self):
            modes.append(("valid", self.model.training, torch.is_grad_enabled()))
            return super().score()

    config = make_config()
    make_engine(tmp_path, config, method=Watching(config)).loop()
    assert set(modes) == {("train", True, True), ("valid", False, False)}


def test_a_compiled_model_keeps_its_names(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    engine = run(tmp_path, run__compile=True)
    assert compiled == [engine.method.model]
    assert "0.weight" in engine.method.state_dict()


def test_what_a_method_keeps_beside_tensors_comes_back(tmp_path):
    class Counting(ToyMethod):
        count = 0

        def extra_state(self):
            return {"count": self.count}

        def load_extra_state(self, state):
            self.count = state["count"]

    config = make_config(run__max_epochs=1)
    method = Counting(config)
    method.count = 41
    engine = make_engine(tmp_path, config, method=method)
    engine.loop()
    engine.folder.close()
    again = Counting(config)
    make_engine(tmp_path, config, method=again)
    assert again.count == 41


# Precision.


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_computes_in_it_and_keeps_fp32_weights(tmp_path, precision):
    dtypes = set()

    class Watching(ToyMethod):
        def loss(self, batch):
            dtypes.add(self.model(batch.tensors["x"]).dtype)
            return super().loss(batch)

    config = make_config(run__precision=precision, run__max_epochs=20)
    engine = make_engine(tmp_path, config, method=Watching(config))
    engine.loop()
    assert dtypes == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert {parameter.dtype for parameter in engine.method.model.parameters()} == {torch.float32}
    scores = [record["ndcg@10"] for record in metrics(tmp_path, "valid")]
    assert scores[-1] > scores[0]


def test_auto_is_fp32_on_a_cpu(tmp_path):
    assert make_engine(tmp_path, make_config()).precision == "fp32"


class Overflowing(ToyMethod):
    """Overflows at chosen steps, as fp16 does when the scale is too large."""

    steps = ()

    def loss(self, batch):
        loss = super().loss(batch)
        return loss * float("inf") if batch.step in self.steps else loss


def test_fp16_skips_an_overflowing_step_and_halves_its_scale(tmp_path):
    config = make_config(run__precision="fp16", run__max_steps=4)
    method = Overflowing(config)
    method.steps = (1,)
    before = []
    engine = make_engine(tmp_path, config, method=method)
    engine.scaler.scale.fill_(2.0**8)
    original = method.training_step
    method.training_step = lambda batch, engine: (before.append(weights(engine)), original(batch, engine))[1]
    engine.loop()
    assert same(before[1], before[2]), "the step that overflowed moved nothing"
    assert not same(before[2], before[3])
    assert engine.scaler.scale.item() == 2.0**7
    assert engine.stopped == "max_steps"


def test_fp16_whose_scale_runs_out_is_an_error(tmp_path):
    config = make_config(run__precision="fp16", run__max_epochs=20)
    method = Overflowing(config)
    method.steps = range(5, 1000)
    engine = make_engine(tmp_path, config, method=method)
    engine.scaler.scale.fill_(2.0**8)
    with pytest.raises(NonFiniteError, match="loss is not finite at step 26"):
        engine.loop()


def test_fp16_scale_grows_after_many_good_steps():
    from effrec_cli.precision import LossScaler

    scaler = LossScaler(torch.device("cpu"))
    for _ in range(scaler.INTERVAL - 1):
        scaler.update(torch.tensor(False))
    assert scaler.scale.item() == 2.0**16
    scaler.update(torch.tensor(False))
    assert scaler.state() == {"scale": 2.0**17, "good_steps": 0}
    other = LossScaler(torch.device("cpu"))
    other.load(json.loads(json.dumps(scaler.state())))
    assert other.state() == scaler.state()


def test_fp16_follows_the_rules_of_gradscaler():
    from effrec_cli.precision import LossScaler

    ours = LossScaler(torch.device("cpu"))
    theirs = torch.amp.GradScaler("cpu")
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        bad = torch.rand((), generator=generator) < 0.3
        theirs.scale(torch.ones(()))
        parameter.grad = torch.where(bad, torch.inf, torch.ones(1))
        theirs.step(optimizer)
        theirs.update()
        ours.update(bad)
        assert ours.scale.item() == theirs.get_scale()


# Numbers that are none.


class Poisoned(ToyMethod):
    """Makes the loss or only the gradient NaN at one step."""

    at, what, micro = 6, "loss", 0

    def training_step(self, batch, engine):
        self.now = batch.step == self.at and (self.micro == 0 or engine.last_micro_batch)
        return super().training_step(batch, engine)

    def loss(self, batch):
        loss = super().loss(batch)
        if not self.now:
            return loss
        if self.what == "loss":
            return loss * float("nan")
        weight = self.model[0].weight
        return loss + (weight - weight.detach()).abs().sum().sqrt()  # 0, with an infinite slope


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_a_number_that_is_none_stops_it_before_it_spreads(tmp_path, what, log_every):
    config = make_config(run__log_every=log_every, run__accumulate=2)
    method = Poisoned(config)
    method.what, method.micro = what, 1
    engine = make_engine(tmp_path, config, method=method)
    with pytest.raises(NonFiniteError) as caught:
        engine.loop()
    assert caught.value.exit_code == 5
    assert f"The {what} is not finite at step 6" in caught.value.what
    assert "epoch 2, position 2" in caught.value.where
    assert all(torch.isfinite(tensor).all() for tensor in weights(engine).values())
    assert checkpoint.load(tmp_path / "checkpoints").state["steps"] == 4, "the last good one stays"


def test_the_failing_step_can_be_run_again(tmp_path):
    config = make_config(run__accumulate=2, run__log_every=100)
    method = Poisoned(config)
    with pytest.raises(NonFiniteError):
        make_engine(tmp_path, config, method=method).loop()
    tensors, note = read_tensors(tmp_path / "failed_batch.safetensors")
    assert (note["step"], note["epoch"], note["position"], note["seed"]) == (6, 1, 2, 1)
    order = torch.cat([tensors["rank0.micro0.rows"], tensors["rank0.micro1.rows"]])
    from effrec_cli.data.batches import Share

    assert torch.equal(order, ToyBatches().batch(1, 2, Share(), 6).tensors["rows"])
    # The weights are those that met the batch: a run stopped right before it has the same.
    config = make_config(run__accumulate=2, run__max_steps=6)
    clean = make_engine(tmp_path / "clean", config)
    clean.loop()
    kept, _ = read_tensors(tmp_path / "failed_model.safetensors")
    assert same(kept, weights(clean))
    from effrec_cli.seeds import mix

    assert note["torch_seeds"] == {f"rank0.micro{micro}": mix(1, 6, 0, micro) for micro in (0, 1)}


@pytest.mark.parametrize("kind", ["fused", "plain", "sparse"])
def test_every_kind_of_optimizer_is_barred(tmp_path, kind):
    config = make_config(run__log_every=100)
    table = nn.Embedding(4, 2, sparse=kind == "sparse")
    method = ToyMethod(config)
    method.model = table
    made = {
        "fused": lambda: torch.optim.AdamW(table.parameters(), lr=0.1, fused=True),
        "plain": lambda: torch.optim.AdamW(table.parameters(), lr=0.1),
        "sparse": lambda: torch.optim.SparseAdam(table.parameters(), lr=0.1),
    }[kind]()
    engine = make_engine(tmp_path, config, method=method, optimizers=[made])
    rows = torch.tensor([0, 2])
    engine.backward(table(rows).sum())
    engine.update()
    before = table.weight.detach().clone()
    engine.backward(table(rows).sum() * float("nan"))
    engine.update()
    engine.backward(table(rows).sum())  # sticky: nothing moves any more
    engine.update()
    assert torch.equal(table.weight, before)


# Memory.


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ..."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 2.50 GiB"
        ),
        MemoryError("Unable to allocate 2.50 GiB for an array with shape (1, 2)"),
    ],
)
def test_out_of_memory_says_what_halves_it(tmp_path, error):
    class Hungry(ToyMethod):
        def loss(self, batch):
            raise error

    from effrec_cli.schema.method_cce import CCEConfig

    config = make_config(run__accumulate=2)
    config.method = CCEConfig(batch_size=64)
    with pytest.raises(OutOfMemoryError) as caught:
        make_engine(tmp_path, config, method=Hungry(config)).loop()
    assert caught.value.exit_code == 4
    assert "2.50 GiB was asked for" in caught.value.what
    assert " free" in caught.value.what
    assert "run.accumulate=4" in caught.value.fix
    assert "method.batch_size=32" in caught.value.fix


def test_out_of_memory_in_validation_names_validations_setting(tmp_path):
    def validate():
        raise MemoryError

    config = make_config(evaluation__block_rows=512)
    with pytest.raises(OutOfMemoryError) as caught:
        make_engine(tmp_path, config, validate=validate).loop()
    assert "validating" in caught.value.what
    assert "evaluation.block_rows=256" in caught.value.fix


def test_another_runtime_error_stays_what_it_is(tmp_path):
    class Broken(ToyMethod):
        def loss(self, batch):
            raise RuntimeError("shapes do not match")

    config = make_config()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        make_engine(tmp_path, config, method=Broken(config)).loop()


# Resuming.


def test_settings_that_do_not_fit_the_checkpoint_are_refused(tmp_path):
    run(tmp_path, run__max_epochs=1)
    (tmp_path / "status.json").write_text('{"state": "interrupted"}')
    config = make_config()
    with pytest.raises(ConfigError, match="its epochs have 4 steps, now they have 3"):
        make_engine(tmp_path, config, batches=ToyBatches(batch_size=8))
    method = ToyMethod(config)
    method.model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="does not fit these settings"):
        make_engine(tmp_path, config, method=method)


def test_falling_back_to_the_checkpoint_before_ends_with_the_same_bytes(tmp_path):
    whole = run(tmp_path / "whole", run__checkpoint_every_steps=2)
    run(tmp_path / "part", run__checkpoint_every_steps=2, run__max_steps=7)
    (tmp_path / "part" / "status.json").write_text('{"state": "interrupted"}')
    newest = sorted((tmp_path / "part" / "checkpoints").iterdir())[-1]
    (newest / "model.safetensors").write_bytes(b"rotten")
    resumed = run(tmp_path / "part", run__checkpoint_every_steps=2)
    assert resumed.steps == 12
    assert (tmp_path / "part" / "model.safetensors").read_bytes() == whole.folder.model_path.read_bytes()
    assert "is damaged" in (tmp_path / "part" / "log.txt").read_text()


def saved_steps(path, monkeypatch, **settings):
    """Returns the steps at which a run of 3 epochs of 4 steps saves."""
    steps = []
    save = checkpoint.save

    def noted(folder, state):
        steps.append(state.state["steps"])
        return save(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", noted)
        run(path, **settings)
    return steps


def test_it_also_saves_when_the_clock_says_so_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    seldom = saved_steps(tmp_path / "seldom", monkeypatch, run__checkpoint_every_minutes=None)
    usual = saved_steps(tmp_path / "usual", monkeypatch)
    often = saved_steps(tmp_path / "often", monkeypatch, run__checkpoint_every_minutes=1e-9)
    assert seldom == usual == [4, 8, 12]
    assert often == list(range(1, 13))
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("seldom", "usual", "often")]
    assert len(set(models)) == 1


def test_a_save_by_the_clock_is_due_again_only_minutes_after_the_last(tmp_path, monkeypatch):
    engine = make_engine(tmp_path, make_config(run__checkpoint_every_minutes=10.0))
    engine.steps, now = 1, 1000.0
    engine._saved_at = now  # a whole number, so that sums and differences are exact
    for seconds, due in [(599.0, False), (600.0, True)]:
        monkeypatch.setattr("effrec_cli.engine.time.monotonic", lambda: now + seconds)  # noqa: B023
        assert engine._save_due() == due
    engine._save()
    assert not engine._save_due()
    engine.folder.close()


def test_time_whose_work_a_kill_undid_stays_spent(tmp_path):
    first = make_engine(tmp_path, make_config())
    first.steps, first.elapsed_before_s = 4, 50.0
    first._save()
    for text in ('{"kind": "train", "elapsed_s": 61.5}\n', "rotten\n", '{"kind": "tra'):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(text)
    first.folder.close()
    second = make_engine(tmp_path, make_config())
    assert second.elapsed_s == 61.5
    assert second.meter.lost_s == 11.5
    assert second.folder.metrics_lines == 0
    second.folder.close()


def test_nothing_is_lost_where_the_save_came_last(tmp_path):
    run(tmp_path, run__max_epochs=1)
    (tmp_path / "status.json").write_text('{"state": "interrupted"}')
    engine = make_engine(tmp_path, make_config())
    assert engine.meter.lost_s == pytest.approx(0.0, abs=1e-3)
    assert engine.folder.metrics_lines == len(metrics(tmp_path)) > 0
    engine.folder.close()


def test_metrics_without_a_checkpoint_start_over(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "interrupted"}')
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n')
    engine = make_engine(tmp_path, make_config())
    assert engine.folder.metrics_lines == 0
    assert (tmp_path / "metrics.jsonl").read_text() == ""


# Determinism.


@pytest.fixture
def restored_determinism():
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


@pytest.mark.usefixtures("restored_determinism")
@pytest.mark.parametrize(
    ("micro_batch", "step"),
    [(1, 0), (8, 1), (12, 2), (25, 4)],
    ids=["the run's first", "inside a step", "a step's last", "an epoch's first"],
)
def test_a_stop_between_micro_batches_gives_the_step_up(tmp_path, micro_batch, step):
    settings = {"run__accumulate": 6, "run__checkpoint_every_steps": 3, "run__max_epochs": 2}
    run(tmp_path / "whole", **settings)
    broken = tmp_path / "broken"
    with pytest.raises(Interrupted, match=f"at step {step}; everything is saved"):
        run(broken, fault={"signal": "SIGTERM", "at": "step", "count": micro_batch}, **settings)
    assert json.loads((broken / "status.json").read_text())["step"] == step
    assert checkpoint.load(broken / "checkpoints").state["steps"] == step
    (broken / ".lock").unlink()
    run(broken, **settings)
    left, right = (read_tensors(each / "model.safetensors")[0] for each in (broken, tmp_path / "whole"))
    assert same(left, right)
    broken_records, records = metrics(broken), metrics(tmp_path / "whole")
    for record in [*broken_records, *records]:
        del record["elapsed_s"]
    assert broken_records == records


def test_deterministic_refuses_by_name(tmp_path):
    class Loose(ToyMethod):
        def loss(self, batch):
            torch.use_deterministic_algorithms(True)
            raise RuntimeError("put_ does not have a deterministic implementation, but you set ...")

    config = make_config(run__deterministic=True)
    engine = make_engine(tmp_path, config, method=Loose(config))
    assert torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ConfigError, match="put_ has no deterministic implementation"):
        engine.loop()


@pytest.mark.slow
def test_a_compiled_run_learns_like_any_other(tmp_path):
    import shutil

    if not (shutil.which("g++") or shutil.which("c++")):
        pytest.skip("torch.compile needs a C++ compiler on a CPU")

    class Dry(ToyMethod):
        dropout = 0.0

    results = []
    for compiled in (False, True):
        config = make_config(run__compile=compiled)
        engine = make_engine(tmp_path / str(compiled), config, method=Dry(config))
        engine.loop()
        results.append(weights(engine))
    assert results[0].keys() == results[1].keys()
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_what_a_method_notes_in_a_step_is_recorded_after_it(tmp_path):
    """As its loss is: the last step of an epoch belongs to that epoch."""
    config = make_config(run__max_epochs=2)
    engine = make_engine(tmp_path, config)
    step = engine.method.training_step

    def noting(batch, on):
        on.note("found", {"value": float(batch.step)})
        return step(batch, on)

    engine.method.training_step = noting
    engine.loop()
    engine.note("found", {"value": -1.0})
    found = metrics(tmp_path, "found")
    assert [(each["step"], each["value"]) for each in found] == [*((n + 1, n) for n in range(8)), (8, -1)]
    assert [each["epoch"] for each in found] == 4 * [1] + 5 * [2]
