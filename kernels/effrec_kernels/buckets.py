"""Scalable cross-entropy (SCE): a softmax against the items that lie where a position's state points.

Random directions are drawn; each gathers the positions and the items that lie furthest along it into a
bucket, and a position's negatives are the items of its bucket. They are hard ones, mined without a pass over
M V logits: a row of projections for each direction is all that looks at the whole catalogue.

Source: Mezentsev et al., "Scalable Cross-Entropy Loss for Sequential Recommendations with Large Item
Catalogs" (RecSys 2024, arXiv 2409.18721); papers/cce section 1.3. The scale D^(-1/4) that the published code
gives its directions changes no order along them, and is left out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .arguments import Stream, chunk_room
from .checks import check_reduction, check_row_offset, check_tensors
from .chunks import rows_at_once, slices
from .evaluate import Reduction
from .looks import check_targets
from .rng import Key, Mapping, Words, check_key, fill
from .sampled import sampled_cross_entropy
from .values import whole_number, yes_or_no

# Streams of draws of their own (`rng.fill`): of directions, and of weights that mix states.
DIRECTION_FLAG, MIX_FLAG = 0x40000000, 0x20000000
# A projection, its rounding in autocast, and what finding the largest takes.
SCORE_BYTES = 16


def scalable_cross_entropy(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    num_buckets: int | None = None,
    bucket_rows: int | None = None,
    bucket_items: int = 256,
    mix: bool = True,
    seed: int = 0,
    step: int = 0,
    row_offset: int | Tensor = 0,
    temperature: float = 1.0,
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    return_covered: bool = False,
    deterministic: bool = False,
    sparse: bool = False,
    chunk_bytes: int | None = None,
    kernel: str = "auto",
) -> Any:
    """Returns the softmax cross-entropy of positions against the items of their buckets.

    A position's candidates in a bucket are its target and the bucket's items, the target among them masked. A
    position in several buckets has its largest loss, one in none has no loss. What is in which bucket is not
    differentiated through. Held are projections, a chunk of directions at a time, the states of all buckets
    [G b_x, D] (4 M D by default), and what `sampled_cross_entropy` takes for them: nothing of M V.

    Args:
        hidden: [M, D]; like the following as in `sampled_cross_entropy`.
        items: [V, D].
        targets: int [M].
        num_buckets: G; None is 2 sqrt(M), rounded down.
        bucket_rows: b_x, positions of a bucket (M at most); None is 2 sqrt(M), rounded down.
        bucket_items: b_y, items of a bucket (V at most).
        mix: whether directions are random mixtures of the batch's own states, near which they crowd, instead
            of normal random ones.
        seed: 64-bit key of the draws.
        step: in [0, 2^32); another step draws other directions.
        row_offset: global number of the first row, or int64 [M] of all: what mixtures' weights are keyed on.
            Buckets are of this call's rows alone.
        temperature: divides products of states and items.
        row_weights: [M], multiplies positions' losses; it does not change who is in which bucket.
        ignore_index: targets of this value have no loss, and their rows are in no bucket before others.
        reduction: `mean` over covered positions (0 if there are none), `sum`, or `none` for [M], 0 elsewhere.
        normalizer: divides the sum in place of the count of covered positions.
        return_covered: return (loss, bool [M]: whether a position is covered) instead, so that micro-batches
            can be summed and divided by the count of all.
        deterministic: the same bits in every run: of a state's losses all but the largest send back zeros.
        sparse: give `items` a gradient of the rows in buckets alone, G (b_x + b_y) of them (docs: sparse.md).
        chunk_bytes: bound on projections, and on intermediates of the losses.
        kernel: who computes the losses in the buckets.

    Returns, and raises: as `sampled_cross_entropy`.
    """
    check_reduction(reduction, normalizer)
    yes_or_no("return_covered", return_covered)
    check_tensors(hidden, items, targets, row_weights)
    number, positions = bucket_sizes(len(hidden), num_buckets, bucket_rows)
    sizes = number, positions, min(whole_number("bucket_items", bucket_items, 1), len(items))
    draws = Stream(*check_key(seed, step), None, row_offset)
    rows, negatives = _buckets(hidden, items, targets, sizes, draws, mix, ignore_index, chunk_bytes)
    losses = sampled_cross_entropy(
        *(hidden.index_select(0, rows), items, targets.index_select(0, rows)),
        negatives=negatives,
        sharing=_by_bucket(number, positions, targets.device),
        correction="none",
        temperature=temperature,
        ignore_index=ignore_index,
        reduction="none",
        deterministic=deterministic,
        sparse=sparse,
        chunk_bytes=chunk_bytes,
        kernel=kernel,
    )
    largest, covered = _largest(losses, rows, targets != ignore_index)
    reduced = Reduction(reduction, row_weights, normalizer)(largest, covered)
    return (reduced, covered) if return_covered else reduced


def _buckets(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    sizes: tuple[int, int, int],
    draws: Stream,
    mix: bool,
    ignore_index: int,
    chunk_bytes: int | None,
) -> tuple[Tensor, Tensor]:
    """Returns `fill_buckets` of G, b_x and b_y, its other arguments checked."""
    ignored, first = whole_number("ignore_index", ignore_index), check_row_offset(draws.row_offset, hidden)
    numbers = draws.row_offset if isinstance(draws.row_offset, Tensor) else None
    yes_or_no("mix", mix)
    room = chunk_room(chunk_bytes, hidden.device)
    key = draws.seed, draws.step
    with torch.no_grad():
        tensors = hidden.detach(), items.detach(), targets, numbers
        return fill_buckets(*tensors, first, ignored, *key, *sizes, mix, room, _rounding(hidden))


def _rounding(hidden: Tensor) -> torch.dtype | None:
    """Returns the dtype that autocast rounds operands of products to, or None where it is off."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def bucket_sizes(rows: int, num_buckets: int | None, bucket_rows: int | None) -> tuple[int, int]:
    """Returns G and b_x for M rows; no buckets where there are no rows.

    Raises:
        ValueError: a number below 1 is asked for. TypeError: it is none.
    """
    # A root of float64 is exact enough below 2^50 rows, and compiled graphs can trace it.
    default = int(math.sqrt(4 * rows))
    number = default if num_buckets is None else whole_number("num_buckets", num_buckets, 1)
    positions = default if bucket_rows is None else whole_number("bucket_rows", bucket_rows, 1)
    return number if rows else 0, min(positions, rows)


