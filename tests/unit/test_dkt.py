"""Models of knowledge tracing: what they see, what padding does, and both uses of an item's vector."""

import pytest
import torch

from effrec_cli.models.dkt import DKT, TransformerDKT

U, D, B, L = 7, 6, 3, 9


def model_of(kind, **changes):
    torch.manual_seed(0)
    options = {"max_length": 12, "dropout": 0.0, **changes}
    return kind(D, **options).double().eval()


def batch(width=L, lengths=(9, 4, 1)):
    rng = torch.Generator().manual_seed(1)
    vectors = torch.randn(U, D, dtype=torch.float64, generator=rng)
    items = torch.randint(0, U, (B, width), generator=rng)
    correct = torch.randint(0, 2, (B, width), generator=rng)
    return vectors, items, correct, torch.tensor(lengths)


KINDS = pytest.mark.parametrize(
    ("kind", "changes"),
    [(DKT, {}), (DKT, {"dim": 10, "num_layers": 1}), (TransformerDKT, {}), (TransformerDKT, {"dim": 4})],
    ids=["lstm", "lstm-projected", "transformer", "transformer-projected"],
)


@KINDS
def test_extra_padding_changes_nothing(kind, changes):
    model, (vectors, items, correct, lengths) = model_of(kind, **changes), batch()
    expected = model(vectors, items, correct, lengths)
    assert expected.shape == (B, L)
    wider = torch.randint(0, U, (B, 12))
    wider[:, :L], right = items, torch.ones(B, 12, dtype=torch.int64)
    right[:, :L] = correct
    found = model(vectors, wider, right, lengths)
    assert torch.allclose(found[:, :L], expected, rtol=0, atol=1e-12)
    real = torch.arange(12) < lengths[:, None]
    assert (found[~real] == 0).all()
    assert (found[real] != 0).all()


@KINDS
def test_what_stands_at_padding_changes_neither_logits_nor_gradients(kind, changes):
    model, (vectors, items, correct, lengths) = model_of(kind, **changes), batch()
    padding = torch.arange(L) >= lengths[:, None]
    found = []
    for stand_in in (0, 5):
        model.zero_grad()
        table = vectors.clone().requires_grad_()
        other = items.masked_fill(padding, stand_in)
        logits = model(table, other, correct.masked_fill(padding, stand_in % 2), lengths)
        logits.square().sum().backward()
        found.append([logits.detach(), table.grad, *(p.grad.clone() for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


@KINDS
def test_a_logit_sees_its_item_and_the_answers_before_and_nothing_else(kind, changes):
    model, (vectors, items, correct, _) = model_of(kind, **changes), batch()
    lengths = torch.full((B,), L)
    before = model(vectors, items, correct, lengths)
    flipped, replaced = correct.clone(), items.clone()
    flipped[:, 4] = 1 - flipped[:, 4]
    replaced[:, 4] = (replaced[:, 4] + 1) % U
    by_answer = (model(vectors, items, flipped, lengths) != before).any(0)
    assert by_answer.tolist() == [False] * 5 + [True] * 4
    by_item = (model(vectors, replaced, correct, lengths) != before).any(0)
    assert by_item.tolist() == [False] * 4 + [True] * 5


@KINDS
def test_an_item_vector_has_a_gradient_as_input_and_as_output(kind, changes):
    """Finite differences on one vector, which is both; cutting either use off changes the gradient."""
    model, (vectors, items, correct, lengths) = model_of(kind, **changes), batch()
    items[0, :4] = torch.tensor([2, 2, 3, 2])
    weights = torch.randn(B, L, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def loss(table):
        return (model(table, items, correct, lengths) * weights).sum()

    table = vectors.clone().requires_grad_()
    loss(table).backward()
    step = 1e-6
    for column in range(D):
        up, down = vectors.clone(), vectors.clone()
        up[2, column] += step
        down[2, column] -= step
        slope = (loss(up) - loss(down)) / (2 * step)
        assert table.grad[2, column].item() == pytest.approx(slope.item(), abs=1e-7)
    only_output = vectors.clone().requires_grad_()
    inputs = model._inputs(vectors, items, correct)
    model._inputs = lambda *_: inputs
    loss(only_output).backward()
    assert not torch.allclose(only_output.grad[2], table.grad[2], atol=1e-4)
    assert only_output.grad[2].abs().max() > 1e-4


@KINDS
def test_the_first_answer_of_a_window_has_a_mark_of_its_own(kind, changes):
    model, (vectors, items, correct, lengths) = model_of(kind, **changes), batch()
    before = model(vectors, items, correct, lengths)[:, 0]
    with torch.no_grad():
        model.answers.weight[:2] += 1
    assert torch.equal(model(vectors, items, correct, lengths)[:, 0], before)
    with torch.no_grad():
        model.answers.weight[2] += 1
    assert (model(vectors, items, correct, lengths)[:, 0] != before).all()


@pytest.mark.parametrize("kind", [DKT, TransformerDKT])
def test_without_a_width_of_its_own_item_vectors_are_not_projected(kind):
    assert not any("project" in name for name, _ in model_of(kind).named_parameters())
    assert any("project" in name for name, _ in model_of(kind, dim=4).named_parameters())


@KINDS
def test_a_batch_without_windows_has_an_empty_result_with_a_gradient(kind, changes):
    model = model_of(kind, **changes)
    vectors = torch.randn(2, D, dtype=torch.float64, requires_grad=True)
    none = torch.zeros(0, 12, dtype=torch.int64)
    logits = model(vectors, none, none, torch.zeros(0, dtype=torch.int64))
    assert logits.shape == (0, 12)
    logits.sum().backward()
    assert not vectors.grad.any()


@pytest.mark.parametrize("kind", [DKT, TransformerDKT])
def test_logits_of_vectors_of_unit_variance_begin_small(kind):
    torch.manual_seed(0)
    model = kind(64, max_length=12).eval()
    items, correct = torch.randint(0, 50, (8, 12)), torch.randint(0, 2, (8, 12))
    logits = model(torch.randn(50, 64), items, correct, torch.full((8,), 12))
    assert 0.05 < logits.std() < 1.5


@pytest.mark.parametrize("training", [True, False])
def test_layers_with_dropout_between_them_are_torchs_stack(training):
    """Kept apart since cuDNN's stack has a dropout of its own, for which the host waits in every step."""
    model = DKT(D, num_layers=3, max_length=12, dropout=0.4).train(training)
    stack = torch.nn.LSTM(D, D, 3, batch_first=True, dropout=0.4).train(training)
    names = [name.rpartition("_l") for name in dict(stack.named_parameters())]
    stack.load_state_dict(
        {f"{kind}_l{number}": getattr(model.layers[int(number)], f"{kind}_l0") for kind, _, number in names}
    )
    inputs, found = torch.randn(B, L, D), []
    for states in (lambda: model._states(inputs, None), lambda: stacked(stack, inputs, training)):
        torch.manual_seed(3)
        found.append(states())
    assert torch.equal(*found)
    assert all(layer.dropout == 0 and layer.num_layers == 1 for layer in model.layers)


def stacked(stack, inputs, training):
    drop = torch.nn.functional.dropout
    return drop(stack(drop(inputs, 0.4, training))[0], 0.4, training)
