"""Settings of matrix factorisations, as methods of their own and as what gives others their vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem, unused_problems

KINDS = ("ials", "rsvd", "bpr", "explicit_als")
_ALTERNATING, _SWEPT = ("ials", "explicit_als"), ("ials", "bpr", "explicit_als")
LOOKED_AT: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(("reg", "sweeps", "validate_every", "patience"), ("kind", _SWEPT)),
    **dict.fromkeys(("frequency_exponent", "solver"), ("kind", _ALTERNATING)),
    "unobserved_weight": ("kind", ("ials",)),
    **dict.fromkeys(
        ("user_exponent", "item_exponent", "power_iterations", "oversampling"), ("kind", ("rsvd",))
    ),
    **dict.fromkeys(("lr", "batch_size"), ("kind", ("bpr",))),
}
"""For a setting that not every kind of factorisation reads, those that do."""
SOLVED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "block": ("solver", ("blocks",)),
    "cg_steps": ("solver", ("cg", "auto")),
}
"""For a setting of a solver, when it is looked at."""


@dataclass
class Fitting:
    """What all factorisations have.

    Attributes:
        dim: width d of the vectors.
        chunk_mib: working memory beside the data and the vectors, for each thread; None suits the device.
    """

    dim: int = setting(64, low=1)
    chunk_mib: float | None = setting(None, above=0)


@dataclass
class Sweeping(Fitting):
    """What those have that go over the data several times; `run.max_epochs` and `run.patience` do not count.

    Attributes:
        reg: strength of the regulariser (iALS: lam); None takes what was tuned for data of this size.
        sweeps: passes over the data at most; None takes what was tuned.
        validate_every: sweeps between validations; None takes what was tuned.
        patience: validations without improvement before stopping; the best sweep's vectors are kept either
            way. None goes to the end.
    """

    reg: float | None = setting(None, above=0)
    sweeps: int | None = setting(None, low=1)
    validate_every: int | None = setting(None, low=1)
    patience: int | None = setting(4, low=1)


@dataclass
class Solving(Sweeping):
    """What alternating least squares have.

    Attributes:
        frequency_exponent: nu; a row of n cells is regularised n^nu times as much (papers/cadc 1.3). None is
            1 for implicit and 0 for explicit data.
        solver: `cholesky` solves exactly, `cg` takes steps of conjugate gradients from where a row stood,
            `blocks` solves for some coordinates after others (iALS++); `auto` is `cg` on a CPU, and on a GPU
            `cholesky` as far as d = 256.
        block: coordinates that `blocks` solves at once.
        cg_steps: of `cg`; None is 2 as far as d = 64, and 3 above.
    """

    frequency_exponent: float | None = setting(None, low=0, high=2)
    solver: str = setting("auto", choices=("auto", "cholesky", "cg", "blocks"))
    block: int = setting(64, low=1)
    cg_steps: int | None = setting(None, low=1)


@dataclass
class Weighing(Solving):
    """What implicit alternating least squares have.

    Attributes:
        unobserved_weight: a0, weight of the square of every score; None takes what was tuned.
    """

    unobserved_weight: float | None = setting(None, above=0)


@dataclass
class Spectral(Fitting):
    """What a singular value decomposition has.

    Attributes:
        user_exponent: rows are divided by their number of cells to this power.
        item_exponent: columns likewise; None takes what was tuned.
        power_iterations: products with the matrix and its transpose.
        oversampling: random directions beyond `dim`.
    """

    user_exponent: float = setting(0.5, low=0, high=1)
    item_exponent: float | None = setting(None, low=0, high=1)
    power_iterations: int = setting(3, low=0)
    oversampling: int = setting(10, low=0)


@dataclass
class Ranking(Sweeping):
    """What stochastic gradients have.

    Attributes:
        lr: learning rate of Adagrad; None takes what was tuned.
        batch_size: cells a step.
    """

    lr: float | None = setting(None, above=0)
    batch_size: int = setting(4096, low=1)


@dataclass
class Serving:
    """How a factorisation scores.

    Attributes:
        users: `stored` users' vectors as training left them, where training saw the user; `fold_in` makes
            them anew of the history that is at hand when scores are asked for.
        last: only so many last items of a history are folded in; None for all.
    """

    users: str = setting("stored", choices=("stored", "fold_in"))
    last: int | None = setting(None, low=1)


@dataclass
class FactorsConfig(Weighing, Spectral, Ranking):
    """Any factorisation, as what gives another method its vectors; each kind reads what it knows.

    Attributes:
        kind: `ials`, `rsvd`, `bpr` or `explicit_als`.
    """

    kind: str = setting("ials", choices=KINDS)


@dataclass
class StartConfig(FactorsConfig):
    """A factorisation as wide as the model whose item table starts from it.

    Attributes:
        dim: width d of the vectors; None is the model's, and nothing else will do.
    """

    dim: int | None = setting(None, low=1)  # type: ignore[assignment]  # `fitting` gives it a value


def fitting(settings: StartConfig, dim: int) -> FactorsConfig:
    """Returns the factorisation of width `dim`, as every method would ask for it."""
    return FactorsConfig(**{**asdict(settings), "dim": dim})


def factor_problems(config: object, path: str = "method") -> Iterator[Problem]:
    """Yields settings of factorisations that are right alone and wrong together.

    Args:
        config: of a factorisation.
        path: the section's full key.
    """
    kind = getattr(config, "kind", None) or getattr(config, "name", None)
    least = {"explicit_als": 3, "bpr": 2}.get(str(kind), 1)
    if getattr(config, "dim", least) < least:
        what = f"{kind} keeps biases in {least - 1} of the columns; {least} is the least."
        yield Problem(f"{path}.dim", what, fix=f"{path}.dim={least}")
    if hasattr(config, "kind"):
        yield from unused_problems(config, LOOKED_AT, path)
    if hasattr(config, "solver"):
        yield from unused_problems(config, SOLVED_BY, path)
    if getattr(config, "users", None) == "stored" and getattr(config, "last", None) is not None:
        what = "users=stored reads no history of the users that training saw."
        yield Problem(f"{path}.last", what, fix=f"{path}.users=fold_in, or {path}.last=null")
