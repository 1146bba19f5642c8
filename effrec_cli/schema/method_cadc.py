"""Settings of method cadc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from effrec_cli.schema.attributes import KINDS
from effrec_cli.schema.factors import FactorsConfig, Serving, factor_problems
from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Needed, Problem, unread_problems, unused_problems
from effrec_cli.schema.sample import SampleConfig, sample_problems

EMBEDDINGS = ("rand", "init_upd", "init_frz", "concat", "residual", "two_rate")
FROZEN = ("init_frz", "concat", "residual")
"""Strategies that leave the factors as they are."""
OVER_VECTORS = ("softmax", "cce", "cce_sampled")
"""Losses that set a user's vector against many items' at once."""
LOOKED_AT: dict[str, tuple[str, tuple[str, ...]]] = {
    "own_dim": ("embedding", ("concat",)),
    "table_rate": ("embedding", ("two_rate",)),
    "num_negatives": ("loss", ("bce", "cce_sampled")),
    "temperature": ("loss", OVER_VECTORS),
    "filter_negatives": ("loss", ("bce", "softmax")),
    "factorise": ("embedding", tuple(each for each in EMBEDDINGS if each != "rand")),
    "users": ("embedding", FROZEN),
}
ROWS_ALONE = ("uniform", "exact")
"""Modes of a sample in which a row's own hash decides: those that labelled rows have."""
RANKS_ALONE = ("loss", "num_negatives", "filter_negatives", "temperature", "fresh", "users", "last")
"""Settings that task top_n reads, and task ctr does not."""
IDS_ALONE = ("bpr_mf", "lightgcn", "ultragcn", "multvae")
"""Models of task top_n without a network over vectors and attributes; they train by method dsl."""
LABELS_ALONE = ("negative_rate", "negative_correction")
"""And the other way round."""


@dataclass
class CADCConfig(Serving):
    """A network on a sample of the interactions, with vectors from a factorisation of all (papers/cadc).

    How users are scored: `Serving`.

    Attributes:
        name: always `cadc`.
        task: `top_n` ranks the catalogue, `ctr` tells the probability of a label; `auto` is `ctr` where the
            dataset names a column of labels and the model takes it.
        embedding: `rand` no factors; `init_upd` they train on; `init_frz` they stay, as published; `concat`
            they stay, a small vector that trains beside each; `residual` they stay, and two towers add to
            them, so that training starts at the factorisation's own ranking; `two_rate` they train on at
            `table_rate` of the rate.
        factors: the factorisation whose vectors it takes, fitted once for all runs on the same rows; its
            `dim` is also the width of vectors that are drawn, and all that `embedding=rand` reads of it.
        own_dim: width of the second vector of `embedding=concat`.
        table_rate: the tables' learning rate over that of the rest, with `embedding=two_rate`.
        loss: `bce` each row against `num_negatives` items drawn anew each epoch; `softmax` against the items
            of the step, corrected by logQ; `cce` against the whole catalogue; `cce_sampled` against
            `num_negatives` drawn by the kernel. All but `bce` need a model of vectors: `two_tower`.
        num_negatives: K, for `bce` and `cce_sampled` alone.
        filter_negatives: draw none that the user has met in any training row, and leave those out of the
            step's items; what it keeps for that takes memory.
        temperature: divides the logits of `softmax`, `cce` and `cce_sampled`.
        sample: which of the training rows the network trains on; the factorisation reads all.
        factorise: `all` rows of training (of labelled ones the clicks), or the `rest`, those that the network
            does not train on, since vectors that were made of its own rows tell it their labels; `auto` is
            `all`, as published, and with task ctr `rest` of a sample.
        negative_rate: share of the training rows labelled 0 that are kept, beyond `sample` (ctr).
        negative_correction: of the base rate that this changes: `shift` adds its logarithm to every logit
            that is judged; `weights` trains with one over it as the weight of rows labelled 0 (ctr).
        fresh: train on another share of these rows each epoch; None on all of them.
        batch_size: rows in a step, over all processes and micro-batches; None chooses a power of two from
            32 to 4096 that makes about a hundred steps an epoch.
        attributes: what of users and items the network reads beside ids, as far as the dataset has it, of
            `dense`, `categories`, `flags` and `text`.
        text_dim: width of the vectors of items' words, where `attributes` has `text`.
    """

    name: str = "cadc"
    task: str = setting("auto", choices=("auto", "top_n", "ctr"))
    embedding: str = setting("init_frz", choices=EMBEDDINGS)
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    own_dim: int = setting(16, low=1)
    table_rate: float = setting(0.01, above=0, high=1)
    loss: str = setting("bce", choices=("bce", *OVER_VECTORS))
    num_negatives: int = setting(4, low=1)
    filter_negatives: bool = False
    temperature: float = setting(1.0, above=0)
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(rate=0.1))
    factorise: str = setting("auto", choices=("auto", "all", "rest"))
    negative_rate: float = setting(1.0, above=0, high=1)
    negative_correction: str = setting("shift", choices=("shift", "weights"))
    fresh: float | None = setting(None, above=0, high=1)
    batch_size: int | None = setting(None, low=1)
    attributes: list[str] = setting(list(KINDS), choices=KINDS)
    text_dim: int = setting(32, low=1)


