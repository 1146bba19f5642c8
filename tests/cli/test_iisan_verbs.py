"""Runs of method iisan through the front door: every verb, mode and kind of dataset, and refusals."""

import json
from pathlib import Path

import pytest

from effrec_cli import jobprocess
from effrec_cli.engine import Engine
from effrec_cli.methods.multimodal import finetuned, sources

MODES = ("iisan", "fft", "adapter", "lora", "bitfit", "frozen")
SMALL = [
    "method=iisan",
    "model.num_layers=1",
    "model.max_length=8",
    "method.dim=8",
    "method.batch_size=16",
    "method.text.dim=8",
    "method.text.num_layers=2",
    "method.image.dim=8",
    "method.image.num_layers=2",
    "dataset.num_users=60",
    "dataset.num_items=40",
    "dataset.interactions_per_user=12",
    "dataset.side=[text,images]",
    "run.max_epochs=1",
    "run.log_every=1",
    "run.device=cpu",
]


def result(folder):
    return json.loads(Path(folder, "result.json").read_text())


def records(folder, kind):
    lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def never(*_args, **_named):
    raise AssertionError("a backbone was built")


@pytest.mark.parametrize("mode", ["iisan", "frozen"])
def test_once_a_cache_is_filled_no_verb_builds_a_backbone(effrec, monkeypatch, mode):
    """Trained with another seed, looked at before, judged, recommended from, shown, gone on with."""
    words = [*SMALL, f"method.mode={mode}"]
    done = effrec("train", *words, "run.dir=runs/one")
    assert done.code == 0, done.err
    for part in (sources, finetuned):
        for name in ("build_backbone", "TapReader", "PooledBackbone"):
            if hasattr(part, name):
                monkeypatch.setattr(part, name, never)
    again = effrec("train", *words, "seed=7", "run.dir=runs/two", "run.max_steps=2")
    assert again.code == 0, again.err
    assert "Keeping hidden states" in done.err
    assert "Keeping hidden states" not in again.err
    trained = result("runs/one")
    assert trained["cost"]["seconds_cache"] == result("runs/two")["cost"]["seconds_cache"] > 0

    report = effrec("validate", "--json", *words)
    assert report.code == 0, report.err
    assert json.loads(report.out)["parameters"] == {
        "all": trained["cost"]["parameters"]["all"],
        "trainable": trained["cost"]["parameters"]["trainable"],
    }
    judged = effrec("evaluate", "runs/one", "--json")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["metrics"] == pytest.approx(trained["metrics"]["test"], abs=1e-6)
    listed = effrec("recommend", "runs/one", "--history", "101,104", "--json")
    assert listed.code == 0, listed.err
    shown = effrec("show", "runs/one")
    assert shown.code == 0, shown.err
    assert f"{trained['metrics']['test']['ndcg@10']:.4f}" in shown.out
    before = Path("runs/one/model.safetensors").read_bytes()
    Path("runs/one/result.json").unlink()
    assert effrec("resume", "runs/one").code == 0
    assert Path("runs/one/model.safetensors").read_bytes() == before
    assert result("runs/one")["metrics"] == trained["metrics"]
    assert Path("runs/one/model.safetensors").stat().st_size < 200_000, "nothing of a backbone is saved"
    Path("data").rename("elsewhere")
    assert effrec("recommend", "runs/one", "--history", "101,104", "--json").out == listed.out


def test_a_sweep_over_modes_is_compared_by_what_it_cost(effrec, monkeypatch):
    """TPME by hand from the runs' costs, without and with what the cache took (papers/iisan 3)."""
    pytest.importorskip("peft")
    monkeypatch.setattr(jobprocess, "perform_apart", jobprocess.perform)
    done = effrec("train", "-m", *SMALL, f"method.mode={','.join(MODES)}", "hydra.sweep.dir=runs")
    assert done.code == 0, done.err + done.out
    told = effrec("compare", "runs", "--json")
    assert told.code == 0, told.err
    costs = {}
    for folder in (path.parent for path in Path("runs").glob("*/result.json")):
        found = result(folder)
        costs[found["config"]["method"]["mode"]] = found["cost"]
        judged = effrec("evaluate", str(folder), "--json")
        assert judged.code == 0, judged.err
        assert json.loads(judged.out)["metrics"] == pytest.approx(found["metrics"]["test"], abs=1e-6)
    assert costs.keys() == set(MODES)
    assert {mode for mode, cost in costs.items() if cost["seconds_cache"]} == {"iisan", "frozen"}
    assert costs["frozen"]["parameters"]["trainable"] < costs["iisan"]["parameters"]["trainable"]
    (board,) = json.loads(told.out)["tables"]
    for key, borne in (("tpme", 0.0), ("tpme_with_cache", 1.0)):
        axes = {mode: axes_of(cost, borne) for mode, cost in costs.items()}
        for entry in board["rows"]:
            mode = entry["settings"]["method.mode"]
            assert entry[key] == pytest.approx(tpme_of(axes, mode), abs=1e-9), (mode, key)


