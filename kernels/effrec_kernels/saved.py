"""What a loss keeps from forward to backward, and the refusal of a second derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from torch import Tensor

Context = Any
_REFUSAL = (
    "the losses of effrec_kernels have no second derivative; kernel='reference' has one, and so has "
    "sampled_cross_entropy_dense"
)


def keep(ctx: Context, flat: Sequence[Any], *rest: Tensor) -> None:
    """Keeps arguments and `rest`: tensors where version and lifetime are watched, all else as it is."""
    ctx.save_for_backward(*rest, *(value for value in flat if isinstance(value, Tensor)))
    ctx.flat = [None if isinstance(value, Tensor) else (value,) for value in flat]


def kept(ctx: Context) -> tuple[list[Any], tuple[Tensor, ...]]:
    """Returns the arguments that `keep` was given, in order, and the rest."""
    saved = ctx.saved_tensors  # read once: under activation checkpointing a second reading is an error
    num_rest = len(saved) - sum(value is None for value in ctx.flat)
    tensors = iter(saved[num_rest:])
    return [next(tensors) if value is None else value[0] for value in ctx.flat], saved[:num_rest]


def refuse_derivative(operator: Any) -> None:
    """Makes an operator, itself a backward pass, raise RuntimeError where it is to be differentiated."""
    operator.register_autograd(_refuse, setup_context=_keep_nothing)


def _keep_nothing(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
    """Keeps nothing: there is no second derivative."""


def _refuse(ctx: Context, *_: Any) -> NoReturn:
    raise RuntimeError(_REFUSAL)