def _by_bucket(number: int, positions: int, device: torch.device) -> int | Tensor:
    """Returns how rows that stand bucket by bucket share: tiles, or sequences where tiles were of one row.

    A tile of one row would be a row with negatives of its own, which is refused a sparse gradient.
    """
    return positions if positions > 1 else torch.arange(number + 1, device=device) * positions


def _fill_buckets(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    row_numbers: Tensor | None,
    first_row: int,
    ignore_index: int,
    seed: int,
    step: int,
    number: int,
    positions: int,
    kept: int,
    mix: bool,
    room_bytes: int,
    rounding: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """Returns the rows [G b_x] of all buckets, one bucket after the other, and their items [G, b_y], int64.

    All targets are looked at: rows that are in no bucket must have items, too.
    """
    check_targets(targets, ignore_index, len(items))
    left_out = targets == ignore_index
    with torch.autocast(hidden.device.type, enabled=False):
        states = hidden.masked_fill(left_out[:, None], 0)
        offset = first_row if row_numbers is None else row_numbers
        along = directions(states, number, Key(seed, step), mix, offset, room_bytes)
        rows = _furthest(along, states.to(rounding or states.dtype), positions, room_bytes, left_out)
        return rows.flatten(), _furthest(along, items.to(rounding or items.dtype), kept, room_bytes)


# Opaque to `torch.compile`: chunks and buckets may change in number without another graph.
fill_buckets = torch.library.custom_op(
    "effrec_kernels::fill_buckets",
    _fill_buckets,
    mutates_args=(),
    schema="(Tensor hidden, Tensor items, Tensor targets, Tensor? row_numbers, SymInt first_row, "
    "SymInt ignore_index, SymInt seed, SymInt step, SymInt number, SymInt positions, SymInt kept, bool mix, "
    "SymInt room_bytes, ScalarType? rounding) -> (Tensor, Tensor)",
)


@fill_buckets.register_fake
def _(hidden: Tensor, items: Tensor, targets: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    number, positions, kept = options[5:8]
    like = targets.new_empty(0, dtype=torch.int64)
    return like.new_empty(number * positions), like.new_empty(number, kept)


def directions(
    states: Tensor, number: int, key: Key, mix: bool, row_offset: int | Tensor = 0, room_bytes: int = 1 << 25
) -> Tensor:
    """Returns random directions [G, D], in float32.

    Args:
        states: [M, D].
        number: G.
        key: of the draws.
        mix: weights are drawn for every (direction, row), and directions are so weighted sums of states.
        row_offset: global number of the first row, or int64 [M] of all: the same row has the same weights.
        room_bytes: bound on weights alive at a time.
    """
    device = states.device
    if not mix:
        out = torch.empty(number, states.shape[1], device=device)
        fill(out, torch.arange(number, device=device), key, NORMAL, DIRECTION_FLAG)
        return out
    counted = torch.arange(len(states), device=device)
    rows = row_offset if isinstance(row_offset, Tensor) else counted + row_offset
    out = torch.zeros(number, states.shape[1], device=device)
    for some in slices(len(states), rows_at_once(room_bytes, SCORE_BYTES * max(1, number))):
        weights = torch.empty(len(states[some]), number, device=device)
        fill(weights, rows[some], key, NORMAL, MIX_FLAG)
        out += weights.t() @ states[some].float()
    return out


def _normal(words: Words) -> list[Tensor]:
    """Returns four standard normal numbers for four words (Box and Muller 1958), never infinite."""
    numbers = []
    for one, other in (words[:2], words[2:]):
        radius = one.double().add_(0.5).div_(1 << 32).log_().mul_(-2).sqrt_()
        angle = other.double().mul_(2 * math.pi / (1 << 32))
        numbers += [radius * angle.cos(), radius * angle.sin()]
    return numbers


NORMAL = Mapping(4, _normal)


def _furthest(
    along: Tensor, vectors: Tensor, number: int, room_bytes: int, left_out: Tensor | None = None
) -> Tensor:
    """Returns int64 [G, number]: vectors with the largest projections, those left out after the others."""
    found = torch.empty(len(along), number, dtype=torch.int64, device=vectors.device)
    if not number:
        return found
    if vectors.dtype == torch.float16:
        # Of length 1, which changes no order, they make projections that its exponents hold.
        along = torch.nn.functional.normalize(along, dim=1)
    for some in slices(len(along), rows_at_once(room_bytes, SCORE_BYTES * len(vectors))):
        scores = along[some].to(vectors.dtype) @ vectors.t()
        if left_out is not None:
            scores.masked_fill_(left_out, -math.inf)
        found[some] = scores.topk(number, sorted=False).indices
    return found


def _largest(losses: Tensor, rows: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each position's largest loss [M], 0 where it has none, and bool [M], whether it has one."""
    covered = torch.zeros_like(valid).index_fill_(0, rows, True) & valid
    lowest = losses.new_full(valid.shape, -math.inf)
    largest = lowest.scatter_reduce(0, rows, losses, "amax")
    return torch.where(covered, largest, 0), covered
