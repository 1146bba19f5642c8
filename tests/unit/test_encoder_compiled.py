"""A compiled encoder: one graph for each power of two of width, and the vectors of the plain one."""

import pytest
import torch
from encoder_helpers import built, close, gradients, layouts

from effrec_cli.models.encoders.item import bucketed_width


@pytest.mark.parametrize(
    ("width", "most", "bucket"),
    [(1, 512, 16), (16, 512, 16), (17, 512, 32), (65, 512, 128), (300, 400, 400), (512, 512, 512), (5, 9, 9)],
)
def test_widths_are_rounded_up_to_powers_of_two_within_bounds(width, most, bucket):
    assert bucketed_width(width, most) == bucket


@pytest.fixture
def graphs(monkeypatch):
    """Returns the shapes that graphs were made for; they run as they are, since compiling them takes long."""
    torch._dynamo.reset()
    made = []

    def keep(graph, inputs):
        made.append([tuple(each.shape) for each in inputs if isinstance(each, torch.Tensor)])
        return graph.forward

    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: plain(function, backend=keep))
    yield made
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling": "attention"},
        {"train": "top", "top_layers": 1},
        {"modality": "image"},
    ],
    ids=str,
)
def test_a_compiled_encoder_gives_the_vectors_and_gradients_of_the_plain_one(settings, graphs):
    plain, compiled = built(**settings), built(**settings, compile=True)
    weights = torch.randn(len(plain.costs), plain.dim, dtype=torch.float64)
    for name in ("by length", "one by one"):
        results = [gradients(each, layouts(plain.costs)[name], weights) for each in (plain, compiled)]
        close({"": results[0][0]}, {"": results[1][0]})
        close(results[0][1], results[1][1], within=1e-11)
    assert graphs


def test_other_numbers_of_items_and_widths_of_a_bucket_make_no_new_graph(graphs):
    encoder = built(compile=True)
    for items, width in (
        ([1, 2], 12),
        ([0, 1, 3, 4], 14),
        ([5, 6, 2], 18),
        ([7, 8, 5], 18),
        ([1, 2, 3, 6, 7], 11),
    ):
        encoder(torch.tensor(items), width)
    assert len(graphs) <= 4, "at most one for the first number of items and one for all others, of each width"
    before = len(graphs)
    for count in range(2, 9):
        encoder(torch.arange(count), 16)
        encoder(torch.arange(count), 18)
    assert len(graphs) == before
