"""Losses over a catalogue spread over ranks: what each rank brings, and what one process makes of it."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
from effrec_kernels import linear_cross_entropy, mixed_log_q, popularity, sampled_cross_entropy

ROWS, DIM = 40, 6


@dataclass
class Setup:
    """A problem for all ranks together.

    `options` are those of the loss; what is by row ("negatives", "row_weights", a tensor "row_offset") is of
    all rows, and "sharing" may be "sequences".
    """

    options: dict[str, Any] = field(default_factory=dict)
    items: int = 60
    rows: int = ROWS
    dtype: torch.dtype = torch.float64
    hidden_dtype: torch.dtype | None = None
    replicated: bool = False
    all_on_one: bool = False
    bound: float = 1e-10


def logq(**options):
    return {"num_negatives": 15, "correction": "logq", **options}


BOUNDARIES = (0, 3, 6, 11, 15, 20, 30, 36)
COUNTS = torch.arange(60).flip(0)
DRAW = torch.Generator().manual_seed(5)
GIVEN = torch.randint(60, (ROWS, 9), generator=DRAW)
GIVEN[::3, 4:] = -100
CASES = {
    "row": Setup({"num_negatives": 15}),
    "gathered": Setup({"num_negatives": 15}, items=3000),
    "constant": Setup({"num_negatives": 15, "correction": "constant"}),
    "no correction": Setup({"num_negatives": 15, "correction": "none", "temperature": 0.3}),
    "uniform logq": Setup(logq()),
    "popularity": Setup(logq(sampler="popularity", step=3)),
    "block": Setup({"num_negatives": 128, "sampler": "block"}, items=150),
    "block logq": Setup(logq(num_negatives=128, sampler="block"), items=150),
    "tile": Setup({"num_negatives": 15, "sharing": 8, "sharing_stride": 3, "row_offset": 5}),
    "small tiles": Setup({"num_negatives": 15, "sharing": 2}),
    "tile popularity": Setup(logq(sampler="popularity", sharing=16)),
    "batch": Setup({"num_negatives": 33, "sharing": "batch", "return_lse": True}, items=1000),
    "batch popularity": Setup(logq(sampler="popularity", sharing="batch")),
    "sequences": Setup({"num_negatives": 15, "sharing": "sequences"}),
    "in batch": Setup(logq(in_batch=6, sampler="popularity")),
    "in batch, shared": Setup({"num_negatives": 15, "in_batch": 6, "sharing": "batch"}),
    "log_q given": Setup(logq(in_batch=6, log_q=mixed_log_q(-4.0, torch.linspace(-6, -2, 60), 0.4))),
    "negatives given": Setup({"negatives": GIVEN}),
    "negatives of the batch": Setup({"negatives": GIVEN[:1], "sharing": "batch"}),
    "rows numbered": Setup({"num_negatives": 15, "row_offset": torch.randperm(ROWS, generator=DRAW) + 2**33}),
    "rows, none": Setup({"num_negatives": 15, "reduction": "none"}),
    "rows and lse": Setup({"num_negatives": 15, "reduction": "none", "return_lse": True}),
    "sum and weights": Setup(
        {"num_negatives": 15, "reduction": "sum", "row_weights": torch.rand(ROWS, generator=DRAW)}
    ),
    "normalizer": Setup({"num_negatives": 15, "normalizer": 7.0}),
    "small chunks": Setup({"num_negatives": 15, "chunk_bytes": 2000}, items=3000),
    "all hits": Setup({"num_negatives": 1}, items=3),
    "many hits": Setup({"num_negatives": 4, "sharing": "batch"}, items=3),
    "no rows on one": Setup({"num_negatives": 15}, all_on_one=True),
    "no rows": Setup({"num_negatives": 15}, rows=0),
    "full": Setup({}),
    "full, lse": Setup({"reduction": "none", "return_lse": True, "temperature": 0.5}),
    "full in blocks": Setup({"chunk_bytes": 800}, items=300),
    "full over three": Setup({}, items=3),
    "replicated": Setup({"num_negatives": 15, "reduction": "none", "return_lse": True}, replicated=True),
    "replicated tile": Setup({"num_negatives": 15, "sharing": 8, "row_offset": 3}, replicated=True),
    "replicated full": Setup({"row_weights": torch.rand(ROWS, generator=DRAW)}, replicated=True),
    "replicated sets": Setup({"negatives": GIVEN[:5], "sharing": 8}, replicated=True),
    "float32": Setup({"num_negatives": 15, "sharing": 8}, dtype=torch.float32, bound=1e-5),
    "float32 full": Setup({}, dtype=torch.float32, bound=1e-5),
    "bfloat16 states": Setup(
        {"num_negatives": 15}, dtype=torch.float32, hidden_dtype=torch.bfloat16, bound=4e-3
    ),
}


@dataclass
class Data:
    """All ranks' rows and the whole table."""

    hidden: torch.Tensor
    items: torch.Tensor
    targets: torch.Tensor
    upstream: torch.Tensor


