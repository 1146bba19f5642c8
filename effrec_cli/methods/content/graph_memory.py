"""Whether the encoder's graph of a micro-batch fits, judged by what one chunk of it takes on this device."""

from __future__ import annotations

import torch
from torch import Tensor

from effrec_cli.data.batches import Batches, Share
from effrec_cli.evaluation.blocks import free_bytes
from effrec_cli.methods.content.chunks import Chunk
from effrec_cli.methods.content.encoding import Context, Encoding
from effrec_cli.methods.content.items import ITEMS
from effrec_cli.methods.next_item.choice import Choice

_STEPS = 4
"""Steps whose items are counted; the largest micro-batch decides."""
_GIB = 1 << 30


def recompute_pays(
    encoding: Encoding, batches: Batches, autocast: Context, *, micros: int, share: float
) -> Choice[bool]:
    """Returns whether to encode again for the backward pass, since the graph would take too much memory.

    Args:
        encoding: of the items.
        batches: to train on, with items.
        autocast: the context of the run's precision.
        micros: micro-batches of a step.
        share: of the free memory that the graph may take.
    """
    steps = range(min(_STEPS, batches.steps_per_epoch))
    plans = [_mine(encoding, batches, step, micro, micros) for step in steps for micro in range(micros)]
    tokens = max((sum(map(_tokens, chunks)) for chunks in plans), default=0)
    chunks = next((chunks for chunks in plans if chunks), None)
    per_token = graph_bytes(encoding, chunks[0], autocast) / _tokens(chunks[0]) if chunks else 0.0
    needed, free = per_token * tokens, share * free_bytes(encoding.device)
    (too_much,) = encoding.world.agree([needed > free])
    graph = "the graph of a micro-batch" if micros > 1 else "the graph of a step"
    verdict = f"true: {graph} would take" if too_much else f"false: {graph} takes"
    return Choice(
        too_much,
        f"{verdict} about {needed / _GIB:.2g} GiB ({tokens:,} tokens, measured on one chunk), "
        f"{free / _GIB:.2g} GiB may be taken",
    )


def graph_bytes(encoding: Encoding, chunk: Chunk, autocast: Context) -> int:
    """Returns the bytes that a chunk's graph keeps for its backward pass, weights not counted."""
    own = {each.untyped_storage().data_ptr() for each in encoding.encoder.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    counted, training = dict(encoding.encoded), encoding.encoder.training
    encoding.encoder.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vectors = encoding.encode(chunk, autocast)
        total = sum(kept.values())
    del vectors
    encoding.encoder.train(training)
    encoding.encoded = counted
    return total


def _mine(encoding: Encoding, batches: Batches, step: int, micro: int, micros: int) -> list[Chunk]:
    """Returns the chunks that this rank encodes for a micro-batch of one of the first steps."""
    share = Share(encoding.world.rank, encoding.world.size, micro, micros)
    items = batches.batch(0, step, share, step).host[ITEMS]
    return encoding.mine(encoding.plan(items, 0))


def _tokens(chunk: Chunk) -> int:
    return len(chunk) * max(1, chunk.width)
