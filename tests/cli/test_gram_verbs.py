"""Runs of method gram through the front door: every verb, two processes, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

SMALL = [
    "method=gram",
    "model=dkt",
    "model.max_length=12",
    "model.dropout=0",
    "method.batch_size=16",
    "method.encoder.dim=8",
    "method.encoder.dropout=0",
    "method.encoder.batch_tokens=256",
    "dataset.num_users=90",
    "dataset.num_items=40",
    "run.max_epochs=1",
    "run.log_every=1",
    "run.device=cpu",
]


def result(folder):
    return json.loads(Path(folder, "result.json").read_text())


def records(folder, kind):
    lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_every_verb_works_with_a_run(effrec):
    """Trained, shown, judged again, compared with another mode, told to go on, and looked at before."""
    for name, mode in (("one", "single_step"), ("many", "multi_step")):
        done = effrec("train", *SMALL, f"method.mode={mode}", f"run.dir=runs/{name}")
        assert done.code == 0, done.err
    trained = result("runs/one")
    report = effrec("validate", "--json", *SMALL)
    assert report.code == 0, report.err
    assert json.loads(report.out)["parameters"]["all"] == trained["cost"]["parameters"]["all"]

    judged = effrec("evaluate", "runs/one", "--json")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["metrics"] == pytest.approx(trained["metrics"]["test"], abs=1e-6)

    shown = effrec("show", "runs/one")
    assert shown.code == 0, shown.err
    assert f"{trained['metrics']['test']['auc']:.4f}" in shown.out
    compared = effrec("compare", "runs/one", "runs/many")
    assert compared.code == 0, compared.err
    assert "auc" in compared.out
    assert "multi_step" in compared.out

    before = Path("runs/one/model.safetensors").read_bytes()
    assert effrec("resume", "runs/one").code == 0
    assert Path("runs/one/model.safetensors").read_bytes() == before


def test_encodings_of_a_step_are_its_items_not_its_places(effrec):
    """And a second encoding is counted apart (papers/gram, test 20)."""
    counts = {}
    modes = {"e2e": [], "e2e_dedup": [], "single_step": ["method.recompute=true"], "frozen": []}
    for mode, more in modes.items():
        done = effrec("train", *SMALL, f"method.mode={mode}", *more, f"run.dir={mode}", "run.max_steps=3")
        assert done.code == 0, done.err
        steps = records(mode, "train")
        counts[mode] = [(step["encoded_forward"], step["encoded_again"]) for step in steps]
    for (places, _), (items, _), both, none in zip(*counts.values(), strict=True):
        assert items <= 40 < places
        assert both == (items, items)
        assert none == (0, 0)


@pytest.mark.parametrize(
    "settings",
    [
        ["method.mode=e2e_dedup"],
        ["method.recompute=true"],
        ["method.mode=frozen", "method.batch_size=3"],
        ["method.mode=multi_step", "method.period=3", "method.update=inject_multi", "method.update_items=8"],
    ],
    ids=lambda settings: settings[0],
)
def test_two_processes_train_and_judge_as_one(effrec, settings, monkeypatch):
    """Shares of three windows leave a rank without any in an epoch's last step."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for ranks in (1, 2):
        more = [f"run.devices={ranks}", f"run.dir=of{ranks}", "run.max_steps=8", "optimizer.schedule=cosine"]
        done = effrec("train", *SMALL, *settings, *more)
        assert done.code == 0, done.err
    assert result("of2")["device"]["count"] == 2
    for part, metrics in result("of1")["metrics"].items():
        assert result("of2")["metrics"][part] == pytest.approx(metrics, abs=2e-4), part
    for one, two in zip(records("of1", "train"), records("of2", "train"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


REFUSED = {
    "a model that no content feeds": (["model=bert4rec"], 2, "bert4rec"),
    "no model": (["model=none"], 2, "none"),
    "no texts": (["dataset.side=[answers]"], 3, "neither titles nor images"),
    "no answers": (["dataset.side=[text]"], 3, "no right and wrong answers"),
    "no impressions": (["model=nrms", "dataset.side=[text]"], 3, "impressions"),
    "regress in bf16": (
        ["method.mode=multi_step", "method.update=regress", "run.precision=bf16"],
        2,
        "run.precision=fp32",
    ),
}


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["method.mode=multi_step"],
        ["method.mode=frozen", "method.encoder.modality=image"],
        ["model=nrms", "model.max_length=50"],
        ["model=sasrec", "model.dim=8"],
    ],
    ids=str,
)
def test_a_run_is_sized_before_its_data_are_there(effrec, settings):
    """By contents, answers and impressions that stand in for the simulator's."""
    base = SMALL if "model=" not in "".join(settings) else [s for s in SMALL if not s.startswith("model")]
    done = effrec("validate", "--json", *base, *settings)
    assert done.code == 0, done.out
    report = json.loads(done.out)
    assert report["ok"]
    assert report["dataset"]["state"] == "generated"
    assert report["parameters"]["all"] > 0
    assert report["memory"]["total"] > report["memory"]["weights"]
    assert not list(Path("data").rglob("*.npy")), "validating prepares nothing"


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_train_is_refused_alike_by_validate(effrec, what):
    overrides, code, said = REFUSED[what]
    base = SMALL if "model" not in overrides[0] else [s for s in SMALL if not s.startswith("model")]
    for verb in ("train", "validate"):
        done = effrec(verb, *base, *overrides)
        assert done.code == code, done.out + done.err
        assert said in done.err + done.out
        assert "fix" in done.err + done.out
    assert not Path("outputs").exists() or not list(Path("outputs").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is the GPU here, which trains in fp16")
def test_fp16_is_refused_where_auto_finds_no_gpu(effrec):
    for verb in ("train", "validate"):
        done = effrec(verb, *SMALL, "run.device=auto", "run.precision=fp16")
        assert done.code == 2, done.out + done.err
        assert "fp16 needs a GPU" in done.out + done.err
    assert not Path("outputs").exists()


def test_where_the_dataset_is_gone_a_ranking_goes_on_by_kept_vectors(effrec):
    settings = [each for each in SMALL if not each.startswith("model")]
    assert effrec("train", *settings, "run.max_steps=1", "run.dir=run").code == 0
    words = ["recommend", "run", "--history", "101,104", "--json"]
    before = effrec(*words)
    assert before.code == 0, before.err
    assert len(json.loads(Path("run/result.json").read_text())["by_frequency"]["users"]) > 1
    Path("data").rename("elsewhere")
    assert effrec(*words).out == before.out
    judged = effrec("evaluate", "run")
    Path("run/served.safetensors").unlink()
    for done in (judged, effrec(*words)):
        assert done.code == 3, done.out + done.err
        assert "The dataset of this run, synthetic" in done.err
        assert "effrec data describe synthetic" in done.err


def test_an_encoder_without_weights_is_refused_before_data_are_drawn(effrec):
    pytest.importorskip("transformers")
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "bert"}')
    Path("model/vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    settings = [each for each in SMALL if not each.startswith("method.encoder")]
    done = effrec("validate", *settings, "method.encoder.name=model")
    assert done.code == 2, done.out
    assert "no weights in safetensors" in done.err


@pytest.mark.parametrize("what", [name for name in REFUSED if name.startswith("no ") and name != "no model"])
def test_data_that_lack_what_is_needed_are_refused_before_they_are_drawn(effrec, what):
    overrides, code, said = REFUSED[what]
    base = SMALL if "model" not in overrides[0] else [s for s in SMALL if not s.startswith("model")]
    done = effrec("validate", *base, *overrides)
    assert done.code == code, done.out
    assert said in done.err
    assert not list(Path("data").rglob("*.npy"))


def test_a_ranking_needs_no_encoder_where_its_vectors_are_kept(effrec):
    pytest.importorskip("transformers")
    Path("model").mkdir()
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    Path("model/config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 9, **shape}))
    settings = [each for each in SMALL if not each.startswith(("model", "method.encoder.dim"))]
    encoder = ["method.encoder.name=./model", "method.encoder.weights=random"]
    done = effrec("train", *settings, *encoder, "run.max_steps=1", "run.dir=run")
    assert done.code == 0, done.err
    words = ["recommend", "run", "--history", "101,104", "--json"]
    before = effrec(*words)
    assert before.code == 0, before.err
    Path("model").rename("elsewhere")
    assert effrec(*words).out == before.out
    judged = effrec("evaluate", "run")
    assert judged.code == 2
    assert "There is no folder" in judged.err