def cadc_problems(own: CADCConfig, model: object, task: str | None) -> Iterator[Problem]:
    """Yields settings that would do nothing, and what the model cannot do."""
    yield from _of_other_tasks(own, task)
    yield from unused_problems(own, LOOKED_AT, "method")
    yield from factor_problems(own)  # of how users are scored
    yield from _unread(own, task)
    if own.embedding != "rand":
        yield from factor_problems(own.factors, "method.factors")
    name = getattr(model, "name", None)
    if name in IDS_ALONE:
        what = f"model={name} has no network to train on a sample: it is made of ids alone."
        yield Problem("model.name", what, fix="model=two_tower, or method=dsl")
    elif own.loss in OVER_VECTORS and name != "two_tower":
        what = f"loss={own.loss} needs one vector of a user and one of an item; model={name} has none."
        yield Problem("method.loss", what, fix="method.loss=bce, or model=two_tower")
    if own.embedding == "residual" and name not in IDS_ALONE:
        yield from _residual(own, model)
    for key in ("hidden", "bottom", "top"):
        if getattr(model, key, None) == [] and name != "two_tower":
            yield Problem(f"model.{key}", "There must be a hidden layer.", fix=f"model.{key}=[64]")


def _unread(own: CADCConfig, task: str | None) -> Iterator[Problem]:
    """Yields settings of sections, and of words, that nothing reads beside other settings."""
    drawn = task == "ctr" and own.negative_rate < 1
    yield from sample_problems(own.sample, "method.sample", drawn=drawn)
    if own.embedding == "rand":
        needed = Needed("method.embedding", ("init_frz",), own.embedding, "vectors that are factorised")
        yield from unread_problems(own.factors, "method.factors", needed, but=("dim",))
    if "text" not in own.attributes:
        with_text = [*own.attributes, "text"]
        needed = Needed("method.attributes", (with_text,), own.attributes, "attributes with text")
        yield from unread_problems(own, "method", needed, only=("text_dim",))


def _of_other_tasks(own: CADCConfig, task: str | None) -> Iterator[Problem]:
    """Yields settings that the run's task does not read."""
    usual, unread = CADCConfig(), {"ctr": RANKS_ALONE, "top_n": LABELS_ALONE}.get(task or "", ())
    for name in unread:
        if getattr(own, name) != getattr(usual, name):
            yield Problem(f"method.{name}", f"Task {task} does not read it.", fix=f"leave method.{name} out")
    if task == "ctr" and own.sample.mode not in ROWS_ALONE:
        what = f"Labelled rows are sampled each on its own, and mode={own.sample.mode} looks at others."
        yield Problem("method.sample.mode", what, fix=f"choose from: {', '.join(ROWS_ALONE)}")
    if own.factorise == "rest" and own.sample.rate == 1:
        what = (
            f"The network trains on all {'clicks' if task == 'ctr' else 'rows'}: none is left to factorise."
        )
        yield Problem("method.factorise", what, fix="method.sample.rate=0.5, or method.factorise=all")
    if own.factorise == "rest" and own.sample.mode == "user":
        what = "A sample of mode=user keeps all rows of its users, so that the rest knows none of them."
        yield Problem("method.factorise", what, fix="method.sample.mode=uniform, or method.factorise=all")
    if (own.negative_rate, own.negative_correction) == (1, "weights"):
        what = "It would do nothing: no row labelled 0 is left out."
        yield Problem("method.negative_correction", what, fix="method.negative_rate=0.1, or leave it out")


def _residual(own: CADCConfig, model: object) -> Iterator[Problem]:
    """Yields why nothing can be added to the factors."""
    name = getattr(model, "name", None)
    if name != "two_tower":
        what = f"embedding=residual is for towers that add to the factors; model={name} has none."
        yield Problem("method.embedding", what, fix="method.embedding=init_frz, or model=two_tower")
    elif getattr(model, "dim", None) not in (None, own.factors.dim):
        what = f"What is added to the factors must be as wide as they are: {own.factors.dim}."
        yield Problem("model.dim", what, fix="model.dim=null")
