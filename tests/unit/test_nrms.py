"""NRMS: padding changes nothing, no history is no NaN, and what is published is what is computed."""

import math

import pytest
import torch

from effrec_cli.models.nrms import NRMS


def model(vector_dim=12, seed=0, **settings):
    torch.manual_seed(seed)
    return NRMS(vector_dim, **{"num_heads": 3, "query_dim": 7, "dropout": 0.0, **settings}).double()


def case(vector_dim=12):
    """Returns vectors, histories of lengths 5, 0, 1, 3, and candidates."""
    torch.manual_seed(1)
    vectors = torch.randn(9, vector_dim, dtype=torch.float64, requires_grad=True)
    history = torch.randint(9, (4, 5))
    return vectors, history, torch.tensor([5, 0, 1, 3]), torch.randint(9, (4, 3))


def by_hand(net, vectors, items):
    """Returns one user's vector, head by head and item by item."""
    clicked = vectors[items]
    q, k, v = net.qkv(clicked).chunk(3, -1)
    width = q.shape[1] // net.num_heads
    heads = [slice(at * width, (at + 1) * width) for at in range(net.num_heads)]
    seen = torch.cat(
        [torch.softmax(q[:, h] @ k[:, h].T / math.sqrt(width), -1) @ v[:, h] for h in heads], dim=1
    )
    seen = net.out(seen)
    weights = torch.softmax(net.query(torch.tanh(net.key(seen))).flatten(), 0)
    return weights @ seen


@pytest.mark.parametrize("head_dim", [None, 5])
def test_scores_are_as_published(head_dim):
    net, (vectors, history, lengths, candidates) = model(head_dim=head_dim), case()
    scores = net(vectors, history, lengths, candidates)
    for row in (0, 2, 3):
        user = by_hand(net, vectors, history[row, : lengths[row]])
        torch.testing.assert_close(net.users(vectors, history, lengths)[row], user, rtol=0, atol=1e-12)
        torch.testing.assert_close(scores[row], vectors[candidates[row]] @ user, rtol=0, atol=1e-12)


def test_published_widths_need_no_output_matrix():
    assert isinstance(NRMS(768, num_heads=16, head_dim=48).out, torch.nn.Identity)
    assert isinstance(NRMS(768, num_heads=16).out, torch.nn.Identity)
    assert NRMS(10, num_heads=4).out.in_features == 12


@pytest.mark.parametrize("filling", [0, 8, "random"])
def test_padding_changes_neither_users_nor_gradients(filling):
    net, (vectors, history, lengths, _) = model(), case()
    wide = torch.randint(9, (4, 11)) if filling == "random" else torch.full((4, 11), filling)
    for row, length in enumerate(lengths):
        wide[row, :length] = history[row, :length]
    found = []
    for items in (history, wide):
        net.zero_grad()
        users = net.users(vectors, items, lengths)
        (gradient,) = torch.autograd.grad(users.square().sum(), vectors, retain_graph=True)
        users.square().sum().backward()
        found.append([users, gradient, *(p.grad.clone() for p in net.parameters())])
    for short, long in zip(*found, strict=True):
        torch.testing.assert_close(short, long, rtol=0, atol=1e-12)


def test_the_mark_of_padding_may_stand_in_a_history():
    net, (vectors, history, lengths, _) = model(), case()
    marked = history.clone()
    for row, length in enumerate(lengths):
        marked[row, length:] = -1
    torch.testing.assert_close(net.users(vectors, marked, lengths), net.users(vectors, history, lengths))


def test_a_user_without_history_is_learned_and_finite():
    net, (vectors, history, _, candidates) = model(), case()
    lengths = torch.zeros(4, dtype=torch.long)
    scores = net(vectors, history, lengths, candidates)
    scores.sum().backward()
    assert torch.equal(net.users(vectors, history, lengths), net.nobody.expand(4, -1))
    assert all(p.grad is None or p.grad.isfinite().all() for p in [vectors, *net.parameters()])
    assert net.nobody.grad.abs().sum() > 0
    assert net.qkv.weight.grad.abs().sum() == 0


def test_an_empty_batch_is_a_no_op():
    net, (vectors, history, lengths, candidates) = model(), case()
    scores = net(vectors, history[:0], lengths[:0], candidates[:0])
    assert scores.shape == (0, 3)
    scores.sum().backward()


def test_gradients_through_history_and_candidates_are_both_there():
    net = model()
    vectors = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    history, lengths = torch.tensor([[0, 1]]), torch.tensor([2])

    def score(given):
        return net.users(given, history, lengths)[0] @ given[1]

    assert torch.autograd.gradcheck(score, (vectors,))


def test_under_autocast_scores_stay_in_full_precision():
    net, (vectors, history, lengths, candidates) = model().float(), case()
    vectors = vectors.detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = net(vectors, history, lengths, candidates)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, net(vectors, history, lengths, candidates), rtol=0.05, atol=0.05)


def test_dropout_is_for_training_alone():
    net, (vectors, history, lengths, candidates) = model(dropout=0.5), case()
    once, twice = (net(vectors, history, lengths, candidates) for _ in range(2))
    assert not torch.equal(once, twice)
    net.eval()
    once, twice = (net(vectors, history, lengths, candidates) for _ in range(2))
    assert torch.equal(once, twice)