def axes_of(cost, borne):
    seconds = cost["seconds_per_epoch"] + borne * (cost["seconds_cache"] or 0.0) / max(1, cost["epochs"])
    return seconds, cost["parameters"]["trainable"], cost["peak_memory_bytes"]


def tpme_of(axes, mode):
    total = 0.0
    for axis, share in enumerate((0.45, 0.10, 0.45)):
        values = [each[axis] for each in axes.values()]
        low, high = min(values), max(values)
        total += share * (axes[mode][axis] - low) / (high - low) if high > low else 0.0
    return total


def test_two_processes_train_and_judge_as_one(effrec, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [*SMALL, "model.dropout=0", "run.max_steps=6", "optimizer.schedule=cosine"]
    for ranks in (2, 1):
        done = effrec("train", *words, f"run.devices={ranks}", f"run.dir=of{ranks}")
        assert done.code == 0, done.err
    assert result("of2")["device"]["count"] == 2
    for part, metrics in result("of1")["metrics"].items():
        assert result("of2")["metrics"][part] == pytest.approx(metrics, abs=2e-4), part
    for one, two in zip(records("of1", "train"), records("of2", "train"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert result("of2")["cost"]["seconds_cache"] == result("of1")["cost"]["seconds_cache"] > 0


ALONE = {
    "text": ("dataset.side=[text]", "image"),
    "image": ("dataset.side=[images]", "text"),
}


@pytest.mark.parametrize("mode", ["iisan", "fft", "frozen"])
@pytest.mark.parametrize("modality", ALONE)
def test_a_dataset_of_one_modality(effrec, modality, mode):
    """`auto` takes what is there, as naming it does; naming the other is refused with what to write."""
    side, other = ALONE[modality]
    small = [word for word in SMALL if f"method.{other}." not in word and "dataset.side" not in word]
    words = [*small, side, f"method.mode={mode}", "run.max_steps=2"]
    for chosen in ("auto", modality):
        done = effrec("train", *words, f"method.modality={chosen}", f"run.dir={chosen}")
        assert done.code == 0, done.err
    assert result("auto")["metrics"] == result(modality)["metrics"]
    assert {path.name.split("-")[0] for path in Path("data").glob("features/*")} <= {modality}
    plain = [word for word in words if f"method.{modality}." not in word]
    for wanted in (other, "both"):
        for verb in ("train", "validate"):
            refused = effrec(verb, *plain, f"method.modality={wanted}", "run.dir=no")
            assert refused.code == 3, refused.err
            assert f"asks for {'images' if other == 'image' else 'texts'}" in refused.err
            assert "method.modality=auto" in refused.err


def test_one_modality_of_a_dataset_that_has_both(effrec):
    found = {}
    for modality in ("auto", "text", "image"):
        other = {"text": "image", "image": "text"}.get(modality, "-")
        small = [word for word in SMALL if f"method.{other}." not in word]
        done = effrec(
            "train", *small, f"method.modality={modality}", f"run.dir={modality}", "run.max_steps=2"
        )
        assert done.code == 0, done.err
        found[modality] = result(modality)["cost"]["parameters"]["trainable"]
    assert found["text"] < found["auto"]
    assert found["image"] < found["auto"]


REFUSED = {
    "no texts and no images": (["dataset.side=[]"], 3, "neither titles nor images"),
    "a model that no content feeds": (["model=bert4rec"], 2, "bert4rec"),
    "a width that no matrix brings to the model's": (["model.dim=16"], 2, "model.dim=16"),
    "a tap that is not there": (["method.text_taps=[0,9]"], 2, "has 2 layers"),
    "a backbone that is not there": (["method.text.name=./nowhere"], 2, "method.text.name"),
    "a setting of another mode": (["method.mode=fft", "method.rank=8"], 2, "method.rank"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_train_is_refused_alike_by_validate(effrec, what):
    words, code, said = REFUSED[what]
    base = (
        [word for word in SMALL if word.split("=")[0] not in ("dataset.side",)]
        if "side" in words[0]
        else SMALL
    )
    if "model=" in words[0]:
        base = [word for word in base if not word.startswith("model.")]
    if "name=" in words[0]:
        base = [word for word in base if not word.startswith("method.text.")]
    for verb in ("train", "validate"):
        done = effrec(verb, *base, *words)
        assert done.code == code, done.out + done.err
        assert said in done.err
        assert "fix" in done.err
    assert not Path("outputs").exists() or not list(Path("outputs").iterdir())


def test_the_best_weights_are_kept_and_judged(effrec, monkeypatch):
    """Validation is told to think little of what comes after the fourth epoch."""
    words = [*SMALL, "run.max_epochs=6", "optimizer.lr=0.1", "run.dir=run"]
    honest = Engine._validation_metrics

    def grudging(self):
        late = self.steps > 4 * self.steps_per_epoch
        return {name: score * 0.1 if late else score for name, score in honest(self).items()}

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_validation_metrics", grudging)
        assert effrec("train", *words, "run.max_epochs=6").code == 0
    scores = [record["ndcg@10"] for record in records("run", "valid")]
    best = scores.index(max(scores)) + 1
    assert best <= 4 < len(scores) == 6
    whole = result("run")
    assert whole["metrics"]["valid"]["ndcg@10"] == max(scores)
    done = effrec(
        "train", *[w for w in words if "run.dir" not in w], f"run.max_epochs={best}", "run.dir=short"
    )
    assert done.code == 0, done.err
    assert Path("short/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    assert result("short")["metrics"] == whole["metrics"]


@pytest.mark.parametrize("mode", ["iisan", "lora"])
def test_a_seed_says_which_run(effrec, mode):
    weights = []
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        words = [*SMALL, f"method.mode={mode}", f"seed={seed}", f"run.dir={name}", "run.max_steps=3"]
        assert effrec("train", *words).code == 0
        weights.append(Path(name, "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("mode", MODES)
def test_the_example_that_runs_in_seconds_is_sized_in_every_mode(effrec, mode):
    """A rank of its own is the side network's: other modes refuse it."""
    words = [
        "experiment=smoke_iisan",
        f"method.mode={mode}",
    ]
    report = effrec("validate", "--json", *words)
    assert report.code == 0, report.out
    assert json.loads(report.out)["parameters"]["trainable"] > 0


def test_the_example_that_runs_in_seconds_learns(effrec):
    done = effrec("train", "experiment=smoke_iisan", "run.device=cpu", "run.dir=run", "run.log_every=1")
    assert done.code == 0, done.err
    losses = [record["loss"] for record in records("run", "train")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert result("run")["cost"]["seconds_cache"] > 0


def test_taps_that_are_not_there_are_refused_before_data_are_drawn(effrec):
    done = effrec("validate", *SMALL, "method.image_taps=[0,3]")
    assert "method.image_taps" in done.out + done.err
    assert "has 2 layers" in done.out + done.err


def test_a_run_that_filled_its_cache_anew_is_judged_by_that_cache(effrec):
    done = effrec("train", *SMALL, "run.max_steps=2", "method.cache.rebuild=true", "run.dir=runs/one")
    assert done.code == 0, done.err
    judged = effrec("evaluate", "runs/one")
    assert judged.code == 0, judged.err
    assert "Keeping hidden states" in done.err
    assert "Keeping hidden states" not in judged.err


def test_a_backbone_whose_weights_changed_is_named_where_the_run_is_opened(effrec):
    """By `evaluate`, which encodes anew; `recommend` ranks by the vectors that the run has kept."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8)
    transformers.AutoModel.from_config(config).save_pretrained("vit")
    own = [word for word in SMALL if not word.startswith(("method.text", "method.image"))]
    done = effrec("train", *own, "method.modality=image", "method.image.name=./vit", "run.dir=runs/one")
    assert done.code == 0, done.err
    before = effrec("evaluate", "runs/one")
    assert "the same as" in before.out
    assert "backbone is not the one" not in before.err
    transformers.AutoModel.from_config(config).save_pretrained("vit")
    after = effrec("evaluate", "runs/one")
    assert after.code == 0, after.err
    assert (
        "The image backbone is not the one that this run was trained with (there): other weights."
        in after.err
    )
    listed = effrec("recommend", "runs/one", "--history", "101,104")
    assert listed.code == 0, listed.err
    assert "backbone" not in listed.err
