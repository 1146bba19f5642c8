"""`method.loss=auto`: the cheaper loss by arithmetic, told to the user and kept by a run."""

import json
import re
from pathlib import Path

import pytest
import torch
from effrec_kernels.rates import CPU
from effrec_kernels.work import break_even_negatives
from test_cce import chain, gradients, make

from effrec_cli.data.batches import Share
from effrec_cli.distributed import World
from effrec_cli.methods.cce import CCE
from effrec_cli.methods.next_item.cheaper import cheaper_loss
from effrec_cli.methods.next_item.windows import windows_for
from effrec_cli.schema import Config
from effrec_cli.schema.method_cce import CCEConfig
from effrec_cli.schema.model_bert4rec import BERT4RecConfig
from effrec_cli.schema.model_sasrec import SASRecConfig

# Large enough that sampling pays for a few negatives.
ITEMS = 400


@pytest.fixture(scope="module")
def data():
    return chain(num_users=60, num_items=ITEMS)


def config(num_negatives=15, dim=16, accumulate=1, precision="fp32", **method):
    own = CCEConfig(loss="auto", num_negatives=num_negatives, **{"batch_size": 16, **method})
    found = Config(model=SASRecConfig(dim=dim, max_length=8), method=own)
    found.run.accumulate, found.run.precision = accumulate, precision
    return found


def chosen(data, world=None, **options):
    return cheaper(config(**options), data, world or World())


def cheaper(settings, data, world):
    return cheaper_loss(settings, windows_for(settings, data), data.num_items, 16, world)


def most(choice):
    """Returns the break-even N that a choice tells."""
    return int(re.search(r"N = ([\d,]+)", choice.why)[1].replace(",", ""))


def test_it_follows_the_number_of_negatives(data):
    """Up to the break-even N that it tells sampling is chosen, from the next on the full softmax."""
    limit = most(chosen(data))
    assert 1 < limit < ITEMS / 4
    assert [chosen(data, num_negatives=n).value for n in (1, limit, limit + 1, 300)] == [
        "cce_sampled", "cce_sampled", "cce", "cce"
    ]  # fmt: skip


