"""SASRec: causality, padding, norm variants, the tied head, initialisation and size."""

import math

import pytest
import torch
import torch.nn.functional as F

from effrec_cli.evaluation.history_scorer import SequenceScorer
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.models.layout import Padded
from effrec_cli.models.sasrec import SASRec

NORMS = ("pre", "post", "sasrec")
V, L = 50, 12


def make(norm="pre", **changes):
    torch.manual_seed(3)
    settings = {"dim": 16, "num_layers": 2, "num_heads": 2, "max_length": L, "norm": norm, "init_std": 0.5}
    return SASRec(V, **{**settings, **changes}).eval()


def sequences(batch=4, length=L):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, V, (batch, length), generator=generator), torch.full((batch,), length)


@pytest.mark.parametrize("norm", NORMS)
def test_future_items_do_not_change_the_past(norm):
    model = make(norm)
    inputs, lengths = sequences()
    before = model(inputs, lengths)
    changed = inputs.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % V
    after = model(changed, lengths)
    torch.testing.assert_close(after[:, :7], before[:, :7], rtol=0, atol=0)
    assert (after[:, 7:] != before[:, 7:]).any(dim=-1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_every_position_sees_all_of_its_past(norm):
    model = make(norm)
    inputs, lengths = sequences(batch=1)
    table = model.items(inputs).detach().requires_grad_()
    model.items.forward = lambda _: table
    model(inputs, lengths)[0, 7].pow(2).sum().backward()
    reached = table.grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [True] * 8 + [False] * (L - 8)


@pytest.mark.parametrize("norm", NORMS)
def test_longer_padding_changes_neither_values_nor_gradients(norm):
    model = make(norm)
    inputs, _ = sequences(length=5)
    lengths = torch.tensor([5, 3, 1, 4])
    real = torch.arange(5) < lengths[:, None]
    padded = F.pad(inputs.masked_fill(~real, 0), (0, L - 5))
    results = []
    for given in (inputs, padded):
        model.zero_grad()
        hidden = model(given, lengths)[:, :5][real]
        hidden.sin().sum().backward()
        results.append([hidden.detach(), *(p.grad.clone() for p in model.parameters())])
    for short, long in zip(*results, strict=True):
        torch.testing.assert_close(long, short, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_the_filler_row_gets_no_gradient_from_padding(norm):
    model = make(norm).train()
    inputs = torch.tensor([[4, 7, 0, 0], [9, 0, 0, 0]])
    model(inputs, torch.tensor([2, 1])).pow(2).sum().backward()
    used = model.items.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert used.tolist() == [4, 7, 9]


def test_norm_variants_are_the_written_formulas():
    x = torch.randn(2, L, 16)
    layout = Padded.of(*sequences(2))
    for norm in NORMS:
        block = make(norm).blocks[0]

        def a(queries, context, attention=block.attention):
            return attention(queries, context, layout)

        f, ln1, ln2 = block.ffn, block.attention_norm, block.ffn_norm
        if norm == "pre":
            y = x + a(ln1(x), ln1(x))
            expected = y + f(ln2(y))
        elif norm == "post":
            y = ln1(x + a(x, x))
            expected = ln2(y + f(y))
        else:
            z = ln2(ln1(x) + a(ln1(x), x))
            expected = z + f(z)
        torch.testing.assert_close(block(x, layout), expected)


def test_attention_is_torchs_own_multi_head_attention():
    own = make("sasrec").blocks[0].attention
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": own.qkv.weight,
            "in_proj_bias": own.qkv.bias,
            "out_proj.weight": own.out.weight,
            "out_proj.bias": own.out.bias,
        }
    )
    queries, context = torch.randn(3, L, 16), torch.randn(3, L, 16)
    layout = Padded.of(*sequences(3))
    future = torch.ones(L, L, dtype=torch.bool).triu(1)
    expected, _ = theirs(queries, context, context, attn_mask=future)
    torch.testing.assert_close(own(queries, context, layout), expected)
    same, _ = theirs(context, context, context, attn_mask=future)
    torch.testing.assert_close(own(context, context, layout), same)