def data_of(setup):
    """Returns the tensors: rows of uneven logits, every sixth without a target and holding NaN."""
    draw = torch.Generator().manual_seed(setup.items)
    hidden = torch.randn(setup.rows, DIM, generator=draw, dtype=torch.float64)
    items = torch.randn(setup.items, DIM, generator=draw, dtype=torch.float64)
    targets = torch.randint(setup.items, (setup.rows,), generator=draw)
    targets[2::6] = -100
    hidden[2::6] = float("nan")
    hidden = hidden.to(setup.hidden_dtype or setup.dtype)
    return Data(hidden, items.to(setup.dtype), targets, torch.linspace(-1, 2, setup.rows).double())


def cut(total, size):
    """Returns where `total` things are cut between ranks: unevenly, each getting one if there are enough."""
    inner = [max(rank, total * rank * rank // (size * size)) for rank in range(1, size)]
    return [0, *inner, total]


def parts(setup, size):
    """Returns the first and the last but one row of each rank."""
    if setup.replicated:
        return [(0, setup.rows)] * size
    cuts = [0] * size + [setup.rows] if setup.all_on_one else cut(setup.rows, size)
    return list(itertools.pairwise(cuts))


def options_of(setup, start, end):
    """Returns the options for the rows `start` to `end` of one rank."""
    options = dict(setup.options)
    for name in ("row_weights", "row_offset", "negatives"):
        given = options.get(name)
        if isinstance(given, torch.Tensor) and len(given) == ROWS:
            options[name] = given[start:end]
    if options.get("sharing") == "sequences":
        options["sharing"] = torch.tensor([at - start for at in BOUNDARIES if start <= at < end])
    if options.get("sampler") == "popularity":
        options["sampler"] = popularity(COUNTS)
    return options


def whole_options(setup, size):
    """Returns the options for all rows, and which rows are in a sequence or need none."""
    options, inside = options_of(setup, 0, setup.rows), torch.ones(setup.rows, dtype=torch.bool)
    if setup.options.get("sharing") == "sequences":
        own = [(options_of(setup, start, end)["sharing"] + start, end) for start, end in parts(setup, size)]
        options["sharing"] = torch.cat([bounds for bounds, _ in own])
        for (bounds, end), (start, _) in zip(own, parts(setup, size), strict=True):
            inside[start : bounds[0]] = inside[bounds[-1] : end] = False
    return options, inside


def run(function, hidden, items, targets, options, upstream):
    """Returns loss, log-sum-exp (or None) and both gradients, for an uneven gradient from above."""
    hidden, items = (one.clone().requires_grad_() for one in (hidden, items))
    result = function(hidden, items, targets, **options)
    loss, lse = result if options.get("return_lse") else (result, None)
    number = (loss * upstream).sum() if loss.dim() else 1.5 * loss
    number = number if lse is None else number + (lse * upstream.cos()).sum()
    number.backward()
    return loss.detach(), None if lse is None else lse.detach(), hidden.grad, items.grad


def one_process(setup, size):
    """Returns `run` of a single process with all rows and the whole table."""
    data, (options, inside) = data_of(setup), whole_options(setup, size)
    full = "num_negatives" not in options and "negatives" not in options
    function = linear_cross_entropy if full else sampled_cross_entropy
    targets = data.targets.masked_fill(~inside, -100)
    return run(function, data.hidden, data.items, targets, options, data.upstream)
