"""What a run chose when it began it keeps, wherever it goes on."""

import json

import pytest

from effrec_cli.engine import Engine
from effrec_cli.errors import Interrupted
from effrec_cli.methods import cce
from effrec_cli.methods.next_item.choice import Choice

TOY = [
    "dataset.num_users=60", "dataset.num_items=1500", "dataset.interactions_per_user=12", "model.dim=16",
    "model.max_length=10", "method.batch_size=32", "method.loss=auto", "method.num_negatives=3",
    "method.sharing=tile", "run.device=cpu", "run.max_epochs=2",
]  # fmt: skip


def on_a_device_that_chooses(monkeypatch, loss, sparse_rows):
    """Makes runs choose as they would there."""
    monkeypatch.setattr(cce, "cheaper_loss", lambda *_: Choice(loss, "cheaper here"))
    monkeypatch.setattr(cce.row_sparse, "pays", lambda *_: Choice(sparse_rows, "few rows here"))


def stop_after(monkeypatch, steps):
    """Makes a run save and stop there, as a signal would."""
    after_step = Engine._after_step

    def stopping(engine):
        after_step(engine)
        if engine.steps == steps:
            engine._leave()

    monkeypatch.setattr(Engine, "_after_step", stopping)


def settings_of(folder):
    found = json.loads((folder / "result.json").read_text())
    return found["config"]["method"]["loss"], found["config"]["optimizer"]["sparse_rows"]


@pytest.mark.parametrize(
    ("began", "elsewhere"),
    [
        (("cce_sampled", True), ("cce", False)),
        (("cce_sampled", False), ("cce_sampled", True)),
        (("cce", False), ("cce_sampled", True)),
    ],
)
def test_a_run_goes_on_as_it_began_on_a_device_that_would_choose_otherwise(
    effrec, tmp_path, monkeypatch, began, elsewhere
):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    on_a_device_that_chooses(monkeypatch, *began)
    assert effrec("train", *TOY, f"run.dir={whole}").code == 0
    with monkeypatch.context() as stopped:
        stop_after(stopped, 3)
        assert effrec("train", *TOY, f"run.dir={folder}").code == Interrupted.exit_code
    on_a_device_that_chooses(monkeypatch, *elsewhere)
    looked = effrec("validate", "--json", *TOY, f"run.dir={folder}", "run.resume=auto")
    assert json.loads(looked.out)["config"]["optimizer"]["sparse_rows"] is began[1]
    done = effrec("resume", str(folder))
    assert done.code == 0, done.err
    assert settings_of(folder) == settings_of(whole) == began
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