def test_the_break_even_is_that_of_the_steps_rows(data):
    """60 windows of 9 targets in 8 steps: 67 rows a step, which two ranks and three micro-batches share."""
    targets, windows = data.num_train - 60, 120
    rows = -(-targets // -(-windows // 16))
    for size, accumulate in ((1, 1), (2, 3)):
        choice = chosen(data, World(size=size), accumulate=accumulate)
        mine = rows // (size * accumulate)
        assert f"{mine:,} rows of width 16" in choice.why
        assert most(choice) == break_even_negatives(mine, ITEMS, 16, CPU, item_bytes=4)
    assert most(chosen(data, window="last")) == break_even_negatives(
        60 * 8 // -(-60 // 16), ITEMS, 16, CPU, item_bytes=4
    )


def test_masked_items_are_the_rows_of_a_model_that_reads_masks(data):
    masked, all_masked = (config(), config())
    for one, ratio in ((masked, 0.25), (all_masked, 1.0)):
        one.model = BERT4RecConfig(dim=16, max_length=8, mask_ratio=ratio, last_only=0.0)
    some, every = (cheaper(one, data, World()) for one in (masked, all_masked))
    rows = [int(re.search(r"\(([\d,]+) rows", one.why)[1]) for one in (some, every)]
    assert rows[1] == -(-data.num_train // 8)
    # 60 windows of 2 to 8 items, or so: in one of six nothing is masked by chance, and one is all the same.
    assert 0.25 * rows[1] < rows[0] < 0.33 * rows[1]


def test_shared_negatives_pay_for_longer(data):
    alone, tile, batch = (most(chosen(data, sharing=kind, tile_rows=2)) for kind in ("row", "tile", "batch"))
    assert alone < tile < batch
    assert tile < most(chosen(data, sharing="sequence")) <= batch


@pytest.mark.parametrize("kernel", ["auto", "torch", "reference", "triton"])
def test_who_computes_changes_nothing(data, kernel):
    assert chosen(data, kernel=kernel) == chosen(data)
    assert chosen(data, kernel=kernel, num_negatives=300) == chosen(data, num_negatives=300)


def test_a_gpu_is_asked_for_its_properties_and_nothing_is_timed(data, monkeypatch):
    asked = []

    def rates(device, dtype, items, dim):
        asked.append((device.type, dtype, items, dim))
        return CPU

    monkeypatch.setattr("effrec_cli.methods.next_item.cheaper.rates_of_device", rates)
    monkeypatch.setattr("time.perf_counter", lambda: pytest.fail("timed"))
    chosen(data, World(device=torch.device("cuda")), precision="bf16")
    assert asked == [("cuda", torch.bfloat16, ITEMS, 16)]


@pytest.mark.parametrize(("number", "loss"), [(3, "cce_sampled"), (300, "cce")])
def test_the_method_trains_by_what_was_chosen(data, number, loss):
    auto, given = (make(data, loss=name, num_negatives=number) for name in ("auto", loss))
    assert auto.config == given.config
    assert gradients(auto, [Share()])[0] == gradients(given, [Share()])[0]
    assert list(auto.choices()) == ["method.loss", "optimizer.sparse_rows"]
    assert auto.choices()["method.loss"].startswith(f"{loss}, for {number} negatives")
    assert list(given.choices()) == ["optimizer.sparse_rows"]
    assert given.extra_state() == {"sparse_rows": False}


def test_the_width_is_the_models_where_none_is_given(data):
    method = CCE(config(dim=None))
    method.prepare(data)
    assert "rows of width 32" in method.choices()["method.loss"]


def test_the_example_of_the_docs_runs():
    page = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
    (example, *_) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    found = {}
    exec(example.replace("cuda", "cpu").replace("bfloat16", "float32"), found)
    assert 0 < found["most"] < found["V"]


def going_on(data, state, **settings):
    """Returns the method of a run whose checkpoint holds `state`."""
    method = CCE(make(data, **settings).config)
    method.config.method.loss = settings["loss"]
    method.recall(state)
    method.build(method.prepare(data))
    return method


def test_a_run_keeps_what_it_began_with(data):
    """A checkpoint from a device where the other loss was cheaper."""
    method = going_on(data, {"loss": "cce_sampled"}, loss="auto", num_negatives=300)
    assert method.config.method.loss == "cce_sampled"
    assert method.extra_state()["loss"] == "cce_sampled"
    assert "as the run began; chosen here: cce, for" in method.choices()["method.loss"]
    sampled = make(data, loss="cce_sampled", num_negatives=300)
    assert gradients(method, [Share()])[0] == gradients(sampled, [Share()])[0]


def test_a_loss_that_was_given_is_not_a_checkpoints_to_change(data):
    method = going_on(data, {"loss": "cce_sampled"}, loss="cce")
    assert method.config.method.loss == "cce"


def test_the_same_choice_needs_no_word_on_how_the_run_began(data):
    method = going_on(data, {"loss": "cce"}, loss="auto", num_negatives=300)
    assert "as the run began" not in method.choices()["method.loss"]


TOY = [
    "dataset.num_users=60", "dataset.num_items=300", "dataset.interactions_per_user=12", "model.dim=16",
    "model.max_length=10", "method.batch_size=16", "method.loss=auto", "run.device=cpu",
]  # fmt: skip


@pytest.mark.parametrize(("number", "loss"), [(3, "cce_sampled"), (255, "cce")])
def test_result_log_and_validation_say_what_was_chosen(tmp_path, capsys, number, loss):
    from effrec_cli.app import main

    folder = tmp_path / "run"
    settings = [f"data_root={tmp_path}", *TOY, f"method.num_negatives={number}"]
    assert main(["validate", "--json", *settings]) == 0
    looked = json.loads(capsys.readouterr().out)
    assert main(["validate", *settings]) == 0
    assert "method.loss" in capsys.readouterr().out
    assert main(["train", *settings, f"run.dir={folder}", "run.max_epochs=1"]) == 0
    found = json.loads((folder / "result.json").read_text())
    why = found["choices"]["method.loss"]
    assert why.startswith(f"{loss}, for {number} negatives")
    assert found["config"]["method"]["loss"] == looked["config"]["method"]["loss"] == loss
    assert (folder / "log.txt").read_text().count(f"method.loss: {why}") == 1
    assert looked["choices"]["method.loss"].startswith(f"{loss}, for")
    assert main(["show", str(folder)]) == 0
    assert "chosen    method.loss" in capsys.readouterr().out
