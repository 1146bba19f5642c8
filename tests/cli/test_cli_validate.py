"""`effrec validate`: what it knows before a run, and that it neither trains nor downloads."""

import json
from pathlib import Path

import pytest
import torch

from effrec_cli import compose, dryrun, trial
from effrec_cli.data import load, raw
from effrec_cli.data.batches import Share
from effrec_cli.runfolder import RunFolder
from effrec_cli.standin import stand_in
from effrec_cli.trial import Trial

TINY = [
    "dataset.num_users=40",
    "dataset.num_items=30",
    "dataset.num_clusters=3",
    "dataset.interactions_per_user=12",
    "model.dim=8",
]


@pytest.fixture
def validate(effrec):
    """Returns a function that gives the JSON report and the exit code."""

    def call(*overrides):
        done = effrec("validate", "--json", *overrides)
        return json.loads(done.out), done.code

    return call


def count(model_overrides):
    """Returns the parameters of the model that a run would build."""
    from effrec_cli.methods.cce import CCE

    config = compose.compose(model_overrides)
    return sum(each.numel() for each in CCE(config).build(stand_in(30, "x")).parameters())


def test_before_anything_is_prepared(validate, tmp_path):
    report, code = validate(*TINY)
    assert code == 0
    assert report["ok"]
    assert report["dataset"]["state"] == "generated"
    assert (report["dataset"]["num_users"], report["dataset"]["num_items"]) == (40, 30)
    assert report["parameters"]["all"] == report["parameters"]["trainable"] == count(TINY)
    chosen = [f"method.batch_size={report['config']['method']['batch_size']}"]  # left open in TINY
    chosen += ["optimizer.sparse_rows=false"]
    assert report["config"] == compose.resolved(compose.compose([*TINY, *chosen]))
    assert not list(tmp_path.rglob("*.npy")), "validating prepares nothing"
    assert not Path("outputs").exists()


def test_a_table_of_rows_needs_no_gradient_of_its_size(validate):
    """What is there for a step's rows instead is chosen by itself where they are few."""
    many = [*TINY, "method.sharing=tile", "dataset.num_items=60000", "method.batch_size=16"]
    rows, dense = (validate(*many, *more)[0] for more in ([], ["optimizer.sparse_rows=false"]))
    assert rows["config"]["optimizer"]["sparse_rows"] is True
    table = 60000 * 8 * 4
    assert dense["memory"]["gradients"] - rows["memory"]["gradients"] > table / 2
    assert rows["memory"]["optimizer"] == dense["memory"]["optimizer"] + 60000 * 4


def test_memory_adds_up(validate):
    memory = validate(*TINY)[0]["memory"]
    weights = 4 * count(TINY)
    assert (memory["weights"], memory["gradients"], memory["optimizer"]) == (weights, weights, 2 * weights)
    assert memory["best"] == weights, "a CPU run keeps the best weights beside its own"
    assert min(memory["activations"], memory["validation"], memory["data"]) > 0
    assert memory["temporaries"] >= 0, "memory that the process has may do for them"
    step = weights + memory["activations"] + memory["temporaries"]
    assert memory["total"] == 4 * weights + memory["data"] + max(step, memory["validation"])
    assert "measured on this device" in memory["how"]


@pytest.mark.parametrize(
    ("share", "verdict", "code"), [(1.6, "fits", 0), (1.2, "tight", 0), (0.9, "does not fit", 4)]
)
def test_it_fits_with_a_margin_only(share, verdict, code, effrec, validate, monkeypatch):
    """What is tried is made up here, for it is never twice the same to the byte."""
    monkeypatch.setattr(dryrun, "try_run", lambda *_: Trial(activations=100, step=30_000_000, validation=7))
    total = validate(*TINY)[0]["memory"]["total"]
    monkeypatch.setattr(dryrun, "free_bytes", lambda device: int(share * total))
    assert validate(*TINY)[0]["memory"]["verdict"] != "fits", "a small run needs some room, too"
    monkeypatch.setattr(dryrun, "ROOM_BYTES", 0)
    report, found = validate(*TINY)
    assert (report["memory"]["verdict"], report["memory"]["fits"], found) == (
        verdict,
        verdict == "fits",
        code,
    )
    text = effrec("validate", *TINY).out
    assert verdict in text.replace("NOT", "not")
    assert ("run.accumulate=2 halves" in text) == (verdict != "fits"), "what takes most, and what halves it"


