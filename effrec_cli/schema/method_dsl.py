"""Settings of method dsl."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem, unused_problems

MOVING = ("dsl", "rigl", "set")
"""Modes that drop and grow."""
SLOWEST_BETA = 0.999
"""Largest decay rate of Adam's moments where numbers move: their steps are counted in 16 bits."""
SPARSE = (*MOVING, "static", "topk_anneal")
"""Modes whose tables are sparse from the first step."""
PRUNED = ("magnitude", "topk_anneal")
"""Modes whose tables are judged and served with the smallest numbers left out."""
AFTER = ("magnitude", "dense_int8")
"""Modes that train dense tables and make them smaller afterwards."""
MODES = (*SPARSE, "dense", "dense_small", *AFTER)
BY_GRADIENT = ("dsl", "rigl")
SOFTMAX = ("cce", "cce_sampled")
"""Losses of task next_item."""
LOSSES = ("auto", "bpr", "bce", *SOFTMAX)
DIM = 64
"""Width of the vectors of task top_n, where it is left open."""
WHOLE = ("lightgcn", "multvae")
"""Models that read all of a table in each step."""
OWN_LOSS = ("ultragcn", "multvae")
"""Models that are trained by a loss of their own."""
OF_USERS = ("multvae",)
"""Models that read users by their items: their layers have widths of their own."""
OF_PAIRS = ("dim", "init_sd", "num_negatives", "filter_negatives", "reg")
"""Settings that those do not read."""
HALF = "2of4"
"""Layers of which two of each four consecutive inputs count. Not `2:4`: YAML reads that as the number 124."""
LAYERED = ("neumf", "two_tower", "dlrm")
"""Models with a network over vectors."""
NUM_NEGATIVES = {"ultragcn": 800}
"""Negatives of a row, where a model has more than one: published for Yelp2018."""
LOOKED_AT: dict[str, tuple[str, tuple[str, ...]]] = {
    "density": ("mode", (*SPARSE, "dense_small", "magnitude")),
    "structure": ("mode", (*MOVING, "static", "magnitude")),
    "start_density": ("mode", ("topk_anneal",)),
    "values": ("mode", tuple(mode for mode in MODES if mode != "dense_int8")),
    "storage": ("mode", (*MOVING, "static")),
    **dict.fromkeys(("update_every", "stop", "anneal_epochs"), ("mode", (*MOVING, "topk_anneal"))),
    **dict.fromkeys(("drop_rate", "final_rate", "decay", "regrow", "redistribute"), ("mode", MOVING)),
    **dict.fromkeys(("window", "turns"), ("mode", BY_GRADIENT)),
}
"""For a setting that not every mode reads, those that do."""


