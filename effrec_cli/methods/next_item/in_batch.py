"""The in-batch loss: a target is told from the items of other windows of the step, less their popularity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def in_batch_loss(
    model: Any,
    vectors: Tensor,
    tensors: Mapping[str, Tensor],
    *,
    corrected: bool,
    temperature: float,
    normalizer: int,
) -> Tensor:
    """Returns `in_batch_cross_entropy` of the states that a model makes of item vectors [U, d], a scalar.

    It is all of a step between vectors and loss, so that both can be one compiled graph.

    Args:
        model: gives states, and `item_vectors`.
        vectors: of the items that `inputs` and `candidates` are positions of.
        tensors: of a batch of `InBatches`.
        corrected: whether popularity is taken off the logits.
        temperature: see `in_batch_cross_entropy`.
        normalizer: see `in_batch_cross_entropy`.
    """
    inputs, valid = tensors["inputs"], tensors["valid"]
    hidden = model(vectors, inputs, tensors["lengths"], valid)
    items = model.item_vectors(vectors.index_select(0, tensors["candidates"]))
    return in_batch_cross_entropy(
        hidden,
        items,
        tensors["labels"],
        valid // inputs.shape[1],
        tensors["members"],
        tensors["log_times"],
        tensors["log_p"] if corrected else None,
        temperature=temperature,
        normalizer=normalizer,
    )


def compiled_in_batch_loss(options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """Returns `in_batch_loss` as one compiled graph, for any number of windows, places, targets and items.

    Only a size of 1, or sizes that are equal for the first time, make another graph.

    Args:
        options: of `torch.compile`.
    """
    from torch._dynamo import maybe_mark_dynamic  # takes seconds, and few runs compile

    graph = torch.compile(in_batch_loss, **options)

    def loss(
        model: Any, vectors: Tensor, tensors: Mapping[str, Tensor], *, normalizer: int, **settings: Any
    ) -> Tensor:
        maybe_mark_dynamic(vectors, 0)
        for each in tensors.values():
            maybe_mark_dynamic(each, list(range(each.ndim)))
        # A number that differs from step to step would be a part of the graph.
        total: Tensor = graph(model, vectors, tensors, normalizer=1, **settings)
        return total / normalizer

    return loss


def in_batch_cross_entropy(
    hidden: Tensor,
    items: Tensor,
    labels: Tensor,
    windows: Tensor,
    members: Tensor,
    log_times: Tensor,
    log_p: Tensor | None,
    *,
    temperature: float,
    normalizer: int,
) -> Tensor:
    """Returns the softmax of each target against the items of other windows, summed, over `normalizer`.

    Papers/iisan section 1.8. The logits of a row are its products over `temperature`, less `log_p`: the
    target's too. An item of the row's own window is no negative, wherever else it stands; the target counts
    once. Any other item of the step counts as often as it stands there, which `log_times` does in one column:
    the sum is that over all places of all windows. Products are in the inputs' precision, or float32 where
    that is less; a fixed number of kernels, whatever the sizes. One float [m, C] is kept for the backward
    pass, and a few live while it is made.

    Args:
        hidden: states [m, D] of a micro-batch of b windows.
        items: [C, D], the step's different items.
        labels: int64 [m], the columns of targets; each is an item of its row's window.
        windows: int64 [m], the window of each row, below b.
        members: int64 [b, S], the columns of each window's items; C where there is none.
        log_times: float [C], logarithm of how often each item stands in the step.
        log_p: float [C], logarithm of its popularity; None corrects nothing.
        temperature: divides products, and not what is added to them.
        normalizer: rows with a loss in the whole step.
    """
    dtype = torch.promote_types(torch.promote_types(hidden.dtype, items.dtype), torch.float32)
    less = torch.zeros_like(log_times, dtype=dtype) if log_p is None else log_p.to(dtype)
    own = members.new_zeros(len(members), len(items) + 1, dtype=torch.bool).scatter(1, members, True)
    added = (log_times.to(dtype) - less).masked_fill(own[:, :-1], -math.inf)
    with torch.autocast(hidden.device.type, enabled=False):
        products = (hidden.to(dtype) / temperature) @ items.to(dtype).T
    target = products.gather(1, labels[:, None]) - less.index_select(0, labels)[:, None]
    # The target's column is hidden like all of its window's, and comes back as it is alone.
    logits = (products + added.index_select(0, windows)).scatter(1, labels[:, None], target)
    return (logits.logsumexp(1) - target[:, 0]).sum() / normalizer
