"""What a run cost, as plain values; imports no torch, so that reading results is instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameters:
    """Numbers of a model's parameters; a tensor shared by two layers counts once.

    Attributes:
        all: every parameter.
        trainable: those that receive gradients.
        nonzero: those whose value is not exactly 0.
    """

    all: int
    trainable: int
    nonzero: int


@dataclass(frozen=True)
class Cost:
    """What a run cost, over all its parts if it was interrupted and resumed.

    `seconds_data`, `_factorise`, `_sample`, `_build`, `_total`, `_test` and `_save` share no second and add
    up to `seconds_wall`; `seconds_total` is training and `seconds_validation`. Those beside `seconds_total`
    are of the part of the run that finished it, on its first rank; with a GPU each waits for the device. None
    where a run has no such stage, and in results that were written before it was measured.

    Attributes:
        seconds_total: wall time of training and validating, for every method: the loop with its validations,
            or fitting and the one validation of a method without a loop. Getting the data, building the model
            and ranking the test cases are not in it.
        seconds_per_epoch: median training time of an epoch without validation; the first epoch, which warms
            up, is left out where there are more. None where no epoch ran.
        seconds_to_95: training time, without validation, until 95 % of the best validation score was first
            reached. None where nothing was validated.
        joules: energy of the devices trained on, as their own counters say; None where they have none.
        peak_memory_bytes: see `memory_kind`; the largest of all ranks. None where it cannot be known.
        memory_kind: `cuda_allocated` is the allocator's peak; `rss_growth` the process's peak resident memory
            above its start; `rss_growth_ever` the same where the peak cannot be reset, so a lower bound.
        parameters: of the trained model.
        model_bytes: size of the saved model's file.
        training_rows: interactions that training used.
        flops_per_sample: floating-point operations of one sample's forward pass (a multiply-add is two), in
            matrix products, convolutions and attention. None where they cannot be counted.
        seconds_validation: the part of `seconds_total` that was spent validating.
        seconds_lost: the part of `seconds_total` whose work a kill undid, as far as metrics.jsonl shows: from
            the save that the run went on from to the last record after it.
        seconds_data: beside `seconds_total`, until the data were open: fetched, prepared and sampled
            (`dataset.sample`) where that was still to be done.
        seconds_factorise: beside `seconds_total`, fitting a factorisation to start from; 0 where an earlier
            run or another rank had fitted it.
        seconds_sample: beside `seconds_total`, drawing the rows to train on (`method.sample`).
        seconds_build: beside `seconds_total`, getting ready to train and taking the best weights back: the
            model, its batches and optimizers, a checkpoint to go on from, finding what earlier runs have
            kept, and filling a cache of features.
        seconds_test: beside `seconds_total`, ranking the test cases.
        seconds_save: beside `seconds_total`, writing the weights and ids, and counting operations.
        seconds_wall: from where the run began to open its data to where it wrote this, and what earlier parts
            trained and validated. Starting Python and checking settings come before.
        seconds_cache: beside `seconds_total`, making what is kept between runs for training to read, such as
            the features of frozen encoders or the vectors of a factorisation: once, by this run or by an
            earlier one. None where there is none. No part of `seconds_wall` but for what this run did.
        cache_id: names a factorisation that `seconds_cache` was spent on: runs with the same name share it.
        factor_bytes: of its vectors of users and items, (users + items) x dim x 4.
        weights_bytes: the most that parameters and buffers took, as they are allocated, in the steps that
            were looked at, which are one in twenty, and at the end.
        gradient_bytes: the most that gradients took, likewise, in those steps. None without a loop, as the
            next.
        optimizer_bytes: of what optimizers remember, likewise.
        epochs: complete epochs.
        first_epoch_counted: `seconds_per_epoch` is the time of the only epoch, warm-up included.
    """

    seconds_total: float
    seconds_per_epoch: float | None
    seconds_to_95: float | None
    joules: float | None
    peak_memory_bytes: int | None
    memory_kind: str
    parameters: Parameters
    model_bytes: int | None
    training_rows: int
    flops_per_sample: float | None
    seconds_validation: float = 0.0
    seconds_lost: float = 0.0
    seconds_data: float | None = None
    seconds_test: float | None = None
    seconds_cache: float | None = None
    seconds_factorise: float | None = None
    seconds_sample: float | None = None
    seconds_build: float | None = None
    seconds_save: float | None = None
    seconds_wall: float | None = None
    cache_id: str | None = None
    factor_bytes: int | None = None
    weights_bytes: int | None = None
    gradient_bytes: int | None = None
    optimizer_bytes: int | None = None
    epochs: int = 0
    first_epoch_counted: bool = False


def state_bytes(cost: Cost, sparsity: dict[str, Any] | None) -> dict[str, int | None]:
    """Returns what a run trains with, the most of each part; None where it was not measured.

    Args:
        cost: of the run.
        sparsity: as `Method.sparsity` tells it; sums that rank growth are a part where there were some.
    """
    sums = (sparsity or {}).get("growth_bytes")
    return {
        "weights": cost.weights_bytes,
        "gradients": cost.gradient_bytes,
        "optimizer": cost.optimizer_bytes,
        **({"growth sums": sums} if sums else {}),
    }
