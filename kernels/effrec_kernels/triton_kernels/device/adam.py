"""Adam on the rows of a gradient: each row's values, moments and weights are read once and written once."""

import triton
import triton.language as tl

from .arithmetic import one_minus_exp
from .signature import UNSPECIALIZED


@triton.jit
def corrections(steps, lr, decay1, decay2) -> tuple[tl.tensor, tl.tensor]:
    """Returns lr / (1 - b1^n) and the root of 1 - b2^n."""
    return lr / one_minus_exp(steps * decay1), tl.sqrt(one_minus_exp(steps * decay2))


@triton.jit(do_not_specialize=UNSPECIALIZED)
def move_rows(
    rows, values, table, exp_avg, exp_avg_sq, row_steps, grad_scale, found_inf,
    num_rows, num_items, dim, table_row, table_step, moment_row, moment_step, values_row, values_step,
    lr, gain1, gain2, decay1, decay2, eps, weight_decay,
    DECOUPLED: tl.constexpr, BY_SLOT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
) -> None:  # fmt: skip
    """Moves row rows[i] by values[i] for all i < num_rows; rows of V or more are unused slots.

    gain is 1 - beta and decay is -log(beta) of each moment. Where `found_inf` is not 0 nothing is written.
    Gradients are divided by `grad_scale`. BY_SLOT: counts are int16 [V, D], lie as the moments do and stop at
    32,767; else [V]. Grid: (blocks of rows).
    """
    if found_inf is not None:  # noqa: SIM102 (no value to load where there is none)
        if tl.load(found_inf) != 0:
            return
    at = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.load(rows + at, mask=at < num_rows, other=num_items)
    used = row < num_items
    if not BY_SLOT:
        steps = tl.load(row_steps + row, mask=used, other=0.0) + 1.0
        tl.store(row_steps + row, steps, mask=used)
        rate, spread = corrections(steps[:, None], lr, decay1, decay2)
    for chunk in range(CHUNKS):
        places = chunk * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
        mask = used[:, None] & (places < dim)[None, :]
        weights = table + row[:, None] * table_row + places[None, :] * table_step
        moment = row[:, None] * moment_row + places[None, :] * moment_step
        if BY_SLOT:
            count = tl.minimum(tl.load(row_steps + moment, mask=mask, other=0).to(tl.int32) + 1, 32767)
            tl.store(row_steps + moment, count.to(tl.int16), mask=mask)
            rate, spread = corrections(count.to(tl.float32), lr, decay1, decay2)
        given = values + at[:, None] * values_row + places[None, :] * values_step
        weight = tl.load(weights, mask=mask, other=0.0)
        gradient = tl.load(given, mask=mask, other=0.0).to(tl.float32)
        if grad_scale is not None:
            gradient /= tl.load(grad_scale)
        if DECOUPLED:
            weight *= 1 - lr * weight_decay
        else:
            gradient += weight_decay * weight
        mean = tl.load(exp_avg + moment, mask=mask, other=0.0)
        square = tl.load(exp_avg_sq + moment, mask=mask, other=0.0)
        mean += gain1 * (gradient - mean)
        square += gain2 * (gradient * gradient - square)
        tl.store(exp_avg + moment, mean, mask=mask)
        tl.store(exp_avg_sq + moment, square, mask=mask)
        tl.store(weights, weight - rate * mean / (tl.sqrt(square) / spread + eps), mask=mask)