@dataclass
class DSLConfig:
    """Tables of which few numbers are stored, and move to where they matter while they train (papers/dsl).

    What is None is the mode's own; docs/dsl.md has the table.

    Attributes:
        name: always `dsl`.
        mode: `dsl` drops the smallest numbers and grows those with the largest gradient, ever fewer;
            `rigl` likewise, by the last step's gradient, as far as three quarters of training; `set` drops
            the smallest positive and the largest negative ones and grows any; `static` leaves those that
            were drawn at first; `topk_anneal` begins with more in each row and lets the smallest go, as far
            as three quarters of training. Baselines: `dense`; `dense_small` as narrow as the sparse table's
            bytes allow; `magnitude` keeps the largest numbers of a dense table, after training; `dense_int8`
            rounds it.
        dim: width d of the vectors; None is 64, or for task next_item the model's, which it has to be.
        density: p, share of the numbers that are live.
        start_density: share that is live at first, with mode topk_anneal; None is four times `density`, 1 at
            most.
        structure: `row` gives each row k = round(p d) of them; `global` gives all rows together round(p N d).
        storage: `packed` holds live numbers and their columns; `masked` a dense table and a mask, which saves
            nothing; `auto` is `masked` for models that read whole tables (`lightgcn`, `multvae`), else
            `packed`.
        values: what numbers are rounded to when the table is kept and served, and before it is judged.
        layers: matrices of the network over vectors, where the model has one: `dense`, or `2of4`, of which
            the two largest numbers of each four consecutive inputs count, and alone are kept: the pattern 2:4
            that NVIDIA GPUs multiply sparsely. All train. Where inputs do not come in fours they stay dense.
        init_sd: standard deviation of tables at first. A number that grows begins at 0 and is dropped again
            unless it overtakes others by the next update, so it is small.
        loss: `bpr` ranks an item above each negative, `bce` tells them apart; for task next_item `cce` is the
            full softmax, a block of the table at a time, `cce_sampled` has negatives that a step's targets
            share, uniform and corrected by log q. `auto` is the model's own, or `cce_sampled`.
        num_negatives: items drawn anew each epoch for each row; None is the model's own, 1 or for `ultragcn`
            800. For task next_item those of a step, 255.
        filter_negatives: draw none that the user has met in training.
        reg: strength of the L2 regulariser of the vectors that a step reads (LightGCN's lambda).
        batch_size: rows in a step, over all processes and micro-batches; None chooses a power of two from
            32 to 4096 that makes about a hundred steps an epoch.
        sequence_window: for task next_item: `last` trains on the last L+1 items of each user, `slide` on all,
            cut into windows of L elsewhere each epoch; `batch_size` then counts windows.
        update_every: epochs in which each row may change its places once.
        window: share of the steps between two updates whose gradients are summed; 0 is the last step alone.
        turns: stretches of rows that change one after the other, so that gradients of one alone are held;
            None takes as few as keep them below what the table takes with its optimizer state.
        drop_rate: r_0, share of a table's live numbers that the first update drops.
        final_rate: eta, where `decay` ends.
        decay: how the share falls over training: `cosine`, `linear` or `none`.
        anneal_epochs: epochs that training is taken to have, for `decay` and `stop`; None is the run's.
        stop: share of training after which places stay.
        regrow: whether what an update drops may come back in it by its own gradient.
        redistribute: whether all tables of the model share one budget, so that numbers may move from one
            to another; wants `structure=global`.
    """

    name: str = "dsl"
    mode: str = setting("dsl", choices=MODES)
    dim: int | None = setting(None, low=1, high=32768)
    density: float = setting(0.25, above=0, high=1)
    start_density: float | None = setting(None, above=0, high=1)
    structure: str = setting("row", choices=("row", "global"))
    storage: str = setting("auto", choices=("auto", "packed", "masked"))
    values: str = setting("fp32", choices=("fp32", "bf16", "int8"))
    layers: str = setting("dense", choices=("dense", HALF))
    init_sd: float = setting(0.01, above=0)
    loss: str = setting("auto", choices=LOSSES)
    num_negatives: int | None = setting(None, low=1)
    filter_negatives: bool = False
    reg: float = setting(1e-4, low=0)
    batch_size: int | None = setting(None, low=1)
    sequence_window: str = setting("slide", choices=("last", "slide"))
    update_every: float | None = setting(None, above=0)
    window: float | None = setting(None, low=0, high=1)
    turns: int | None = setting(None, low=1)
    drop_rate: float | None = setting(None, low=0, high=1)
    final_rate: float | None = setting(None, low=0, high=1)
    decay: str | None = setting(None, choices=("cosine", "linear", "none"))
    anneal_epochs: int | None = setting(None, low=1)
    stop: float | None = setting(None, above=0, high=1)
    regrow: bool = True
    redistribute: bool = False


