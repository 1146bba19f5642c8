"""Windows without padding: equal to padded ones in values and gradients, and chosen where it is faster."""

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from effrec_cli.models import ragged, sequence
from effrec_cli.models.layout import Bucketed, Packed, Padded
from effrec_cli.models.rectangles import CALL, fitted
from effrec_cli.models.sasrec import SASRec

V, L = 50, 32
LENGTHS = [5, 1, 32, 17, 3, 3, 20, 1, 9, 31]


class BothSides(SASRec):
    causal = False


def make(kind=SASRec, norm="post", **changes):
    torch.manual_seed(3)
    settings = {"dim": 16, "num_layers": 2, "num_heads": 2, "max_length": L, "dropout": 0.0, "norm": norm}
    return kind(V, **{**settings, "init_std": 0.5, **changes})


def windows(lengths=LENGTHS, width=L):
    """Returns inputs, lengths and the flat places of all items."""
    lengths = torch.tensor(lengths)
    real = torch.arange(width) < lengths[:, None]
    inputs = torch.randint(0, V, real.shape, generator=torch.Generator().manual_seed(5)).masked_fill(~real, 0)
    return inputs, lengths, real.flatten().nonzero().flatten()


def values(model, *given):
    """Returns hidden states and the gradients of a sum over them."""
    model.zero_grad()
    hidden = model(*given)
    (hidden.sin().sum() / 100).backward()
    return [hidden.detach(), *(p.grad.clone() for p in model.parameters())]


def one_by_one(heads, offsets, longest, *, causal, dropout):
    """Stands in for kernels that a CPU has not: each window alone."""
    assert longest >= offsets.diff().max()
    parts = [
        F.scaled_dot_product_attention(*(x[low:high].transpose(0, 1) for x in heads), is_causal=causal)
        for low, high in itertools.pairwise(offsets.tolist())
    ]
    return torch.cat(parts, dim=1).transpose(0, 1)


def packing(monkeypatch, attention):
    """Makes a CPU take the layout of a GPU."""
    monkeypatch.setattr("effrec_cli.models.layout.ragged_attention", attention)
    monkeypatch.setattr(SASRec, "_layout", lambda _, *given: Packed.of(*given))


@pytest.mark.parametrize("lengths", [LENGTHS, [1], [32, 32], [4, 4, 4], [1, 1, 32]], ids=str)
@pytest.mark.parametrize("norm", ["pre", "post", "sasrec"])
@pytest.mark.parametrize("kind", [SASRec, BothSides])
@pytest.mark.parametrize("layout", ["bucketed", "packed"])
def test_states_and_gradients_are_those_of_padded_windows(layout, kind, norm, lengths, monkeypatch):
    inputs, lengths, tokens = windows(lengths)
    expected = values(make(kind, norm, packed=False), inputs, lengths, tokens)
    if layout == "packed":
        packing(monkeypatch, one_by_one)
    found = values(make(kind, norm, packed=True), inputs, lengths, tokens)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["bucketed", "packed"])
