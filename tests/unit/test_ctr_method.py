"""Method cadc on labelled rows: tasks, factors of clicks, probabilities that mean what they say."""

import numpy as np
import pytest
import torch
from cadc_helpers import stepped
from click_helpers import clicks, log_of, method_on
from data_helpers import quiet

from effrec_cli import compose
from effrec_cli.app import main
from effrec_cli.backbone import task_of_run
from effrec_cli.data.batches import Share
from effrec_cli.data.click_features import ClickFeatures, Reading
from effrec_cli.data.load import load
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.calibration import calibration
from effrec_cli.methods.cadc import CADC
from effrec_cli.methods.ctr.judge import logits_of
from effrec_cli.methods.ctr.method import ClickCADC
from effrec_cli.methods.ctr.network import positives_of
from effrec_cli.models.clicks import RowDLRM, RowNeuMF
from effrec_cli.models.id_embeddings import drawn
from effrec_cli.schema.protocols import metrics_of, monitor_of, task_of

LABELLED = ["method=cadc", "dataset=table", "dataset.path=log.csv", "dataset.label=click"]
SIMULATED = ["method=cadc", "dataset=synthetic"]


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ([*LABELLED, "model=dlrm"], "ctr"),
        ([*LABELLED, "model=neumf"], "ctr"),
        ([*LABELLED, "model=two_tower"], "top_n"),
        ([*LABELLED, "model=dlrm", "method.task=top_n"], "top_n"),
        ([*SIMULATED, "model=dlrm"], "top_n"),
        ([*SIMULATED, "model=dlrm", "method.task=ctr"], "ctr"),
    ],
)
def test_model_data_and_settings_decide_the_task(words, task):
    config = compose.compose(words)
    assert task_of(config) == CADC(config).task == task
    assert isinstance(CADC(config), ClickCADC) == (task == "ctr")
    assert monitor_of(config) == ("auc" if task == "ctr" else "ndcg@10")


def test_a_model_that_does_not_take_the_task_is_told_which_do():
    config = compose.compose([*SIMULATED, "model=two_tower", "method.task=ctr"])
    with pytest.raises(ConfigError, match="'ctr'") as caught:
        _ = CADC(config).task
    assert "dlrm" in str(caught.value.fix)
    assert "neumf" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ([*LABELLED, "model=dlrm", "method.loss=cce"], "method.loss"),
        ([*LABELLED, "model=dlrm", "method.num_negatives=2"], "method.num_negatives"),
        ([*LABELLED, "model=dlrm", "method.sample.mode=user"], "method.sample.mode"),
        ([*LABELLED, "model=dlrm", "dataset.sample.rate=0.5"], "dataset.sample.rate"),
        ([*LABELLED, "model=dlrm", "evaluation.monitor=ece"], "evaluation.monitor"),
        ([*LABELLED, "model=dlrm", "evaluation.monitor=calibration"], "evaluation.monitor"),
        ([*LABELLED, "model=dlrm", "method.negative_correction=weights"], "method.negative_correction"),
        ([*SIMULATED, "model=dlrm", "method.negative_rate=0.5"], "method.negative_rate"),
        (
            [*LABELLED, "model=dlrm", "method.factorise=rest", "method.sample.rate=1"],
            "method.factorise",
        ),
    ],
)
def test_settings_of_another_task_are_refused(words, where):
    with pytest.raises(ConfigError, match=where.replace(".", r"\.")):
        compose.compose(words)


@pytest.mark.parametrize("words", [["model=two_tower"], ["model=dlrm", "method.task=top_n"], ["method=pop"]])
def test_interactions_of_nobody_are_not_trained_on(words):
    config = compose.compose([*LABELLED, "dataset.user=null", "dataset.item=null", *words])
    with pytest.raises(ConfigError, match="name no users and items") as caught:
        task_of_run(config)
    assert "model=dlrm" in str(caught.value.fix)


