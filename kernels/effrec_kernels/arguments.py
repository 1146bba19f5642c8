"""What callers pass, checked and made a `Problem`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import checks
from .chunks import default_chunk_bytes
from .dispatch import which_kernel
from .groups import num_sets
from .popularity import Popularity
from .problem import CORRECTIONS, Problem
from .rng import check_key
from .values import one_of, whole_number, yes_or_no


# The attributes of the following are the arguments of `sampled_cross_entropy`.
@dataclass(frozen=True)
class Stream:
    """What draws are a function of."""

    seed: int = 0
    step: int = 0
    rng_state: Tensor | None = None
    row_offset: int | Tensor = 0


@dataclass(frozen=True)
class Negatives:
    """Where negatives come from."""

    num_negatives: int | None
    negatives: Tensor | None
    stream: Stream
    sampler: str | Popularity = "uniform"
    sharing: str | int | Tensor = "row"
    sharing_stride: int = 1
    in_batch: int = 0
    log_q: Tensor | None = None


@dataclass(frozen=True)
class Form:
    """What is made of logits."""

    correction: str = "none"
    temperature: float = 1.0
    objective: str = "softmax"
    beta: float = 1.0


@dataclass(frozen=True)
class Frame:
    """Which rows count, and how it is computed."""

    row_weights: Tensor | None = None
    ignore_index: int = -100
    chunk_bytes: int | None = None
    kernel: str = "auto"
    deterministic: bool = False
    sparse: bool = False


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """Returns the dtype operands are rounded to: autocast's where it is on, else that of `hidden`."""
    device = hidden.device.type
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def chunk_room(chunk_bytes: int | None, device: torch.device) -> int:
    """Returns the bound on intermediates; raises ValueError or TypeError unless it is a positive number."""
    return default_chunk_bytes(device) if chunk_bytes is None else whole_number("chunk_bytes", chunk_bytes, 1)


def full_problem(hidden: Tensor, items: Tensor, targets: Tensor, form: Form, frame: Frame) -> Problem:
    """Returns the problem of a softmax over every item, its arguments checked."""
    common = _common(hidden, items, targets, form, frame)
    return Problem(
        hidden=hidden,
        items=items,
        targets=targets.long(),
        state=targets.new_empty(0, dtype=torch.int64),
        rows=None,
        negatives=None,
        thresholds=None,
        alias=None,
        log_q=None,
        num_negatives=0,
        in_batch=0,
        row_start=0,
        sampler="uniform",
        **_sharing(hidden, Negatives(None, None, Stream())),
        **common,
        kernel=which_kernel(frame.kernel, hidden, full=True, limit=_limit(common["ignore_index"])),
    )


def sampled_problem(
    hidden: Tensor, items: Tensor, targets: Tensor, drawn: Negatives, form: Form, frame: Frame
) -> Problem:
    """Returns the problem of each row against some negatives, its arguments checked."""
    common = _common(hidden, items, targets, form, frame)
    row_start = checks.check_row_offset(drawn.stream.row_offset, hidden)
    rows = drawn.stream.row_offset if isinstance(drawn.stream.row_offset, Tensor) else None
    sharing = _sharing(hidden, drawn)
    if frame.sparse:
        checks.check_sparse(items, sharing["sharing"], sharing["tile_rows"], rows, frame.kernel)
    table = drawn.sampler if isinstance(drawn.sampler, Popularity) else None
    number = _number(hidden, drawn, row_start, sharing)
    return Problem(
        hidden=hidden,
        items=items,
        targets=inside(targets.long(), sharing["boundaries"], common["ignore_index"]),
        state=_state(hidden, drawn.stream),
        rows=rows,
        negatives=drawn.negatives,
        thresholds=None if table is None else table.thresholds,
        alias=None if table is None else table.alias,
        log_q=_log_q(hidden, items, drawn, form.correction, number),
        num_negatives=number,
        in_batch=whole_number("in_batch", drawn.in_batch),
        row_start=row_start,
        sampler=checks.check_sampler(drawn.sampler, items),
        **sharing,
        **common,
        kernel=which_kernel(
            frame.kernel, hidden, limit=_limit(common["ignore_index"], rows, sharing["sharing"])
        ),
    )


