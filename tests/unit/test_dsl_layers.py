"""Method dsl with layers of which two of each four numbers count: pattern, gradient, file, scores."""

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from cadc_helpers import held_out
from dsl_helpers import begun, method_on, step
from torch import nn

from effrec_cli.app import main
from effrec_cli.data.batches import Share
from effrec_cli.errors import ConfigError
from effrec_cli.methods.sparse import layers
from effrec_cli.methods.sparse.losses import loss_of
from effrec_cli.methods.sparse.scorer import served_network
from effrec_cli.models.sparse import half, semi_structured
from effrec_cli.models.sparse.half import HalfLinear, ServedLinear, half_layers, served_layers
from effrec_cli.tensorfile import read_tensors

TWO = "method.layers=2of4"
MODELS = {
    "neumf": ["model=neumf", "model.hidden=[8,6]"],
    "two_tower": ["model=two_tower", "model.hidden=[8]"],
    "dlrm": ["model=dlrm", "model.top=[8,4]"],
}


def by_hand(weight):
    """Returns which numbers count, found one group at a time."""
    live = torch.zeros_like(weight, dtype=torch.bool)
    for row, numbers in enumerate(weight.tolist()):
        for left in range(0, len(numbers), 4):
            order = sorted(range(left, left + 4), key=lambda at: (-abs(numbers[at]), at))
            live[row, order[:2]] = True
    return live


def layer_of(outputs, inputs, *, bias=True, seed=0):
    torch.manual_seed(seed)
    return HalfLinear(nn.Linear(inputs, outputs, bias=bias))


def first_batch(method, batches, share=None):
    return batches.batch(0, 0, share or Share(), 0)


@pytest.mark.parametrize("model", MODELS)
def test_two_of_each_four_count_after_every_step(model):
    method, batches, engine = begun(*MODELS[model], TWO, "method.batch_size=32", "optimizer.lr=0.03")
    assert half_layers(method.model)
    before = [layer.live() for layer in half_layers(method.model)]
    for _ in range(8):
        step(method, batches, engine)
        kept = served_layers(served_network(method.model, method.own))
        for layer, served in zip(half_layers(method.model), kept, strict=True):
            live = by_hand(layer.weight)
            assert torch.equal(layer.live(), live)
            assert torch.equal(served.unpacked(), layer.weight.detach() * live)
            assert (served.unpacked().view(-1, 4) != 0).sum(1).unique().tolist() == [2]
            given = torch.randn(3, layer.weight.shape[1])
            assert torch.equal(served(given), layer(given))
    assert any(
        not torch.equal(old, layer.live())
        for old, layer in zip(before, half_layers(method.model), strict=True)
    )


def test_of_equals_the_first_count():
    layer = layer_of(2, 8)
    layer.weight.data = torch.tensor(
        [[0, 0, 0, 0, 1, -1, 1, -1], [-2, 1, 2, -2, 0, 3, 0, 0]], dtype=torch.float
    )
    assert layer.live().int().tolist() == [[1, 1, 0, 0, 1, 1, 0, 0], [1, 0, 1, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 4), (1, 12), (5, 8), (3, 20)])
def test_places_take_two_bits_and_come_back(outputs, inputs):
    layer = layer_of(outputs, inputs)
    served = layer.served()
    assert served.values.shape == (outputs, inputs // 2)
    assert served.places.dtype == torch.uint8
    assert served.places.shape == (math.ceil(outputs * inputs / 8),)
    assert torch.equal(served.unpacked(), layer.weight.detach() * layer.live())


@pytest.mark.parametrize("model", MODELS)
def test_the_gradient_goes_straight_through_and_what_does_not_count_fades(model):
    method, batches = method_on(held_out(), *MODELS[model], TWO)
    batch = first_batch(method, batches)
    method.loss(batch).backward()
    plain = copy.deepcopy(method.model)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, HalfLinear):
            outputs, inputs = layer.weight.shape
            linear = nn.Linear(inputs, outputs, bias=layer.bias is not None)
            linear.weight = nn.Parameter(layer.weight.detach() * by_hand(layer.weight))
            linear.bias = layer.bias
            plain.set_submodule(name, linear)
    plain.zero_grad()
    loss_of(plain, batch, method.own).backward()
    for name, layer in method.model.named_modules():
        if isinstance(layer, HalfLinear):
            weight = layer.weight.detach()
            expected = plain.get_submodule(name).weight.grad + 2e-4 * weight * ~by_hand(weight)
            torch.testing.assert_close(layer.weight.grad, expected, atol=1e-9, rtol=1e-5)
            assert (expected != 0).any()


