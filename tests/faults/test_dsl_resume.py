"""A run of method dsl told to stop within a window of gradients, and resumed: the same bytes."""

import json
import os
import signal

import pytest

from effrec_cli.app import main
from effrec_cli.methods.dsl import DSL

SMALL = [
    "method=dsl",
    "method.dim=16",
    "method.batch_size=64",
    "method.update_every=0.7",
    "dataset.num_users=90",
    "dataset.num_items=40",
    "dataset.interactions_per_user=12",
    "optimizer.schedule=cosine",
    "run.max_epochs=4",
    "run.log_every=3",
    "run.device=cpu",
]
SEQUENCE = ["model=sasrec", "model.max_length=8", "model.num_layers=1", "method.batch_size=16"]
MODES = {
    "row": [],
    "global, of micro-batches": ["method.structure=global", "run.accumulate=2"],
    "of one budget": ["method.structure=global", "method.redistribute=true", "model=neumf"],
    "masked": ["method.storage=masked", "method.turns=2"],
    "topk_anneal": ["method.mode=topk_anneal", "method.update_every=0.3"],
    "set": ["method.mode=set"],
    "rigl, past its last update": ["method.mode=rigl", "method.stop=0.5", "method.update_every=0.5"],
    "layers": ["model=two_tower", "model.hidden=[16]", "method.layers=2of4", "run.accumulate=2"],
    "sasrec": [*SEQUENCE, "run.accumulate=2"],
    "sasrec, full softmax": [*SEQUENCE, "method.loss=cce", "method.structure=global"],
}
CALLS = (29, 29, 29, 15, 20, 29, 40, 29, 33, 16)
UNWATCHED = ("set", "topk_anneal", "rigl, past its last update")


def run(tmp_path, name, *words):
    folder = tmp_path / name
    code = main(["train", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *SMALL, *words])
    return code, folder


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    held = [result["cost"][f"{what}_bytes"] for what in ("weights", "gradient", "optimizer")]
    return (folder / "model.safetensors").read_bytes(), result["metrics"], result["sparsity"], held


@pytest.mark.parametrize(("mode", "call"), [*zip(MODES, CALLS, strict=True)])
def test_a_run_told_to_stop_ends_as_one_that_was_not(mode, call, tmp_path, monkeypatch):
    words = MODES[mode]
    code, whole = run(tmp_path, "whole", *words)
    assert code == 0
    calls, watched, honest = [], [], DSL.training_step

    def told(self, batch, engine):
        calls.append(1)
        found = honest(self, batch, engine)
        if len(calls) == call:
            watched.append(bool(self.extra_tensors()))
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(DSL, "training_step", told)
        code, broken = run(tmp_path, "broken", *words)
    assert code == 143
    assert watched == [mode not in UNWATCHED], "it was to stop within a window"
    assert main(["resume", str(broken)]) == 0
    assert len(outcome(whole)[2]["updates"]) > 3
    assert outcome(broken) == outcome(whole)


def test_a_finished_run_without_its_result_tells_the_same_again(tmp_path):
    for mode in ("rigl", "topk_anneal"):
        code, folder = run(tmp_path, mode, f"method.mode={mode}")
        assert code == 0
        before = outcome(folder)
        (folder / "result.json").unlink()
        assert main(["resume", str(folder)]) == 0
        assert outcome(folder) == before


def test_what_narrows_is_told_as_large_as_it_was(tmp_path):
    _, folder = run(tmp_path, "narrowed", "method.mode=topk_anneal", "method.density=0.125")
    held, numbers = outcome(folder)[3], 130 * 16 / 2  # half of each row at first
    assert held[0] == 5 * numbers
    assert held[2] == 8 * numbers + 4 * 130  # moments, and the age of each row


def test_more_turns_than_steps_are_refused_before_the_first(tmp_path, capsys):
    code, folder = run(tmp_path, "refused", "method.turns=1000")
    said = capsys.readouterr().err
    assert code == 2
    assert "Rows take 1000 turns" in said
    assert "method.turns" in said
    assert not (folder / "result.json").exists()
