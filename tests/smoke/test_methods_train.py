"""Every method and every loss trains on the simulator, on a CPU, through the front door."""

import json

import pytest

from effrec_cli import registry
from effrec_cli.app import main
from effrec_cli.schema.method_cadc import IDS_ALONE, OVER_VECTORS
from effrec_cli.schema.method_cce import LOSSES

OVER_PAIRS = ("bce", *OVER_VECTORS)

SMALL = ["dataset.num_users=120", "dataset.num_items=80", "run.max_epochs=1", "run.device=cpu"]
TINY = [*SMALL, "evaluation.ks=[5,10]"]
SMALL_MODEL = ["model.dim=16", "model.num_layers=1", "model.max_length=20", "method.num_negatives=15"]


def train(tmp_path, *overrides, tiny=TINY):
    folder = tmp_path / "run"
    assert main(["train", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *tiny, *overrides]) == 0
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("method", sorted(registry._BUILT_IN["methods"]))
def test_every_method_trains(method, tmp_path):
    extra = SMALL_MODEL if method == "cce" else []
    extra = [*extra, "method.factors.dim=8"] if method == "cadc" else extra
    result = train(tmp_path, f"method={method}", *extra)
    assert result["method"] == method
    assert 0 <= result["metrics"]["test"]["ndcg@10"] <= 1
    assert 0 < result["ceiling"]["ndcg@10"] <= 1
    assert result["cost"]["seconds_total"] > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(loss, tmp_path):
    result = train(tmp_path, "method=cce", f"method.loss={loss}", *SMALL_MODEL)
    assert result["config"]["method"]["loss"] == loss
    assert result["kernel"] == "torch"
    assert result["cost"]["flops_per_sample"] > 0


def models_of(*tasks):
    """Returns the models that one of the tasks feeds."""
    return sorted(name for name, row in registry._BUILT_IN["models"].items() if set(tasks) & set(row.tasks))


@pytest.mark.parametrize("model", models_of("news", "knowledge_tracing"))
def test_every_model_over_contents_trains_and_is_judged_by_its_own_protocol(model, tmp_path):
    result = train(tmp_path, "method=gram", f"model={model}", "method.encoder.dim=16", tiny=SMALL)
    assert result["model"] == model
    assert result["config"]["evaluation"]["monitor"] == "auc"
    assert 0 <= result["metrics"]["test"]["auc"] <= 1
    assert result["protocol"]["task"] in registry.row("models", model).tasks


@pytest.mark.parametrize("model", models_of("next_item"))
def test_every_model_trains(model, tmp_path):
    result = train(tmp_path, "method=cce", f"model={model}", *SMALL_MODEL)
    assert result["model"] == model
    assert result["config"]["model"]["packed"] is True
    assert result["choices"]["model.packed"] == "true on cpu"


@pytest.mark.parametrize("model", sorted(set(models_of("top_n")) - set(IDS_ALONE)))
def test_every_model_over_pairs_trains(model, tmp_path):
    result = train(tmp_path, "method=cadc", f"model={model}", "method.factors.dim=8")
    assert result["model"] == model
    assert result["cost"]["training_rows"] < 0.15 * result["dataset"]["interactions"]
    assert result["cost"]["seconds_cache"] > 0


@pytest.mark.parametrize("model", models_of("top_n"))
def test_every_model_over_tables_trains(model, tmp_path):
    of_users = ["model.hidden=16", "model.latent=8"]
    words = of_users if model == "multvae" else ["method.dim=16", "method.num_negatives=3"]
    result = train(tmp_path, "method=dsl", f"model={model}", *words)
    assert result["model"] == model
    assert result["sparsity"]["live"] == 0.25 * result["sparsity"]["of"]


@pytest.mark.parametrize("loss", OVER_PAIRS)
@pytest.mark.parametrize("embedding", ["rand", "residual"])
def test_every_loss_over_pairs_trains(loss, embedding, tmp_path):
    words = [f"method.loss={loss}", f"method.embedding={embedding}", "method.factors.dim=8"]
    result = train(tmp_path, "method=cadc", *words)
    assert result["config"]["method"]["loss"] == loss
    assert result["cost"]["flops_per_sample"] > 0