def test_clicks_of_training_alone_are_factorised():
    made = clicks(300, ids=True)
    found = positives_of(made)
    rows = np.flatnonzero((made.part == 0) & (made.labels == 1))
    wanted = {
        user: sorted(made.items[rows[made.users[rows] == user]].tolist()) for user in range(found.num_users)
    }
    assert {user: found.train_items(user).tolist() for user in range(found.num_users)} == wanted
    assert (len(found.valid), len(found.test)) == (0, 0)


def test_the_networks_own_clicks_are_left_out_of_the_factors(tmp_path):
    """Else a vector would tell the network the labels that it trains on."""
    path, sampled = log_of(tmp_path, 600), "method.sample.rate=0.5"
    method, _ = method_on(tmp_path, path, sampled, ids=True)
    train = method.clicks.of_part("train")
    clicked = train[method.clicks.labels[train] == 1]
    others = sorted(set(clicked.tolist()) - set(method.kept.rows.tolist()))
    assert 0 < len(others) < len(clicked)
    found = positives_of(method.clicks, method.kept.rows)
    pairs = np.repeat(np.arange(found.num_users), np.diff(found.sequences.offsets)), found.sequences.items
    wanted = zip(method.clicks.users[others].tolist(), method.clicks.items[others].tolist(), strict=True)
    assert sorted(zip(*(each.tolist() for each in pairs), strict=True)) == sorted(wanted)
    chosen = {"rest": method._factors.digest}
    for words in ((sampled, "method.factorise=all"), ("method.sample.rate=1",)):
        other, _ = method_on(tmp_path, path, *words, ids=True)
        assert other.choices()["method.factorise"] == "all"
        chosen["all"] = other._factors.digest
    assert method.choices()["method.factorise"] == "rest"
    assert chosen["rest"] != chosen["all"]


def test_validation_and_test_rows_change_no_factor(tmp_path):
    path = log_of(tmp_path)
    lines = path.read_text().splitlines()
    changed = [*lines[:330], *(line.rsplit(",", 3)[0] + ",1,k1,9" for line in lines[330:380]), *lines[380:]]
    other = path.with_name("other.csv")
    other.write_text("\n".join(changed) + "\n")
    first, _ = method_on(tmp_path, path, ids=True)
    second, _ = method_on(tmp_path, other, ids=True)
    assert (first.clicks.labels != second.clicks.labels).sum() > 20
    torch.testing.assert_close(first._factors.users, second._factors.users, rtol=0, atol=0)
    torch.testing.assert_close(first._factors.items, second._factors.items, rtol=0, atol=0)
    assert first._factors.digest == second._factors.digest


@pytest.mark.parametrize("model", ["dlrm", "neumf"])
def test_frozen_vectors_are_the_factors_before_and_after_training(model, tmp_path):
    words = (f"model={model}", "method.sample.rate=1", "method.batch_size=32")
    method, batches = method_on(tmp_path, log_of(tmp_path), *words, ids=True)
    tables = [each.table.clone() for each in method.model.ids]
    for table, factors in zip(tables, (method._factors.users, method._factors.items), strict=True):
        torch.testing.assert_close(table / table.std(), factors / factors.std())
    stepped(method, batches, 10)
    for each, before in zip(method.model.ids, tables, strict=True):
        assert torch.equal(each.table, before)
        assert not isinstance(each.table, torch.nn.Parameter)


@pytest.mark.parametrize("embedding", ["rand", "init_upd", "concat", "two_rate"])
def test_every_strategy_trains(embedding, tmp_path):
    words = (f"method.embedding={embedding}", "method.sample.rate=1", "method.batch_size=32")
    method, batches = method_on(tmp_path, log_of(tmp_path), *words, ids=True)
    before = method.model.ids[0].table.clone()
    stepped(method, batches, 5)
    assert torch.equal(method.model.ids[0].table, before) == (embedding == "concat")


