"""SASRec over content vectors: equal to SASRec over the projected table, for any padding and layout."""

import pytest
import torch

from effrec_cli.models.content_sasrec import ContentSASRec
from effrec_cli.models.sasrec import SASRec

U, WIDE, DIM, L = 11, 12, 8, 7
SETTINGS = {"dim": DIM, "num_layers": 2, "num_heads": 2, "max_length": L, "dropout": 0.0, "norm": "post"}
LENGTHS = torch.tensor([7, 3, 1, 5])


def make(**changes):
    torch.manual_seed(0)
    return ContentSASRec(WIDE, **{**SETTINGS, **changes}).double().eval()


def windows(pad=0):
    inputs = torch.randint(0, U, (len(LENGTHS), L), generator=torch.Generator().manual_seed(1))
    real = torch.arange(L) < LENGTHS[:, None]
    return torch.where(real, inputs, pad), real.flatten().nonzero().flatten()


def vectors():
    return torch.randn(U, WIDE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def as_sasrec(model, table):
    """Returns a SASRec whose item table is the projected one."""
    other = SASRec(U, **SETTINGS).double().eval()
    state = {name: value for name, value in model.state_dict().items() if name != "items.weight"}
    other.load_state_dict({**state, "items.weight": model.item_vectors(table).detach()})
    return other


@pytest.mark.parametrize("packed", [True, False])
def test_it_is_sasrec_over_the_projected_table(packed):
    model, table = make(packed=packed), vectors()
    inputs, places = windows()
    other = as_sasrec(model, table)
    torch.testing.assert_close(
        model(table, inputs, LENGTHS, places), other(inputs, LENGTHS, places), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(model.item_vectors(table), other.item_embeddings)


@pytest.mark.parametrize("packed", [True, False])
def test_what_stands_at_padding_changes_no_state_and_no_gradient(packed):
    model, found = make(packed=packed), []
    for pad in (0, U - 1):
        table = vectors().requires_grad_()
        inputs, places = windows(pad)
        hidden = model(table, inputs, LENGTHS, places)
        hidden.pow(2).sum().backward()
        found.append((hidden.detach(), table.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_a_vector_learns_by_every_place_it_is_read_at():
    model, table = make(), vectors()
    inputs, places = windows()
    row = int(inputs[0, 0])
    chosen = torch.arange(U)[:, None] == row
    item = table[row].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda part: model(torch.where(chosen, part, table), inputs, LENGTHS, places), item
    )


def test_an_empty_share_has_no_states():
    model = make()
    hidden = model(
        vectors(), torch.zeros(0, L, dtype=torch.long), LENGTHS[:0], torch.zeros(0, dtype=torch.long)
    )
    assert hidden.shape == (0, DIM)


def test_the_projection_is_drawn_as_other_matrices_are():
    torch.manual_seed(0)
    model = ContentSASRec(600, **{**SETTINGS, "dim": 64})
    assert model.items.weight.std().item() == pytest.approx((2 / 664) ** 0.5, rel=0.05)
    assert model.positions.weight.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("packed", [True, False])
def test_without_a_projection_it_is_sasrec_over_the_vectors_themselves(packed):
    torch.manual_seed(0)
    model = ContentSASRec(DIM, **SETTINGS, projection=False, packed=packed).double().eval()
    table = vectors()[:, :DIM].contiguous()
    assert model.item_vectors(table) is table
    inputs, places = windows()
    other = as_sasrec(model, table)
    torch.testing.assert_close(
        model(table, inputs, LENGTHS, places), other(inputs, LENGTHS, places), rtol=0, atol=1e-13
    )
    assert not any(name.startswith("items") for name in model.state_dict())
