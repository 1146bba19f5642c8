"""Contents of a few items, encoders over them, and what tests measure of these."""

import numpy as np
import torch

from effrec_cli.data.contents import Contents
from effrec_cli.data.tokens import table_of
from effrec_cli.methods.content.encoder import build_encoder
from effrec_cli.schema.encoder import EncoderConfig, encoder_problems

WORDS = ["red", "green", "blue", "old", "new", "big", "small", "house", "river", "moon", "stone"]
LENGTHS = (3, 1, 9, 4, 4, 17, 2, 6, 12, 1, 5, 8)


def contents(seed=0):
    """Returns texts, tokens and images of twelve items; their texts have as many words as LENGTHS says."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, len(WORDS), length).astype(np.int32) for length in LENGTHS]
    texts = np.array([" ".join(WORDS[token] for token in row) for row in rows])
    images = rng.integers(0, 256, (len(rows), 10, 14, 3), dtype=np.uint8)
    return Contents(texts, table_of(rows, len(WORDS)), images)


def built(cache=None, said=None, given=None, **settings):
    """Returns an encoder in float64, without dropout unless it is among the settings."""
    config = EncoderConfig(**{"dropout": 0.0, "dim": 8, **settings} if "name" not in settings else settings)
    assert not list(encoder_problems(config))
    torch.manual_seed(0)
    say = (lambda line: None) if said is None else said.append
    return build_encoder(config, given or contents(), cache, say).double()


def gradients(encoder, chunks, weights):
    """Returns vectors and gradients by name of `(weights * vectors).sum()`, encoded a chunk at a time.

    Args:
        encoder: whose gradients are replaced.
        chunks: (items, width) each; together every item once.
        weights: [V, d].
    """
    encoder.zero_grad(set_to_none=True)
    vectors = torch.zeros_like(weights)
    for items, width in chunks:
        rows = torch.as_tensor(items)
        out = encoder(rows, width)
        (weights[rows] * out).sum().backward()
        vectors[rows] = out.detach()
    found = {name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None}
    return vectors, found


def layouts(costs):
    """Returns ways to encode all items: at once, wide, one by one, by length, and in no order."""
    every, longest = list(range(len(costs))), int(costs.max())
    order = np.argsort(costs, kind="stable").tolist()
    mixed = np.random.default_rng(1).permutation(len(costs)).tolist()
    return {
        "at once": [(every, longest)],
        "one by one": [([item], int(costs[item])) for item in reversed(every)],
        "by length": [(part, int(costs[part].max())) for part in (order[:5], order[5:9], order[9:])],
        "in no order": [(mixed[first : first + 3], longest) for first in range(0, len(mixed), 3)],
    }


def close(first, second, within=1e-12):
    """Asserts that tensors by name are equal, relative to the largest value of each."""
    assert first.keys() == second.keys()
    for name, values in first.items():
        scale = max(values.abs().max().item(), 1e-3)
        assert (values - second[name]).abs().max().item() <= within * scale, name