@pytest.mark.parametrize(("rate", "correction"), [(1.0, "shift"), (0.2, "shift"), (0.2, "weights")])
def test_probabilities_are_calibrated_whatever_share_of_zeros_is_kept(rate, correction, tmp_path):
    words = (f"method.negative_rate={rate}", "method.sample.rate=1", "method.batch_size=64")
    if rate < 1:
        words = (*words, f"method.negative_correction={correction}")
    method, batches = method_on(tmp_path, log_of(tmp_path, 3000), *words, "optimizer.lr=0.01")
    stepped(method, batches, 4 * batches.steps_per_epoch)
    found = method.judge("test")
    assert found["calibration"] == pytest.approx(1, abs=0.2)
    assert found["auc"] > 0.7
    rows = method.clicks.of_part("test")
    raw = logits_of(method.model, method.features, rows, 0.0, method.world)
    bare = calibration(raw, method.clicks.labels[rows])
    assert (bare > 1.8) == (rate < 1 and correction == "shift")


def test_a_network_starts_at_the_base_rate(tmp_path):
    method, _ = method_on(tmp_path, log_of(tmp_path, 2000), "method.sample.rate=1")
    rate = method.clicks.labels[method.clicks.of_part("train")].mean()
    logit = np.log(rate / (1 - rate))
    assert float(method.model.network[-1].bias.detach()) == pytest.approx(logit, rel=1e-5)


def test_shares_of_a_step_add_up_to_its_loss(tmp_path):
    words = ("method.negative_rate=0.5", "method.negative_correction=weights", "method.sample.rate=1")
    method, batches = method_on(tmp_path, log_of(tmp_path), *words, "method.batch_size=64")
    whole = method.loss(batches.batch(0, 0, Share(), 0))
    parts = [method.loss(batches.batch(0, 0, Share(rank=rank, ranks=3), 0)) for rank in range(3)]
    torch.testing.assert_close(sum(parts), whole)


def test_judging_does_not_depend_on_the_size_of_blocks(tmp_path, monkeypatch):
    method, _ = method_on(tmp_path, log_of(tmp_path))
    whole = method.judge("test")
    monkeypatch.setattr("effrec_cli.methods.ctr.judge.ROWS", 7)
    assert method.judge("test") == pytest.approx(whole, rel=1e-5)
    assert method.judge("test", 5) == {}


def test_a_saved_network_judges_as_the_trained_one(tmp_path):
    path = log_of(tmp_path)
    method, batches = method_on(tmp_path, path, ids=True)
    stepped(method, batches, 3)
    reopened = CADC(method.config)
    reopened.reopen()
    reopened.data = method.data
    reopened.model = reopened.build(method.data)
    reopened.load_state_dict(method.state_dict())
    assert reopened.judge("test") == method.judge("test")


def test_ids_without_a_training_row_say_nothing():
    made = clicks(ids=True)
    made.users[made.of_part("train")] = 3
    features = ClickFeatures(made, Reading())
    torch.manual_seed(0)
    model = RowDLRM(
        [drawn(12, 4), drawn(9, 4)], features.num_dense, features.cardinalities, bottom=[8], top=[8]
    )
    vectors = model.id_vectors(torch.from_numpy(features.ids(np.arange(len(made)))))[0]
    known = torch.from_numpy(made.users == 3)
    assert (vectors[~known] == 0).all()
    assert (vectors[known] != 0).any(1).all()


def test_products_of_dlrm_are_of_each_two_vectors():
    torch.manual_seed(0)
    model = RowDLRM([drawn(5, 3), drawn(6, 3)], 2, [4], bottom=[8], top=[8])
    ids, dense, codes = torch.tensor([[1, 2]]), torch.randn(1, 2), torch.tensor([[3]])
    z = model.bottom(dense)[0]
    vectors = [model.ids[0].table[1], model.ids[1].table[2], model.categories.table.weight[3], z]
    products = [vectors[a] @ vectors[b] for a in range(4) for b in range(a + 1, 4)]
    wanted = model.network(torch.cat([z, torch.stack(products)]))
    torch.testing.assert_close(model(ids, dense, codes), wanted)