@pytest.mark.parametrize(("norm", "ratio"), [("pre", 4.0), ("post", 1.0), ("sasrec", 2.0)])
def test_parameter_count_formula(norm, ratio):
    d, layers = 24, 3
    model = SASRec(V, dim=d, num_layers=layers, num_heads=3, max_length=L, norm=norm, ffn_ratio=ratio)
    width = int(d * ratio)
    attention = 4 * d * d + 4 * d
    ffn = 2 * d * width + width + d
    expected = V * d + L * d + layers * (attention + ffn + 4 * d) + (0 if norm == "post" else 2 * d)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_head_and_input_share_one_table():
    model = make()
    assert model.item_embeddings is model.items.weight
    assert sum(p.shape == (V, 16) for p in model.parameters()) == 1


def test_scale_embedding_multiplies_items_alone():
    plain, scaled = make(), make(scale_embedding=True)
    scaled.load_state_dict(plain.state_dict())
    inputs, lengths = sequences()
    with torch.no_grad():
        scaled.items.weight /= math.sqrt(16)
    torch.testing.assert_close(scaled(inputs, lengths), plain(inputs, lengths))


def test_initialisation_follows_the_settings():
    torch.manual_seed(0)
    normal = SASRec(4000, dim=64, init_std=0.02)
    torch.manual_seed(0)
    xavier = SASRec(4000, dim=64, init_std=None)
    assert normal.items.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert xavier.items.weight.std().item() == pytest.approx(math.sqrt(2 / 4064), rel=0.02)
    qkv = xavier.blocks[0].attention.qkv
    assert qkv.weight.std().item() == pytest.approx(math.sqrt(2 / (4 * 64)), rel=0.05)
    assert not qkv.bias.any()
    assert (xavier.final_norm.weight == 1).all()


def test_dropout_acts_in_training_alone():
    model = make(dropout=0.5)
    inputs, lengths = sequences()
    torch.testing.assert_close(model(inputs, lengths), model(inputs, lengths), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(inputs, lengths), model(inputs, lengths))


def histories(*lists):
    offsets = torch.tensor([0, *torch.tensor([len(x) for x in lists]).cumsum(0).tolist()])
    return Histories(torch.tensor([item for x in lists for item in x], dtype=torch.int64), offsets)


def scorer_of(model):
    return SequenceScorer(model, L, V, torch.device("cpu"))


def test_scores_are_the_last_hidden_state_times_the_table():
    model = make()
    long = [i % V for i in range(30)]
    scores = scorer_of(model).score(torch.arange(2), histories(long, [7, 8]))
    for row, items in enumerate((long[-L:], [7, 8])):
        hidden = model(torch.tensor([items]), torch.tensor([len(items)]))[0, -1]
        torch.testing.assert_close(scores[row], model.item_embeddings @ hidden)
    assert scores.dtype == torch.float32


def test_scoring_does_not_depend_on_blocks_or_neighbours(monkeypatch):
    model = make()
    lists = [[i % V for i in range(start, start + n)] for start, n in enumerate((3, 30, 1, 12, 0, 8, 25))]
    whole = scorer_of(model).score(torch.arange(7), histories(*lists))
    monkeypatch.setattr("effrec_cli.evaluation.history_scorer.ENCODED_POSITIONS", 2 * L)
    parts = scorer_of(model).score(torch.arange(7), histories(*lists))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    assert torch.isfinite(whole).all()


def test_scoring_leaves_mode_and_gradients_alone_and_ignores_autocast():
    model = make(dropout=0.5).train()
    given = histories([1, 2, 3], [4])
    first = scorer_of(model).score(torch.arange(2), given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        second = scorer_of(model).score(torch.arange(2), given)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert model.training
    assert not first.requires_grad
    first[0, 0] = 0.0  # callers mask scores in place
