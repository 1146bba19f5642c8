"""Checkpoints: whole or not at all, checked on load, free of code, at home on any device."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from torch import nn

from effrec_cli import checkpoint
from effrec_cli.checkpoint import Checkpoint, pack_optimizer, unpack_optimizer
from effrec_cli.errors import DataError, EnvironmentFault
from effrec_cli.tensorfile import read_tensors, write_tensors


def make(step=1, best=None):
    return Checkpoint(
        model={"w": torch.arange(6.0).reshape(2, 3) + step, "n": torch.tensor(step)},
        best=best,
        optimizers={"0.0.exp_avg": torch.full((2, 3), 0.1 * step)},
        state={"steps": step, "loss": 0.1 + 0.2, "selection": {"step": None}},
    )


def same(left, right):
    assert left.state == right.state
    for one, other in ((left.model, right.model), (left.optimizers, right.optimizers)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def spoil(path, how):
    if how == "missing":
        path.unlink()
    elif how == "short":
        path.write_bytes(path.read_bytes()[:-5])
    elif how == "empty":
        path.write_bytes(b"")
    else:  # one bit
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_what_is_saved_is_loaded(tmp_path):
    best = {"w": torch.ones(2, 3, dtype=torch.bfloat16)}
    checkpoint.save(tmp_path / "c", make(7, best))
    loaded = checkpoint.load(tmp_path / "c")
    same(loaded, make(7))
    assert torch.equal(loaded.best["w"], best["w"])
    assert loaded.best["w"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *(("state.json", how) for how in ("missing", "short", "empty", "a bit")),
        *(("manifest.json", how) for how in ("missing", "short", "empty")),
    ],
)
def test_the_state_of_the_method_is_that_of_the_newest_that_can_be_read(tmp_path, name, how):
    folder = tmp_path / "c"
    assert checkpoint.method_state(folder) == {}
    for step in (1, 2):
        kept = make(step)
        kept.state["method"] = {"loss": f"of step {step}"}
        checkpoint.save(folder, kept)
    assert checkpoint.method_state(folder) == {"loss": "of step 2"}
    spoil(folder / "000002" / name, how)
    assert checkpoint.method_state(folder) == {"loss": "of step 1"}
    spoil(folder / "000001" / "model.safetensors", "empty")
    assert checkpoint.method_state(folder) == {"loss": "of step 1"}, "its tensors are not looked at"


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "nothing") is None


def test_the_two_newest_stay(tmp_path):
    for step in range(1, 6):
        checkpoint.save(tmp_path, make(step))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000004", "000005"]
    assert checkpoint.load(tmp_path).state["steps"] == 5


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizers.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("how", ["missing", "short", "empty", "bit"])
def test_a_damaged_one_gives_way_to_the_one_before_and_says_so(tmp_path, name, how):
    checkpoint.save(tmp_path, make(1))
    newest = checkpoint.save(tmp_path, make(2))
    spoil(newest / name, how)
    said = []
    same(checkpoint.load(tmp_path, said.append), make(1))
    assert "000002 is damaged" in said[0]
    assert "falling back" in said[0]
    # The sound one must not be pruned in favour of the damaged one.
    checkpoint.save(tmp_path, make(3))
    same(checkpoint.load(tmp_path, said.append), make(3))
    assert len(said) == 1


def test_with_all_damaged_it_starts_over_and_says_so(tmp_path):
    for step in (1, 2):
        spoil(checkpoint.save(tmp_path, make(step)) / "state.json", "bit")
    said = []
    assert checkpoint.load(tmp_path, said.append) is None
    assert "starting over" in said[-1]
    assert len(said) == 3


def test_an_unfinished_save_counts_for_nothing(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, make(1))
    monkeypatch.setattr(checkpoint, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(EnvironmentFault) as caught:
        checkpoint.save(tmp_path, make(2))
    assert "No space left on device" in str(caught.value)
    assert "intact" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["000001"], "the draft's space is given back"
    same(checkpoint.load(tmp_path), make(1))


def test_a_draft_of_a_killed_save_is_swept(tmp_path):
    (tmp_path / ".writing-000001").mkdir()
    (tmp_path / ".writing-000001" / "model.safetensors").write_bytes(b"half")
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, make(1))
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]


def test_nothing_in_a_checkpoint_can_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code ran on load",))

    path = checkpoint.save(tmp_path, make(1))
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    for name in ("model.safetensors", "state.json"):
        (path / name).write_bytes(pickle.dumps(Bomb()))
        manifest = json.loads((path / "manifest.json").read_text())
        manifest[name] = checkpoint._digest(path / name)
        (path / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoint.load(tmp_path, lambda _: None) is None


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_goes_on_where_it_was(tmp_path, kind, fused):
    def stepped(model, optimizer, times):
        for _ in range(times):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()

    def fresh():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        extra = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return model, kind(model.parameters(), lr=0.1, fused=fused, **extra)

    model, optimizer = fresh()
    stepped(model, optimizer, 3)
    tensors, plain = pack_optimizer(optimizer)
    write_tensors(tmp_path / "o", tensors)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stepped(model, optimizer, 2)

    other, resumed = fresh()
    other.load_state_dict(weights)
    unpack_optimizer(resumed, read_tensors(tmp_path / "o")[0], json.loads(json.dumps(plain)))
    stepped(other, resumed, 2)
    assert torch.equal(other.weight, model.weight)
    assert resumed.param_groups[0]["fused"] == fused, "how it computes is the configuration's affair"


def test_state_of_a_fused_optimizer_moves_into_a_plain_one():
    model = nn.Linear(3, 2)
    fused = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.ones(1, 3)).sum().backward()
    fused.step()
    plain = torch.optim.Adam(model.parameters(), foreach=False)
    unpack_optimizer(plain, *pack_optimizer(fused))
    plain.step()
    assert plain.state[model.weight]["step"].item() == 2


def test_tied_and_cut_tensors_survive(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "a": whole,
        "b": whole,
        "column": whole[:, 1],
        "row": whole[1],
        "none": torch.empty(0, 3),
        "t": whole.T,
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"note": [1, "x"]})
    read, meta = read_tensors(tmp_path / "t.safetensors")
    assert meta == {"note": [1, "x"]}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert read["a"] is read["b"], "one tensor under two names is stored once"
    assert (tmp_path / "t.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    one = {"x": torch.ones(3), "y": torch.zeros(2, dtype=torch.int64), "z": torch.ones(3)}
    other = {name: one[name] for name in ("z", "x", "y")}
    write_tensors(tmp_path / "1", one, {"p": 1, "q": 2})
    write_tensors(tmp_path / "2", other, {"q": 2, "p": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    with safe_open(tmp_path / "1", "pt") as file:
        assert list(file.metadata()) == ["effrec"]


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    write_tensors(path, {"x": torch.ones(3)})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(5, "I/O")))
    with pytest.raises(EnvironmentFault, match="Input/output error"):
        write_tensors(path, {"x": torch.zeros(3)})
    assert torch.equal(read_tensors(path)[0]["x"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\x00" * 20, b"\xff" * 100])
def test_a_file_that_is_no_tensor_file_is_an_error(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="Cannot read the tensors"):
        read_tensors(tmp_path / "x")