def test_the_decay_of_micro_batches_is_that_of_the_step():
    method, batches = method_on(held_out(), *MODELS["two_tower"], TWO, "method.batch_size=33")
    nothing = torch.zeros(())
    parts = [first_batch(method, batches, Share(micro=micro, micros=3)) for micro in range(3)]
    found = sum(layers.with_decay(nothing, method.model, part) for part in parts)
    whole = layers.with_decay(nothing, method.model, first_batch(method, batches))
    squares = sum(
        (layer.weight * ~by_hand(layer.weight)).square().sum() for layer in half_layers(method.model)
    )
    torch.testing.assert_close(whole, 1e-4 * squares)
    torch.testing.assert_close(found, whole)


def test_dense_layers_train_as_ever():
    method, batches = method_on(held_out(), *MODELS["two_tower"])
    batch = first_batch(method, batches)
    assert not half_layers(method.model)
    assert torch.equal(method.loss(batch), loss_of(method.model, batch, method.own))
    assert "layers" not in method.sparsity()


def test_layers_begin_as_the_dense_ones():
    half_there, _ = method_on(held_out(), *MODELS["neumf"], TWO)
    dense, _ = method_on(held_out(), *MODELS["neumf"])
    for (name, one), (other, two) in zip(
        half_there.state_dict().items(), dense.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(one, two)


@pytest.mark.parametrize("model", MODELS)
def test_a_kept_network_scores_as_the_one_in_memory(model):
    words = [*MODELS[model], TWO]
    method, batches, engine = begun(*words, "method.batch_size=32")
    step(method, batches, engine, 5)
    opened, _ = method_on(held_out(), *words)
    opened.reopen()
    opened.build(opened.data)
    opened.load_state_dict(method.served_state_dict())
    users, histories = torch.arange(40), None
    scores = [each.scorer().score(users, histories) for each in (method, opened)]
    assert torch.equal(*scores)
    assert opened.sparsity()["layers"] == method.sparsity()["layers"]


def test_layers_whose_inputs_do_not_come_in_fours_stay_dense_and_are_named():
    method, _ = method_on(held_out(), *MODELS["neumf"], TWO)
    whole = [each for each in method.model.modules() if isinstance(each, nn.Linear)]
    assert [(each.in_features, each.out_features) for each in whole] == [(6, 1)]
    assert "network.2 of 6" in method.choices()["method.layers"]
    # Two of 12 by 8, and one of 8 by 6.
    assert method.sparsity()["layers"] == {"live": 2 * 48 + 24, "of": 2 * 96 + 48}
    all_in_fours, _ = method_on(held_out(), *MODELS["two_tower"], TWO)
    assert "method.layers" not in all_in_fours.choices()


def test_a_network_without_any_input_in_fours_is_refused():
    with pytest.raises(ConfigError, match=r"user_layer 10, item_layer 10, network\.0 6") as caught:
        method_on(held_out(), "model=neumf", "model.hidden=[6]", TWO, "method.dim=10")
    assert caught.value.where == TWO
    assert "method.layers=dense" in caught.value.fix


SMALL = [
    "dataset.num_users=120",
    "dataset.num_items=80",
    "run.device=cpu",
    "evaluation.ks=[5,20]",
    "method.dim=16",
    "model=two_tower",
    "model.hidden=[24]",
    "run.max_epochs=2",
    TWO,
]
MODES = ["dsl", "rigl", "set", "static", "topk_anneal", "dense", "dense_small", "magnitude", "dense_int8"]


def run(tmp_path, *words):
    folder = tmp_path / "run"
    argv = ["train", "method=dsl", f"data_root={tmp_path / 'data'}", f"run.dir={folder}", *SMALL, *words]
    assert main(argv) == 0
    return folder, json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_what_is_kept_scores_as_what_was_judged(mode, tmp_path, capsys):
    folder, result = run(tmp_path, f"method.mode={mode}")
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]["test"]
    # The vectors of dense_small are 5 wide, so that the first layers stay as they are.
    of = 24 * 5 + 24 * 5 if mode == "dense_small" else 4 * 16 * 24
    assert result["sparsity"]["layers"] == {"live": of // 2, "of": of}
    assert ("method.layers" in result.get("choices", {})) == (mode == "dense_small")


def test_the_file_holds_two_values_of_each_four_and_their_places(tmp_path):
    folder, result = run(tmp_path)
    tensors, _ = read_tensors(folder / "model.safetensors")
    rows = result["dataset"]["users"] + result["dataset"]["items"]
    matrices = 4 * 16 * 24
    biases = 2 * (24 + 16) + 1
    expected = rows * 4 * 5 + matrices // 2 * 4 + matrices // 8 + biases * 4
    assert sum(tensor.nbytes for tensor in tensors.values()) == expected
    assert result["sparsity"]["served_bytes"] == expected
    assert expected < result["cost"]["model_bytes"] < expected + 3000
    assert not [name for name in tensors if name.endswith("weight")]
    # Dense weights train, with their tables, and are told as such.
    assert result["cost"]["weights_bytes"] == rows * 4 * 5 + (matrices + biases) * 4


# How a GPU multiplies is measured on one (tests/gpu); the way there is looked at here.


def matrix_like(rows, columns, dtype, device="cuda"):
    return SimpleNamespace(shape=(rows, columns), dtype=dtype, device=torch.device(device))


def test_what_a_gpu_multiplies_sparsely(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    taken = semi_structured.is_taken
    assert taken(matrix_like(32, 64, torch.bfloat16))
    assert taken(matrix_like(96, 128, torch.float16))
    assert not taken(matrix_like(32, 64, torch.bfloat16, "cpu"))
    assert not taken(matrix_like(32, 64, torch.float32))
    assert not taken(matrix_like(1, 64, torch.bfloat16))
    assert not taken(matrix_like(32, 48, torch.bfloat16))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not taken(matrix_like(32, 64, torch.bfloat16))
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert not taken(matrix_like(32, 64, torch.bfloat16))


def test_what_torch_refuses_is_multiplied_in_32_bits(monkeypatch):
    monkeypatch.setattr(semi_structured, "is_taken", lambda matrix: True)
    served = layer_of(32, 64).served()  # on a CPU, which torch refuses
    given = torch.randn(3, 64)
    before = served(given)
    assert not served.multiply_in(torch.bfloat16)
    assert torch.equal(served(given), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_inputs_are_rounded_where_a_gpu_multiplies(dtype, bias, monkeypatch):
    monkeypatch.setattr(half, "sparse_matrix", lambda matrix: matrix)  # dense, in its place
    served = layer_of(32, 64, bias=bias).served()
    given = torch.randn(2, 5, 64)
    assert served.multiply_in(dtype)
    rounded = F.linear(given.to(dtype), served.unpacked().to(dtype)).float()
    with torch.no_grad():
        assert torch.equal(served(given), rounded + (served.bias if bias else 0))
        assert served(given[:, :0]).shape == (2, 0, 32)
        served.multiply_in(None)
        torch.testing.assert_close(
            served(given), rounded + (served.bias if bias else 0), atol=0.05, rtol=0.05
        )


@pytest.mark.parametrize(("precision", "dtype"), [("auto", None), ("fp32", None), ("bf16", torch.bfloat16)])
def test_scores_are_of_16_bits_only_where_these_were_asked_for(precision, dtype, monkeypatch):
    asked = []
    monkeypatch.setattr(ServedLinear, "multiply_in", lambda self, dtype: asked.append(dtype))
    method, _ = method_on(held_out(), *MODELS["two_tower"], TWO, f"run.precision={precision}")
    method.scorer()
    assert asked == [dtype] * 4
