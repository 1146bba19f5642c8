"""Method cce whose item table starts from a factorisation (papers/cadc section 5: 5, 12, 13 and 17)."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from cadc_helpers import FITTED, held_out, method_on
from pair_helpers import data_of

from effrec_cli import compose
from effrec_cli.app import main
from effrec_cli.data.sampling.sample import sample
from effrec_cli.data.types import Catalogue
from effrec_cli.distributed import World
from effrec_cli.errors import ConfigError
from effrec_cli.methods.cce import CCE
from effrec_cli.methods.factors import kept
from effrec_cli.methods.factors.fit import fit
from effrec_cli.methods.factors.judge import judge_of
from effrec_cli.methods.factors.kept import kept_factors
from effrec_cli.methods.next_item.item_table import start_from
from effrec_cli.report.board import board_table
from effrec_cli.report.compare import compare
from effrec_cli.schema.sample import SampleConfig
from effrec_cli.tensorfile import read_tensors

CPU = torch.device("cpu")
WARM = ["method.init_items=factors", "method.factors.sweeps=3"]
TENTH = SampleConfig(rate=0.1, mode="exact")
TINY = ["experiment=smoke_cce", "run.device=cpu", "run.max_epochs=1", "dataset.num_users=60"]


def made(data, root, *words, start=WARM):
    """Returns the method built on data in memory, its table as the model draws it."""
    settings = ["method=cce", "model.dim=8", "method.batch_size=16", "run.device=cpu", f"data_root={root}"]
    method = CCE(compose.compose([*settings, *start, *words]))
    method.model = method.build(method.prepare(data))
    return method


def started(data, root, *words):
    """Returns the method about to take its first step."""
    method = made(data, root, *words)
    method.warm_start()
    return method


def train(root, folder, *words):
    """Returns the result of a whole run."""
    assert main(["train", f"data_root={root}", f"run.dir={folder}", *TINY, *words]) == 0
    return json.loads((folder / "result.json").read_text())


def weights(folder):
    return read_tensors(folder / "model.safetensors")[0]


@pytest.fixture
def unfitted(monkeypatch):
    """Returns what makes any further factorisation an error."""
    return lambda: monkeypatch.setattr(kept, "fit", None)


@pytest.mark.parametrize("model", ["sasrec", "bert4rec"])
@pytest.mark.parametrize("sparse", [False, True])
def test_items_start_from_their_factors_as_wide_spread_as_drawn_and_all_else_as_drawn(
    model, sparse, tmp_path
):
    data = held_out(num_items=36)
    unmet = [7, 31]
    data.sequences.items[np.isin(data.sequences.items, unmet)] = 3
    words = [f"model={model}", "method.sharing=tile", f"optimizer.sparse_rows={sparse}"]
    drawn = {name: each.clone() for name, each in made(data, tmp_path, *words).model.state_dict().items()}
    method = started(data, tmp_path, *words)
    now = method.model.state_dict()
    vectors = kept_factors(
        compose.compose(["method=cadc", *FITTED]).method.factors, data, tmp_path, CPU, print, seed=1
    )
    assert (vectors.found, vectors.digest) == (True, method.cache_id)
    before, table = drawn.pop("items.weight"), now.pop("items.weight")
    assert all(torch.equal(drawn[name], each) for name, each in now.items())
    met = np.setdiff1d(np.arange(36), unmet)
    assert torch.equal(table[unmet], before[unmet])
    assert table[met].std(correction=0) == pytest.approx(float(before.std(correction=0)), rel=1e-5)
    scale = table[met] / vectors.items[met]
    torch.testing.assert_close(scale, scale.mean().expand_as(scale), rtol=1e-5, atol=0)


def test_a_table_longer_than_the_items_keeps_its_last_rows():
    table = torch.randn(6, 4)
    drawn = table.clone()
    start_from(table, 100 * torch.randn(5, 4), torch.tensor([0, 1, 3]))
    assert torch.equal(table[[2, 4, 5]], drawn[[2, 4, 5]])
    assert not torch.isclose(table[[0, 1, 3]], drawn[[0, 1, 3]]).any()
    assert table[[0, 1, 3]].std(correction=0) == pytest.approx(float(drawn[:5].std(correction=0)), rel=1e-5)


def test_vectors_that_say_nothing_leave_the_table_as_drawn():
    for vectors, trained in ((torch.zeros(6, 4), torch.arange(6)), (torch.randn(6, 4), torch.arange(0))):
        table = torch.randn(6, 4)
        drawn = table.clone()
        start_from(table, vectors, trained)
        assert torch.equal(table, drawn)


@pytest.mark.parametrize("seed", [0, 1])
def test_13_vectors_belong_to_the_raw_ids_however_these_are_shuffled(seed, tmp_path):
    """Sheet test 13: users like even or odd raw ids, whose rows have any numbers."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(16)
    likes = [rng.choice(np.flatnonzero(names % 2 == user % 2), 6, replace=False) for user in range(40)]
    data = replace(data_of(likes, num_items=16, held=1), items=Catalogue(names))
    table = torch.nn.functional.normalize(started(data, tmp_path).model.items.weight.detach())
    cosines = table @ table.T
    same = torch.from_numpy(names[:, None] % 2 == names % 2) & ~torch.eye(16, dtype=torch.bool)
    assert cosines[same].mean() > 0.3 + cosines[~same & ~torch.eye(16, dtype=torch.bool)].mean()