def _common(hidden: Tensor, items: Tensor, targets: Tensor, form: Form, frame: Frame) -> dict[str, Any]:
    """Returns the attributes of a problem that do not depend on where candidates come from, checked."""
    checks.check_tensors(hidden, items, targets, frame.row_weights)
    one_of("correction", form.correction, CORRECTIONS)
    yes_or_no("deterministic", frame.deterministic)
    yes_or_no("sparse", frame.sparse)
    return {
        "objective": form.objective,
        "correction": form.correction,
        "beta": form.beta,
        "temperature": checks.check_temperature(form.temperature),
        "ignore_index": whole_number("ignore_index", frame.ignore_index),
        "chunk_bytes": chunk_room(frame.chunk_bytes, hidden.device),
        "deterministic": frame.deterministic,
        "sparse": frame.sparse,
        "compute_dtype": compute_dtype(hidden),
        "num_items": len(items),
        "first_item": 0,
    }


def _limit(ignore_index: int, rows: Tensor | None = None, sharing: str = "row") -> str | None:
    """Returns why Triton's kernels cannot compute a problem, if they cannot."""
    if rows is not None and sharing == "tile":
        return "rows of tiles must follow each other (row_offset a number)"
    if not -(1 << 31) <= ignore_index < 1 << 31:
        return "ignore_index must fit 32 bits"
    return None


def _state(hidden: Tensor, drawn: Stream) -> Tensor:
    """Returns seed and step as int64 [2] on the device: written there, so that nothing waits for a copy."""
    seed, step = check_key(drawn.seed, drawn.step)
    if drawn.rng_state is not None:
        checks.check_state(drawn.rng_state, hidden, seed, step)
        # The caller may count on before backward draws again.
        return drawn.rng_state.clone()
    state = torch.full((2,), seed, dtype=torch.int64, device=hidden.device)
    state[1:].fill_(step)
    return state


def _sharing(hidden: Tensor, drawn: Negatives) -> dict[str, Any]:
    """Returns the attributes of a problem that say which rows share negatives."""
    given = drawn.sharing
    rows, stride = checks.check_sharing(given, drawn.sharing_stride, hidden, drawn.stream.row_offset)
    kind = given if isinstance(given, str) else "sequence" if isinstance(given, Tensor) else "tile"
    boundaries = given.long() if isinstance(given, Tensor) else None
    return {"sharing": kind, "boundaries": boundaries, "tile_rows": rows, "tile_stride": stride}


def _number(hidden: Tensor, drawn: Negatives, row_start: int, sharing: dict[str, Any]) -> int:
    """Returns N; raises where negatives are not [M, N], or one set per group."""
    given, kind = drawn.negatives, sharing["sharing"]
    if given is None:
        return checks.check_negatives(None, drawn.num_negatives, drawn.in_batch)
    if kind == "tile" and isinstance(drawn.stream.row_offset, Tensor):
        raise ValueError("negatives of tiles are counted from the first row: row_offset must be a number")
    name, sets = "M" if kind == "row" else "G", num_sets(len(hidden), row_start, **sharing)
    number = checks.check_negatives(given, drawn.num_negatives, drawn.in_batch, name, sets)
    checks.check_beside("negatives", given, hidden)
    return number


def inside(targets: Tensor, boundaries: Tensor | None, ignore_index: int) -> Tensor:
    """Returns the targets, `ignore_index` in rows that belong to no sequence."""
    if boundaries is None:
        return targets
    at = torch.arange(len(targets), device=targets.device)
    return targets.masked_fill((at < boundaries[0]) | (at >= boundaries[-1]), ignore_index)


def _log_q(hidden: Tensor, items: Tensor, drawn: Negatives, correction: str, number: int) -> Tensor | None:
    """Returns float [V] for the correction `logq`; None where it is unused or the same for all items."""
    checks.check_log_q(drawn.log_q, items, correction)
    if correction != "logq":
        return None
    if drawn.log_q is not None:
        return drawn.log_q.double() if compute_dtype(hidden) == torch.float64 else drawn.log_q.float()
    if isinstance(drawn.sampler, Popularity):
        return drawn.sampler.mixed_log_q(drawn.in_batch / number) if drawn.in_batch else drawn.sampler.log_q
    if drawn.in_batch:
        raise ValueError(
            "correction='logq' with in_batch needs to know how often an item is a target: give a Popularity "
            "as sampler, or log_q (see mixed_log_q)"
        )
    if drawn.sampler == "block" and drawn.negatives is None:
        checks.check_runs(number, drawn.in_batch)
    return None
