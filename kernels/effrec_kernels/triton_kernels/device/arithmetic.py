"""Arithmetic on the device that the kernels share: reading rows, and a loss from running sums."""

import triton
import triton.language as tl


@triton.jit
def read_rows(matrix, at, valid, places, COMPUTE: tl.constexpr) -> tl.tensor:
    """Returns [ROWS, PLACES]: values `places` of rows `at` of a matrix, 0 where not `valid`.

    A matrix is (pointer, width, distance of rows, distance of values). Values are rounded to COMPUTE,
    whatever they are stored in. Offsets are 64-bit.
    """
    table, width, row, step = matrix
    offsets = at.to(tl.int64)[:, None] * row + places.to(tl.int64)[None, :] * step
    return tl.load(table + offsets, mask=valid[:, None] & (places < width)[None, :], other=0).to(COMPUTE)


@triton.jit
def read_row(matrix, at, places, COMPUTE: tl.constexpr) -> tl.tensor:
    """Returns float32 [PLACES] of row `at`, rounded to COMPUTE."""
    table, width, row, step = matrix
    offsets = at.to(tl.int64) * row + places.to(tl.int64) * step
    return tl.load(table + offsets, mask=places < width, other=0).to(COMPUTE).to(tl.float32)


@triton.jit
def log1p(x) -> tl.tensor:
    """Returns log(1 + x) with the digits of a small x; x >= 0."""
    shifted = 1 + x
    small = shifted == 1
    return tl.where(small, x, tl.log(shifted) * (x / tl.where(small, 1, shifted - 1)))


@triton.jit
def one_minus_exp(x) -> tl.tensor:
    """Returns 1 - exp(-x) with the digits of a small x >= 0."""
    series = x * (1 - x * (0.5 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120)))))
    return tl.where(x < 0.125, series, 1 - tl.exp(-x))


@triton.jit
def softplus(x) -> tl.tensor:
    """Returns log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def finite(peak) -> tl.tensor:
    """Returns a maximum that can be subtracted: 0 where nothing has been seen, so -inf never meets -inf."""
    return tl.where(peak == float("-inf"), 0.0, peak)


@triton.jit
def softmax_loss(positive, peak, total, shift) -> tuple[tl.tensor, tl.tensor]:
    """Returns a row's loss and the factor of its negatives' weights in probabilities.

    Args:
        positive: logit z_0.
        peak: the largest logit of the negatives, -inf where there are none.
        total: sum over negatives of exp(z_j - peak).
        shift: k, which every negative's logit gets.

    Returns:
        loss = log(exp z_0 + sum_j exp(z_j + k)) - z_0, and f with p_j = f exp(z_j - peak).
    """
    others_peak = finite(peak) + shift
    highest = tl.where(total > 0, tl.maximum(positive, others_peak), positive)
    rescale = tl.where(total > 0, tl.exp(others_peak - highest), 0.0)
    own, others = tl.exp(positive - highest), total * rescale
    # The larger of the two summands is 1 or more: taken out, no digits of a small loss are lost.
    beyond_one = tl.where(positive >= highest, others, own + (others - 1))
    return (highest - positive) + log1p(beyond_one), rescale / (own + others)