def test_a_run_on_a_sample_starts_from_the_factors_of_all_rows(tmp_path, unfitted):
    data = held_out()
    whole = started(data, tmp_path)
    unfitted()
    part = started(sample(data, TENTH), tmp_path)
    assert part.training_rows == round(0.1 * data.num_train) < whole.training_rows
    assert part.cache_id == whole.cache_id
    assert torch.equal(part.model.items.weight, whole.model.items.weight)
    assert "found as" in part.choices()["method.factors"]


def test_method_cadc_and_other_ranks_find_it_and_method_ials_fits_the_same(tmp_path, unfitted):
    data = held_out()
    first = started(data, tmp_path)
    ials = compose.compose(["method=ials", "method.dim=8", "method.sweeps=3"])
    judge = judge_of("ials", data, ials.evaluation, "ndcg@10", World())
    alone = fit(ials.method, data, CPU, ials.seed, judge).state["items"]
    unfitted()
    cadc, _ = method_on(data, tmp_path)
    assert cadc.cache_id == first.cache_id
    assert (cadc.seconds_cache, cadc.factor_bytes) == (first.seconds_cache, first.factor_bytes)
    assert first.factor_bytes == (40 + 30) * 8 * 4
    assert torch.equal(cadc._factors.items, alone)
    second = made(data, tmp_path)
    second.world = World(rank=1, size=2)
    second.warm_start()
    assert torch.equal(second.model.items.weight, first.model.items.weight)


def test_5_what_is_judged_has_no_say(tmp_path):
    """Sheet test 5: perturbing test rows leaves the first table bitwise unchanged; training rows do not."""
    data = held_out()

    def other(at):
        items = data.sequences.items.copy()
        items[at] = (items[at] + 1) % 30
        return replace(data, sequences=replace(data.sequences, items=items), content_hash="other")

    changed = {"none": data, "test": other(data.test.target_start), "train": other(data.train_start)}
    tables = {name: started(each, tmp_path / name).model.items.weight for name, each in changed.items()}
    assert torch.equal(tables["none"], tables["test"])
    assert not torch.isclose(tables["none"], tables["train"]).all()


def test_17_runs_on_the_same_rows_fit_once_and_compare_shares_the_cost(tmp_path):
    root, runs = tmp_path / "data", tmp_path / "runs"
    warm = [*WARM, "dataset.sample.rate=0.5"]
    costs = [
        train(root, runs / "first", *warm)["cost"],
        train(root, runs / "second", *warm, "method.loss=ce")["cost"],
        train(root, runs / "random", "dataset.sample.rate=0.5")["cost"],
    ]
    assert [costs[0]["seconds_factorise"] > 0, costs[1]["seconds_factorise"]] == [True, 0]
    assert costs[0]["cache_id"] == costs[1]["cache_id"] is not None
    assert costs[0]["seconds_cache"] == costs[1]["seconds_cache"] == costs[0]["seconds_factorise"]
    assert [costs[2][name] for name in ("seconds_factorise", "seconds_cache", "cache_id")] == [None] * 3
    (board,) = compare([runs]).boards
    shared = costs[0]["seconds_cache"] / 2
    assert {
        (
            each.first.config["method"]["init_items"],
            each.first.config["method"]["loss"],
        ): each.seconds_with_factors
        for each in board.entries
    } == pytest.approx(
        {
            ("factors", "cce_sampled"): costs[0]["seconds_total"] + shared,
            ("factors", "ce"): costs[1]["seconds_total"] + shared,
            ("random", "cce_sampled"): costs[2]["seconds_total"],
        }
    )
    assert "total with factors" in [column.header for column in board_table(board).columns]
    assert any("init_items" in name for entry in board.entries for name in entry.settings)


