"""Binary cross-entropy against sampled negatives: SASRec's, with any number of them, and gSASRec's."""

from __future__ import annotations

from torch import Tensor

from .arguments import Form, Frame, Negatives, Stream, sampled_problem
from .checks import check_negatives, check_plain, check_reduction
from .evaluate import Reduction, evaluate
from .popularity import Popularity
from .values import real_number, whole_number


def binary_cross_entropy_sampled(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    num_negatives: int | None = None,
    negatives: Tensor | None = None,
    sampler: str | Popularity = "uniform",
    sharing: str | int | Tensor = "row",
    sharing_stride: int = 1,
    in_batch: int = 0,
    seed: int = 0,
    step: int = 0,
    rng_state: Tensor | None = None,
    row_offset: int | Tensor = 0,
    temperature: float = 1.0,
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    deterministic: bool = False,
    sparse: bool = False,
    chunk_bytes: int | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Returns -[log s(z_0) + sum_j log(1 - s(z_j))], z_0 the positive's logit and z_j the negatives'.

    One negative is SASRec's loss (Kang and McAuley 2018); more are summed, the BCE+ of arXiv 2509.09682.
    Logarithms of sigmoids are softplus, exact for any logit: nothing is clamped and no epsilon added. Unlike
    there, a negative that is the positive is left out. No correction is added to logits, whatever draws them.
    Arguments, result and errors are those of `sampled_cross_entropy`; `mean` divides by the count of targets,
    not of terms.
    """
    check_reduction(reduction, normalizer)
    stream = Stream(seed, step, rng_state, row_offset)
    drawn = Negatives(num_negatives, negatives, stream, sampler, sharing, sharing_stride, in_batch)
    frame = Frame(row_weights, ignore_index, chunk_bytes, kernel, deterministic, sparse)
    form = Form(temperature=temperature, objective="binary")
    problem = sampled_problem(hidden, items, targets, drawn, form, frame)
    return evaluate(problem, Reduction(reduction, row_weights, normalizer))


def gbce_beta(num_negatives: int, num_items: int, t: float) -> float:
    """Returns beta = a (t (1 - 1/a) + 1/a) = 1 - t (1 - a), a = N / (V - 1), at most 1, the sampling rate.

    Source: Petrov and Macdonald, gSASRec (RecSys 2023), section on generalised BCE. t = 0 gives 1, plain BCE;
    t = 1 gives a.

    Raises:
        ValueError, TypeError: N or V is no whole number of 1 or more, or `t` is outside of [0, 1].
    """
    negatives, items = (
        whole_number("num_negatives", num_negatives, 1),
        whole_number("num_items", num_items, 1),
    )
    rate = min(1.0, negatives / max(items - 1, 1))
    return 1 - _share(t) * (1 - rate)


def _share(t: float) -> float:
    share = real_number("t", t)
    if not 0 <= share <= 1:
        raise ValueError(f"t must be in [0, 1], not {t}")
    return share


def gbce(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    t: float = 0.75,
    num_negatives: int | None = None,
    negatives: Tensor | None = None,
    sampler: str | Popularity = "uniform",
    sharing: str | int | Tensor = "row",
    sharing_stride: int = 1,
    in_batch: int = 0,
    seed: int = 0,
    step: int = 0,
    rng_state: Tensor | None = None,
    row_offset: int | Tensor = 0,
    temperature: float = 1.0,
    row_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    deterministic: bool = False,
    sparse: bool = False,
    chunk_bytes: int | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Returns gSASRec's -[beta log s(z_0) + sum_j log(1 - s(z_j))] / (N + 1).

    Beta counters the overconfidence that uniformly sampled negatives cause; other draws have no beta of their
    own and get the same. The power s(z_0)^beta is never formed: its logarithm is beta times a log-sigmoid,
    exact where float32 would lose it. A negative that is the positive is left out of the sum, not of N + 1.

    `t` in [0, 1] is the share of the correction: 0 plain BCE, 1 all of it. Other arguments, result and errors
    are those of `sampled_cross_entropy`, and ValueError where `t` is outside its range.
    """
    share = _share(t)
    check_reduction(reduction, normalizer)
    check_plain("items", items)
    number = check_negatives(negatives, num_negatives, in_batch)
    stream = Stream(seed, step, rng_state, row_offset)
    drawn = Negatives(num_negatives, negatives, stream, sampler, sharing, sharing_stride, in_batch)
    frame = Frame(row_weights, ignore_index, chunk_bytes, kernel, deterministic, sparse)
    form = Form(
        temperature=temperature, objective="binary", beta=gbce_beta(number, max(1, len(items)), share)
    )
    problem = sampled_problem(hidden, items, targets, drawn, form, frame)
    return evaluate(problem, Reduction(reduction, row_weights, normalizer)) / (number + 1)
