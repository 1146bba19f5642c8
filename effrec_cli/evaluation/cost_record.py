"""What a run cost, as plain values; imports no torch, so that reading results is instant."""

from __future__ import annotations

from dataclasses import dataclass


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
        seconds_data: beside `seconds_total`, until the data were open: fetched and prepared where that was
            still to be done. Of the part of the run that finished it; None where not measured.
        seconds_test: beside `seconds_total`, ranking the test cases.
        seconds_cache: beside `seconds_total`, making what is kept between runs for training to read, such as
            the features of frozen encoders: once, by this run or by an earlier one. None where there is none.
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
    epochs: int = 0
    first_epoch_counted: bool = False