def dsl_problems(own: DSLConfig, model: object) -> Iterator[Problem]:
    """Yields settings that would do nothing, such as contradict each other, and what the model cannot do."""
    yield from unused_problems(own, LOOKED_AT, "method")
    name = getattr(model, "name", None)
    if own.redistribute and own.mode in MOVING and own.structure != "global":
        what = "Rows of structure=row have a size of their own, and no number may leave its row."
        yield Problem("method.redistribute", what, fix="method.structure=global")
    if name in WHOLE and own.storage == "packed":
        what = f"model={name} reads whole tables in each step, and packed ones are read by rows."
        yield Problem("method.storage", what, fix="method.storage=masked, or model=ultragcn")
    if name in WHOLE and own.mode == "topk_anneal":
        what = f"model={name} reads whole tables in each step, and mode=topk_anneal narrows packed rows."
        yield Problem("method.mode", what, fix="method.mode=dsl, or model=ultragcn")
    first, last = own.drop_rate, own.final_rate
    if first is not None and last is not None and last > first:
        what = f"The share that is dropped falls, here from drop_rate={first:g} to final_rate={last:g}."
        yield Problem("method.final_rate", what, fix=f"method.final_rate={first:g} or less")
    if own.mode == "topk_anneal" and (own.start_density or 1) < own.density:
        what = f"Rows lose numbers: they begin with no fewer than density={own.density:g}."
        yield Problem("method.start_density", what, fix=f"method.start_density={min(1, 4 * own.density):g}")
    if name in OWN_LOSS and own.loss != "auto":
        what = f"loss={own.loss} would do nothing: model={name} has a loss of its own."
        yield Problem("method.loss", what, fix="method.loss=auto, or model=bpr_mf")
    if own.layers != "dense" and name not in LAYERED:
        what = f"layers={own.layers} would do nothing: model={name} has no network over vectors of pairs."
        yield Problem("method.layers", what, fix=f"method.layers=dense, or model={' or '.join(LAYERED)}")
    if name in OF_USERS:
        yield from _of_users_problems(own, model)
    if own.mode == "dense_small" and small_dim(own) < 1:
        what = (
            f"At density={own.density:g} no dense vector is as small as "
            f"{live_of(own)} numbers of {dim_of(own)}."
        )
        yield Problem("method.density", what, fix="method.density=0.5, or a larger method.dim")


def _of_users_problems(own: DSLConfig, model: object) -> Iterator[Problem]:
    """Yields settings that a model of users' items does not read, and a mode that it does not have."""
    usual, name = DSLConfig(), getattr(model, "name", None)
    for setting_name in OF_PAIRS:
        if getattr(own, setting_name) != getattr(usual, setting_name):
            what = f"model={name} does not read it: it has layers of its own widths, and no negatives."
            yield Problem(f"method.{setting_name}", what, fix=f"leave method.{setting_name} out")
    if own.mode == "dense_small":
        what = f"model={name} has layers of widths of its own."
        yield Problem("method.mode", what, fix="method.mode=dense with a smaller model.hidden")


def storage_of(own: DSLConfig, model: str) -> str:
    """Returns how sparse tables are stored, `packed` or `masked`, with the model of that name."""
    return ("masked" if model in WHOLE else "packed") if own.storage == "auto" else own.storage


def dim_of(own: DSLConfig) -> int:
    """Returns d; before the data are known, and left open, that of task top_n."""
    return own.dim or DIM


def live_of(own: DSLConfig) -> int:
    """Returns k, how many numbers a row has (of `structure=global` on average, rounded)."""
    return max(1, round(own.density * dim_of(own)))


def first_live_of(own: DSLConfig) -> int:
    """Returns how many numbers a row has at first."""
    if own.mode != "topk_anneal":
        return live_of(own)
    first = min(1.0, 4 * own.density) if own.start_density is None else own.start_density
    return max(live_of(own), round(first * dim_of(own)))


def column_bytes(dim: int) -> int:
    """Returns the bytes of a live number's column."""
    return 1 if dim <= 256 else 2


def small_dim(own: DSLConfig) -> int:
    """Returns the width of dense float32 vectors that take no more bytes than sparse ones: k (4 + c) / 4."""
    return live_of(own) * (4 + column_bytes(dim_of(own))) // 4