def test_neumf_adds_a_weighed_product_to_its_network():
    torch.manual_seed(0)
    model = RowNeuMF([drawn(5, 3), drawn(6, 3)], 2, [4], hidden=[8], category_dim=2)
    with torch.no_grad():
        model.product.copy_(torch.tensor([1.0, -2.0, 3.0]))
    ids, dense, codes = torch.tensor([[1, 2]]), torch.randn(1, 2), torch.tensor([[3]])
    read = [model.twins[0].table[1], model.twins[1].table[2], dense[0], model.categories.table.weight[3]]
    product = (model.ids[0].table[1] * model.ids[1].table[2]) @ model.product
    torch.testing.assert_close(model(ids, dense, codes), product + model.network(torch.cat(read)))


def test_neumf_without_ids_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="multiplies their vectors"):
        method_on(tmp_path, log_of(tmp_path), "model=neumf")


def test_the_simulators_slates_are_rows_with_a_ceiling(tmp_path):
    words = [*SIMULATED, "model=dlrm", "method.task=ctr", f"data_root={tmp_path}", "run.device=cpu"]
    words += ["dataset.side=[features,impressions]", "dataset.num_users=300", "dataset.num_items=200"]
    config = compose.compose([*words, "method.factors.dim=4"])
    data = load(config.dataset, tmp_path, quiet)
    method = CADC(config)
    method.model = method.build(method.prepare(data))
    clicked = data.side["impressions_clicks"]
    assert len(method.clicks) == clicked.size
    assert method.clicks.labels.sum() == clicked.sum()
    row = 17
    slate, place = divmod(row, clicked.shape[1])
    user = data.side["impressions_user"][slate]
    item = data.side["impressions_candidates"][slate, place]
    assert (method.clicks.users[row], method.clicks.items[row]) == (user, item)
    users, items = method.clicks.about
    wanted = np.concatenate([users.dense[user], items.dense[item]])
    np.testing.assert_allclose(method.features.dense(np.array([row]))[0, : len(wanted)], wanted, rtol=1e-5)
    ceiling = method.ceiling
    assert ceiling["calibration"] == pytest.approx(1, abs=0.1)
    assert ceiling["auc"] > method.judge("test")["auc"]
    assert ceiling["ne"] < 1


def test_metrics_of_the_task_are_those_that_are_judged(tmp_path):
    method, _ = method_on(tmp_path, log_of(tmp_path))
    assert list(method.judge("valid")) == metrics_of(method.config)
    stamped = method.protocol()
    assert stamped["task"] == "ctr"
    assert stamped["parts"] == {"last_of_all": {"test_share": 0.1, "valid_share": 0.1}, "by": "time"}


@pytest.mark.parametrize(("model", "told"), [("two_tower", True), ("dlrm", False)])
def test_a_run_that_trains_on_interactions_says_that_labels_are_passed_by(model, told, tmp_path, capsys):
    rows = [(user, item, int((user + item) % 3 > 0)) for user in range(12) for item in range(10)]
    log = "user,item,click\n" + "".join(f"{user},{item},{click}\n" for user, item, click in rows)
    (tmp_path / "log.csv").write_text(log)
    words = ["dataset=table", f"dataset.path={tmp_path / 'log.csv'}", "dataset.label=click"]
    words += ["dataset.user=user", "dataset.item=item", "method.factors.dim=4", "run.max_epochs=1"]
    folders = [f"data_root={tmp_path / 'data'}", f"run.dir={tmp_path / 'run'}"]
    assert main(["train", "method=cadc", f"model={model}", *words, *folders]) == 0
    said = "task top_n trains on interactions: rows with click=0 and the columns beside them are passed by"
    assert (said in capsys.readouterr().err) == told