def test_half_precision_keeps_less(validate):
    exact, half = (validate(*TINY, f"run.precision={kind}")[0]["memory"] for kind in ("fp32", "bf16"))
    assert half["activations"] < exact["activations"]
    assert half["weights"] == exact["weights"]


def test_sgd_keeps_no_state(validate):
    assert validate(*TINY, "optimizer.name=sgd")[0]["memory"]["optimizer"] == 0


@pytest.mark.parametrize("loss", ["ce", "cce", "ce_sampled", "cce_sampled"])
def test_activations_are_those_of_a_whole_micro_batch(loss, monkeypatch):
    from effrec_cli.methods.cce import CCE

    config = compose.compose([*TINY, f"method.loss={loss}", "method.batch_size=32", "model.max_length=16"])
    method, data = CCE(config), stand_in(30, "x")
    method.prepare(data)
    method.build(data)
    device, batches = torch.device("cpu"), method.batches(data)
    size, measured = trial.try_step(method, batches, Share(), trial.DryEngine("fp32", device))
    assert size == 32
    assert trial.try_run(method, batches, data, device).activations == measured
    tried = []
    try_step = trial.try_step

    def noted(*words):
        tried.append(try_step(*words))
        return tried[-1]

    monkeypatch.setattr(trial, "try_step", noted)
    monkeypatch.setattr(trial, "BUDGET_BYTES", -1)
    assert trial.try_run(method, batches, data, device).activations == pytest.approx(measured, rel=0.2)
    assert {size for size, _ in tried} == {1, 4}, "a few of the samples tell what all would take"
    assert all(each.grad is None for each in method.model.parameters())


def test_peaks_go_on_along_the_line_of_the_last_two():
    assert trial._judged([(1, 10), (4, 40)], 4) == 40
    assert trial._judged([(1, 50), (4, 80)], 8) == 120
    assert trial._judged([(1, 50), (4, 50)], 100) == 50, "a chunk does not grow"
    assert trial._judged([(2, 30)], 8) == 120


def test_accumulation_and_devices_share_the_batch(validate):
    whole, parts = (
        validate(*TINY, "method.batch_size=32", *more)[0]["memory"]["activations"]
        for more in ([], ["run.accumulate=4", "run.devices=2"])
    )
    assert parts == pytest.approx(whole / 8, rel=0.25)


def test_prepared_data_are_used(validate, tmp_path):
    config = compose.compose(TINY)
    data = load.load(config.dataset, Path(config.data_root), lambda line: None)
    report, code = validate(*TINY)
    assert code == 0
    dataset = report["dataset"]
    assert dataset["state"] == "prepared"
    assert dataset["num_interactions"] == len(data.sequences.items)
    assert dataset["num_items"] == data.num_items
    assert dataset["bytes"] == sum(path.stat().st_size for path in data.folder.iterdir())


def test_more_micro_batches_than_samples_are_refused_of_prepared_data_alone(validate, effrec):
    """As training would; how many samples a step will have is not known before."""
    words = [*TINY, "method.batch_size=4", "run.accumulate=5"]
    assert effrec("validate", *words).code == 0
    config = compose.compose(words)
    load.load(config.dataset, Path(config.data_root), lambda line: None)
    done = effrec("validate", *words)
    assert done.code == 2
    assert "fix: run.accumulate=4" in done.err


