"""SASRec without biases in attention and with a LayerNorm at its input: IISAN's user encoder."""

import pytest
import torch
import torch.nn.functional as F
from test_packed import LENGTHS, make, one_by_one, packing, values, windows

from effrec_cli import compose
from effrec_cli.models.bert4rec import BERT4Rec
from effrec_cli.models.content_sasrec import ContentSASRec
from effrec_cli.models.sasrec import SASRec

PUBLISHED = {
    "dim": 64,
    "num_layers": 2,
    "num_heads": 2,
    "max_length": 10,
    "dropout": 0.1,
    "norm": "post",
    "ffn_ratio": 4.0,
    "activation": "relu",
    "init_std": None,
    "attention_bias": False,
    "input_norm": True,
}
OPTIONS = {"attention_bias": False, "input_norm": True}


def published():
    torch.manual_seed(0)
    model = ContentSASRec(64, **PUBLISHED, projection=False).double().eval()
    for name, weight in model.named_parameters():
        if weight.ndim == 1:  # else neither norms nor biases would show
            torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.3)
    return model


def test_it_has_as_many_parameters_as_published():
    model = published()
    assert sum(weight.numel() for weight in model.parameters()) == 100_224
    assert not any(
        "attention" in name and name.endswith("bias")
        for name, _ in model.blocks.named_parameters()
        if "norm" not in name
    )


def by_hand(model, vectors):
    """Returns the states [L, 64] of one history of vectors [L, 64], by section 1.7's equations."""
    w = model.state_dict()

    def norm(x, name, eps):
        return F.layer_norm(x, (64,), w[f"{name}.weight"], w[f"{name}.bias"], eps)

    length = len(vectors)
    x = norm(vectors + w["positions.weight"][:length], "input_norm", 1e-6)
    hidden_future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for block in ("blocks.0", "blocks.1"):
        queries, keys, values = (x @ w[f"{block}.attention.qkv.weight"].T).split(64, dim=1)
        heads = []
        for head in (slice(0, 32), slice(32, 64)):
            scores = (queries[:, head] @ keys[:, head].T / 32**0.5).masked_fill(hidden_future, -1e9)
            heads.append(scores.softmax(1) @ values[:, head])
        x = norm(
            x + torch.cat(heads, 1) @ w[f"{block}.attention.out.weight"].T, f"{block}.attention_norm", 1e-5
        )
        inner = (x @ w[f"{block}.ffn.inner.weight"].T + w[f"{block}.ffn.inner.bias"]).relu()
        outer = inner @ w[f"{block}.ffn.outer.weight"].T + w[f"{block}.ffn.outer.bias"]
        x = norm(x + outer, f"{block}.ffn_norm", 1e-5)
    return x


@pytest.mark.parametrize("length", [1, 6, 10])
def test_it_computes_the_papers_equations(length):
    model = published()
    items = torch.randn(12, 64, dtype=torch.float64)
    inputs = torch.randint(0, 12, (1, length))
    found = model(items, inputs, torch.tensor([length]))[0]
    torch.testing.assert_close(found, by_hand(model, items[inputs[0]]), rtol=0, atol=1e-10)


def test_neither_later_items_nor_padding_reach_a_position():
    model, items = published(), torch.randn(12, 64, dtype=torch.float64)
    inputs, lengths = torch.randint(0, 11, (3, 10)), torch.tensor([10, 4, 1])
    before = model(items, inputs, lengths)
    changed = inputs.clone()
    changed[0, 7:] = 11
    changed[1, 4:] = 11
    changed[2, 1:] = 11
    after = model(items, changed, lengths)
    for window, same in enumerate((7, 4, 1)):
        torch.testing.assert_close(after[window, :same], before[window, :same], rtol=0, atol=0)
    assert (after[0, 7:] != before[0, 7:]).any(dim=1).all()


@pytest.mark.parametrize("layout", ["bucketed", "packed"])
@pytest.mark.parametrize("norm", ["pre", "post", "sasrec"])
def test_windows_without_padding_are_computed_alike(layout, norm, monkeypatch):
    inputs, lengths, tokens = windows(LENGTHS)
    expected = values(make(SASRec, norm, packed=False, **OPTIONS), inputs, lengths, tokens)
    if layout == "packed":
        packing(monkeypatch, one_by_one)
    found = values(make(SASRec, norm, packed=True, **OPTIONS), inputs, lengths, tokens)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_norm_at_the_input_sees_items_and_positions():
    model = make(SASRec, input_norm=True, num_layers=1)
    seen = []
    model.input_norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    inputs, lengths, _ = windows([5, 5])
    model(inputs, lengths)
    width = inputs.shape[1]
    expected = model.items(inputs) + model.positions(torch.arange(width))
    torch.testing.assert_close(seen[0][:, :5], expected[:, :5])


def test_without_them_weights_are_drawn_and_named_as_before():
    names = list(make(SASRec).state_dict())
    assert not any("input_norm" in name for name in names)
    assert sum("attention.qkv.bias" in name for name in names) == 2
    normed = make(SASRec, input_norm=True).state_dict()
    for name, weight in make(SASRec).state_dict().items():
        torch.testing.assert_close(normed[name], weight, rtol=0, atol=0)


def test_bert4rec_takes_them_too():
    torch.manual_seed(0)
    model = BERT4Rec(9, dim=8, max_length=4, **OPTIONS)
    assert model.blocks[0].attention.out.bias is None
    assert model(torch.randint(0, 9, (2, 4)), torch.tensor([4, 2])).isfinite().all()


def test_a_run_from_before_them_opens_with_their_defaults(tmp_path):
    text = compose.to_yaml(compose.compose(["method=cce"]))
    old = "".join(line for line in text.splitlines(True) if line.strip().split(":")[0] not in OPTIONS)
    assert old != text
    (tmp_path / "config.yaml").write_text(old)
    model = compose.from_yaml(tmp_path / "config.yaml").model
    assert (model.attention_bias, model.input_norm) == (True, False)