def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path, unfitted):
    root, part = tmp_path / "data", tmp_path / "part"
    whole = train(root, tmp_path / "whole", *WARM, "run.max_epochs=3")["cost"]
    train(root, part, *WARM)
    shutil.rmtree(root / "factors")
    unfitted()
    (part / "status.json").write_text('{"state": "interrupted"}')
    cost = train(root, part, *WARM, "run.max_epochs=3", "run.resume=auto")
    ended, went_on = weights(tmp_path / "whole"), weights(part)
    assert all(torch.equal(each, went_on[name]) for name, each in ended.items())
    assert cost["choices"]["method.factors"].endswith(whole["cache_id"])
    assert (cost["cost"]["cache_id"], cost["cost"]["seconds_factorise"]) == (whole["cache_id"], 0)
    assert cost["cost"]["factor_bytes"] == whole["factor_bytes"]


def test_a_run_whose_checkpoints_are_all_damaged_starts_from_the_factors_again(tmp_path):
    root, part = tmp_path / "data", tmp_path / "part"
    train(root, tmp_path / "whole", *WARM)
    train(root, part, *WARM)
    for each in (part / "checkpoints").glob("*/model.safetensors"):
        each.write_bytes(b"rotten")
    (part / "status.json").write_text('{"state": "interrupted"}')
    train(root, part, *WARM, "run.resume=auto")
    ended, again = weights(tmp_path / "whole"), weights(part)
    assert all(torch.equal(each, again[name]) for name, each in ended.items())


def test_a_finished_run_recommends_and_is_evaluated_without_the_factors(tmp_path, unfitted, capsys):
    root, folder = tmp_path / "data", tmp_path / "run"
    train(root, folder, *WARM)
    history = ",".join(map(str, np.load(folder / "ids" / "items.npy")[:3]))
    asked = ["recommend", str(folder), "--history", history, "--json"]
    found = []
    for _ in range(2):
        capsys.readouterr()
        assert main(asked) == 0
        found.append(capsys.readouterr().out)
        shutil.rmtree(root / "factors", ignore_errors=True)
        unfitted()
    assert found[0] == found[1]
    assert main(["evaluate", str(folder)]) == 0
    assert "the same as" in capsys.readouterr().out
    assert not (root / "factors").exists()


def test_a_look_at_a_run_fits_nothing(tmp_path, capsys):
    train(tmp_path, tmp_path / "run")
    capsys.readouterr()
    assert main(["validate", *TINY, *WARM, f"data_root={tmp_path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["all"] > 0
    assert not (tmp_path / "factors").exists()


WRONG = {
    "reg=0.1 would do nothing: it is for init_items=factors, not random.": (
        ["method.factors.reg=0.1"],
        "method.factors.reg",
        "method.init_items=factors, or method.factors.reg=null",
    ),
    "kind=bpr would do nothing: it is for init_items=factors, not random.": (
        ["method.factors.kind=bpr"],
        "method.factors.kind",
        "method.init_items=factors, or method.factors.kind=ials",
    ),
    "The item table is model.dim=32 wide, and so must be vectors that it starts from.": (
        ["method.init_items=factors", "model.dim=32", "method.factors.dim=16"],
        "method.factors.dim",
        "method.factors.dim=null, or model.dim=16",
    ),
    "lr=0.1 would do nothing: it is for kind=bpr, not ials.": (
        ["method.init_items=factors", "method.factors.lr=0.1"],
        "method.factors.lr",
        "method.factors.kind=bpr, or method.factors.lr=null",
    ),
    "explicit_als keeps biases in 2 of the columns; 3 is the least.": (
        ["method.init_items=factors", "model.dim=2", "method.factors.kind=explicit_als"],
        "model.dim",
        "model.dim=3 or more",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_settings_that_do_nothing_or_cannot_be_are_refused(what):
    words, where, fix = WRONG[what]
    with pytest.raises(ConfigError) as refusal:
        compose.compose(["method=cce", *words])
    assert (refusal.value.what, refusal.value.where, refusal.value.fix) == (what, where, fix)


def test_a_width_that_the_catalogue_decides_must_be_the_factors_too(tmp_path):
    made(held_out(), tmp_path, "model.dim=null", "method.factors.dim=32")
    with pytest.raises(ConfigError) as refusal:
        made(held_out(), tmp_path, "model.dim=null", "method.factors.dim=16")
    assert refusal.value.what.startswith("The item table is 32 wide for this catalogue")
    assert refusal.value.fix == "method.factors.dim=null, or model.dim=16"