def test_nothing_is_downloaded(validate, effrec, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("validate must not download")

    monkeypatch.setattr(raw, "fetch", refuse)
    report, code = validate("dataset=ml-20m")
    assert code == 0
    assert report["dataset"]["state"] == "absent"
    assert report["dataset"]["download_bytes"] == 198702078
    assert report["parameters"] is None
    sized, _ = validate("dataset=ml-20m", "--items", "26744", "model.dim=64", "method.batch_size=4")
    assert sized["parameters"]["all"] > 26744 * 64
    assert "effrec data fetch ml-20m" in effrec("validate", "dataset=ml-20m").out


def test_factorising_is_counted_before_the_network_that_starts_from_it(validate, effrec):
    words = [*TINY[:4], "method=cadc", "method.sample.rate=0.5", "method.factors.chunk_mib=1"]
    assert validate(*words)[0]["memory"]["factorising"] == 0, (
        "before data are prepared nobody knows the users"
    )
    effrec("data", "describe", "synthetic", *TINY[:4])
    report, _ = validate(*words, "model.hidden=[8]")
    memory, users = report["memory"], report["dataset"]["num_users"]
    rows = report["dataset"]["num_interactions"] - 2 * users
    vectors = 4 * 64 * (users + report["dataset"]["num_items"])
    assert memory["factorising"] == 5 * vectors + 40 * rows + (torch.get_num_threads() << 20)
    wide = validate(*words, "model.hidden=[2048]")[0]["memory"]
    for found, most in ((memory, "factorising"), (wide, "network")):
        step = found["gradients"] + found["activations"] + found["temporaries"]
        network = found["weights"] + found["optimizer"] + found["best"] + max(step, found["validation"])
        assert found["total"] == found["data"] + (network if most == "network" else found["factorising"])
        assert found["how"].startswith("weights, gradients")
        assert "Factorising comes before the network" in found["how"]
    assert wide["factorising"] == memory["factorising"]
    alone = validate(*words[:-1], "model.hidden=[8]", "method.embedding=rand")[0]["memory"]
    assert alone["factorising"] == 0
    assert alone["total"] < memory["total"]
    assert "factorising" in effrec("validate", *words).out


@pytest.mark.parametrize("name", ["mind-small", "duolingo-es-en"])
def test_what_has_to_be_imported_is_refused_as_by_train(validate, name):
    report, code = validate(f"dataset={name}", "method=pop", "model=none")
    assert code == 3
    assert f"effrec data import {name}" in json.dumps(report["error"])


def test_reference_points_state_what_they_hold(validate):
    for method, parameters in [("pop", 30), ("ease", 30 * 30), ("itemknn", 30 * 20)]:
        report, code = validate(*TINY[:4], f"method={method}")
        assert code == 0
        assert report["parameters"] == {"all": parameters, "trainable": 0}
        memory = report["memory"]
        assert memory["weights"] >= 4 * parameters
        assert memory["total"] >= memory["weights"] + memory["temporaries"]
        assert memory["verdict"] == "fits"


def test_a_reference_point_is_refused_as_train_refuses_it(validate, effrec):
    words = [*TINY[:4], "method=ease", "method.max_items=10"]
    report, code = validate(*words)
    assert code == 0
    assert "Were nothing filtered, train would refuse: EASE needs" in report["note"]
    refused = effrec("train", "run.dir=mine", *words)
    assert refused.code == 2
    report, code = validate(*words)
    assert code == 2
    assert report["error"]["where"] == "method.max_items=10"
    assert report["error"]["what"] in refused.err
    absent = ["dataset=ml-20m", "method=ease"]
    assert "method.max_items=40000" in json.dumps(validate(*absent, "--items", "89111")[0]["error"])


def test_a_reference_point_that_does_not_fit_is_exit_4(validate, effrec, monkeypatch):
    words = ["method=ease", "dataset.num_items=2000", "dataset.num_users=50"]
    monkeypatch.setattr(dryrun, "free_bytes", lambda device: 20 * 2000**2)
    report, code = validate(*words)
    assert (code, report["memory"]["verdict"]) == (4, "does not fit")
    assert "dataset.filter.min_item_count" in effrec("validate", *words).out


def test_the_raw_size_is_that_of_the_tables_files(validate, effrec):
    Path("log.csv").write_text("u,i\n" + "1,2\n" * 1000)
    words = ["dataset=table", "dataset.path=log.csv", "dataset.user=u", "dataset.item=i"]
    report, code = validate(*words)
    assert code == 0
    assert (report["dataset"]["state"], report["dataset"]["bytes"]) == ("raw", Path("log.csv").stat().st_size)
    assert "to be prepared, 3.9 KiB raw" in effrec("validate", *words).out


def test_a_run_that_cannot_fit_is_exit_4(effrec, validate, monkeypatch):
    monkeypatch.setattr(dryrun, "free_bytes", lambda device: 1000)
    report, code = validate(*TINY)
    assert code == 4
    assert not report["ok"]
    done = effrec("validate", *TINY)
    assert done.code == 4
    assert "does NOT fit" in done.out
    assert "at least" in done.out
    assert "half of model.dim" in done.out


def test_huge_models_are_counted_and_not_built(validate, monkeypatch):
    monkeypatch.setattr(dryrun, "LARGEST_CATALOGUE", 29)
    report, _ = validate(*TINY)
    assert report["parameters"]["all"] == count(TINY)
    memory = report["memory"]
    assert (memory["activations"], memory["validation"]) == (None, None)
    assert (memory["verdict"], memory["fits"]) == ("unknown", False), "never more than is known"


@pytest.mark.parametrize(
    ("overrides", "code", "says"),
    [
        (["dataset=table", "dataset.path=nope.csv"], 2, "nope.csv"),
        (["dataset=table"], 2, "dataset.path"),
        (["method.num_negatives=0"], 2, "method.num_negatives"),
        (["model=none"], 2, "model=none"),
        (["method=pop", "model=sasrec"], 2, "model=sasrec"),
        (["dataset=ml-20m", "model=none"], 2, "model=none"),
    ],
)
def test_what_could_not_run_is_refused(validate, overrides, code, says):
    report, found = validate(*overrides)
    assert found == code == report["error"]["exit_code"]
    assert not report["ok"]
    assert says in json.dumps(report["error"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there(validate):
    assert validate("run.device=cuda")[1] == 6


def test_a_folder_that_is_taken(validate):
    """By a run, by a run of other settings, or by one that is still going on."""
    folder = RunFolder(Path("mine")).open()
    (folder.path / "config.yaml").write_text(compose.to_yaml(compose.compose(TINY)))
    other = [*TINY, "model.dim=16", "run.dir=mine", "run.resume=auto"]
    assert "Another run is using" in validate(*TINY, "run.dir=mine")[0]["error"]["what"]
    folder.close()
    assert "holds a run already" in validate(*TINY, "run.dir=mine")[0]["error"]["what"]
    assert validate(*TINY, "run.dir=mine", "run.resume=auto")[1] == 0
    assert "model.dim was 8, now 16" in validate(*other)[0]["error"]["where"]


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_a_folder_of_other_files_is_refused_as_train_does(effrec, validate, resume):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("mine")
    settings = [*TINY, "run.dir=mine", f"run.resume={resume}"]
    report, code = validate(*settings)
    trained = effrec("train", *settings)
    assert code == trained.code == 2
    assert report["error"]["what"] in trained.err
    assert "thesis.tex" in report["error"]["where"]


def test_text(effrec):
    done = effrec("validate", *TINY)
    assert done.code == 0
    for text in (
        "parameters",
        "weights",
        "activations",
        "disk free",
        "next: effrec train dataset.num_users=40",
    ):
        assert text in done.out


@pytest.mark.parametrize("verb", ["validate", "train"])
def test_a_lost_folder_of_an_encoder_is_told_before_data_are_prepared(effrec, tmp_path, verb):
    (tmp_path / "log.csv").write_text(
        "u,i,t\n" + "".join(f"{u},{i},a text\n" for u in range(9) for i in range(9))
    )
    columns = ["dataset.path=log.csv", "dataset.user=u", "dataset.item=i", "dataset.title=t"]
    done = effrec(verb, "method=gram", "dataset=table", *columns, "method.encoder.name=./lost")
    assert done.code == 2
    assert "There is no folder './lost'" in done.err + done.out
    assert not list(tmp_path.rglob("manifest.json"))
    assert "rows read" not in done.err