def test_only_the_states_asked_for_come_back_in_their_order(layout, monkeypatch):
    inputs, lengths, tokens = windows()
    places = tokens[torch.tensor([7, 90, 3, 44])]
    padded = make(packed=False)(inputs, lengths)
    if layout == "packed":
        packing(monkeypatch, one_by_one)
    found = make(packed=True)(inputs, lengths, places, tokens)
    torch.testing.assert_close(found, padded.flatten(0, 1)[places], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_torchs_attention_over_jagged_tensors_is_that_of_each_window(monkeypatch):
    """A CPU has it without causality only."""
    inputs, lengths, tokens = windows()
    expected = values(make(BothSides, packed=False), inputs, lengths, tokens)
    packing(monkeypatch, ragged.ragged_attention)
    found = values(make(BothSides, packed=True), inputs, lengths, tokens)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_torchs_kernel_is_called_as_its_version_asks(causal, old, monkeypatch):
    """Torch 2.10 takes `is_causal`; the one installed, whose signature is bound here, may not."""
    calls = []

    def kernel(*given, **how):
        calls.append(how)
        return given[0]

    heads = tuple(torch.randn(6, 2, 8) for _ in range(3))
    monkeypatch.setattr(ragged, "has_varlen", lambda *_: True)
    monkeypatch.setattr(ragged, "TAKES_IS_CAUSAL", old)
    monkeypatch.setattr(ragged, "varlen_attn", kernel)
    found = ragged.ragged_attention(heads, torch.tensor([0, 2, 6]), 8, causal=causal, dropout=0.0)
    assert found is heads[0]
    assert calls == [{"is_causal": causal} if old else {"window_size": (-1, 0 if causal else -1)}]


def test_bucketed_windows_have_little_padding():
    inputs, lengths, tokens = windows()
    layout = Bucketed.of(inputs, lengths)
    assert len(tokens) <= len(layout.tokens) < 0.7 * inputs.numel()
    assert int(layout.real.sum()) == len(tokens)
    assert torch.equal(layout.tokens[layout.real].sort().values, tokens)


@pytest.mark.parametrize("widest", [7, 32])
@pytest.mark.parametrize(
    "lengths", [[], [1], [3, 3, 3], [1, 2, 7, 7], list(range(1, 8)) * 20, [1] * 99 + [7]]
)
def test_rectangles_hold_all_windows_at_the_least_cost(lengths, widest):
    lengths = sorted(lengths)
    found = fitted(lengths, widest)
    assert sum(windows for windows, _ in found) == len(lengths)
    widths = [width for windows, width in found for _ in range(windows)]
    assert all(length <= width <= widest for length, width in zip(lengths, widths, strict=True))
    assert [width for _, width in found] == sorted({width for _, width in found})
    assert cost(found) == least(tuple(min(widest, -(-length // 4) * 4) for length in lengths))


def cost(rectangles):
    return sum(windows * width + CALL for windows, width in rectangles)


@functools.cache
def least(widths):
    """Returns the cost of the best way to cut the ascending widths, found by trying them all."""
    if not widths:
        return 0
    distinct = sorted(set(widths))
    cuts = itertools.chain.from_iterable(
        itertools.combinations(distinct[:-1], size) for size in range(len(distinct))
    )
    return min(
        cost(
            [
                (sum(low < w <= high for w in widths), high)
                for low, high in itertools.pairwise((0, *cut, distinct[-1]))
            ]
        )
        for cut in cuts
    )


def test_dropout_falls_on_packed_states_too():
    given = windows()
    model = make(dropout=0.5, packed=True).train()
    assert not torch.equal(model(*given), model(*given))
    model.eval()
    assert torch.equal(model(*given), model(*given))


def test_a_batch_without_windows_gives_gradients_of_zero():
    model = make(packed=True)
    none = torch.zeros(0, dtype=torch.int64)
    found = values(model, none.view(0, 16), none, none)
    assert found[0].shape == (0, 16)
    assert not any(each.any() for each in found)


@pytest.mark.parametrize(
    ("packed", "device", "compiled", "kernel", "expected"),
    [
        ("auto", "cpu", False, False, True),
        ("auto", "cpu", True, False, False),
        ("auto", "cuda", False, True, True),
        ("auto", "cuda", True, True, True),
        ("auto", "cuda", False, False, False),
        ("auto", "mps", False, False, False),
        (True, "cuda", False, False, True),
        (False, "cpu", False, False, False),
    ],
)
def test_auto_packs_where_that_is_faster(packed, device, compiled, kernel, expected, monkeypatch):
    monkeypatch.setattr(sequence, "has_varlen", lambda *_: kernel)
    assert make(packed=packed).packs(torch.device(device), compiled) is expected


def test_the_kernel_is_asked_about_what_the_model_will_give_it(monkeypatch):
    asked = []
    monkeypatch.setattr(sequence, "has_varlen", lambda *given: asked.append(given[1:]))
    cuda = torch.device("cuda")
    make(norm="sasrec", dropout=0.1).packs(cuda)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=torch.cuda.is_available()):
        make(norm="post", dropout=0.1).packs(cuda)
    half = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    assert asked == [(torch.float32, 8, 0.1), (half, 8, 0.0)]


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "dropout", "expected"),
    [
        ("cuda", torch.bfloat16, 32, 0.0, True),
        ("cuda", torch.float16, 256, 0.0, True),
        ("cuda", torch.float32, 32, 0.0, False),
        ("cuda", torch.bfloat16, 32, 0.1, False),
        ("cuda", torch.bfloat16, 20, 0.0, False),
        ("cuda", torch.bfloat16, 264, 0.0, False),
        ("cpu", torch.bfloat16, 32, 0.0, False),
    ],
)
@pytest.mark.parametrize("major", [7, 8])
def test_what_torchs_kernel_can_do(device, dtype, head_dim, dropout, expected, major, monkeypatch):
    properties = type("Properties", (), {"major": major})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(ragged, "varlen_attn", object())
    assert ragged.has_varlen(torch.device(device), dtype, head_dim, dropout) is (expected and major >= 8)
    monkeypatch.setattr(ragged, "varlen_attn", None)
    assert not ragged.has_varlen(torch.device(device), dtype, head_dim, dropout)


def test_a_step_reads_no_more_positions_packed(monkeypatch):
    """What attention and linear layers run over, counted."""
    inputs, lengths, tokens = windows()
    seen = []
    monkeypatch.setattr(SASRec, "_head", lambda _, x: seen.append(x[..., 0].numel()) or x)
    make(packed=False)(inputs, lengths, tokens)
    make(packed=True)(inputs, lengths, tokens)
    assert seen[0] == inputs.numel() == 320
    assert len(tokens) <= seen[1] < 180


def test_windows_that_fill_their_batch_stay_padded():
    inputs, lengths, tokens = windows([32, 32, 31, 30])
    assert isinstance(make(packed=True)._layout(inputs, lengths, tokens), Padded)
    inputs, lengths, tokens = windows([32, 32, 31, 5])
    assert isinstance(make(packed=True)._layout(inputs, lengths, tokens), Bucketed)


def test_without_places_windows_stay_padded():
    inputs, lengths, _ = windows()
    model = make(packed=True)
    assert isinstance(model._layout(inputs, lengths, None), Padded)
    assert model(inputs, lengths).shape == (len(LENGTHS), L, 16)


@pytest.mark.parametrize("compiling", [True, False])
def test_a_compiled_model_on_a_cpu_keeps_its_padding(compiling, monkeypatch):
    model, inputs, lengths = make(), torch.zeros(8, 9, dtype=torch.int64), torch.ones(8, dtype=torch.int64)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    layout = model._layout(inputs, lengths, torch.arange(8) * 9)
    assert isinstance(layout, Padded) is compiling
