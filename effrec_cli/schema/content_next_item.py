"""Settings of task next_item where items' vectors come from their contents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effrec_cli.schema.fields import setting
from effrec_cli.schema.problems import Problem, unused_problems

PATH = "method.next_item"
# Where each of these is looked at: any other setting of its would change nothing, and is refused.
LOOKED_AT: dict[str, tuple[str, tuple[str, ...]]] = {
    "num_negatives": ("candidates", ("step",)),
    "correction": ("candidates", ("step", "batch")),
    "loss": ("candidates", ("step", "all")),
    "kernel": ("candidates", ("step", "all")),
    "num_sampled": ("loss", ("cce_sampled",)),
}


@dataclass
class NextItemSettings:
    """What next items are told from, each of which has to be encoded.

    Attributes:
        window: `last` trains on the last L+1 items of each user, `slide` on all, cut into windows of L
            elsewhere each epoch.
        candidates: what the targets of a step are told from: `step`, all of its targets and some drawn rows,
            the same for every row of the step; `batch`, the items of all its windows, less those of the row's
            own (papers/iisan section 1.8); `all` the whole catalogue.
        num_negatives: rows of the catalogue drawn for a step, without repetition; targets among them are no
            more than targets. None draws as many as there are different targets.
        correction: `logq` lets the drawn rows stand for all that are no target, so that the loss is the
            softmax over the catalogue on average (candidates=step); `popularity` lowers each logit by the
            logarithm of the item's share of the training rows, since windows hold popular items more often
            (candidates=batch); `none` is the softmax over the candidates.
        loss: `cce` over all candidates, `cce_sampled` over some of them for each row.
        num_sampled: of the candidates, how many `cce_sampled` draws for each row.
        temperature: divides the products of states and vectors; None is the square root of the model's width.
        kernel: who computes the loss: `auto`, `triton`, `torch` or `reference`; never what is computed.
        projection: a matrix between the vectors and the model, d to D. Without it vectors are its items as
            they are, and D is d.
    """

    window: str = setting("slide", choices=("last", "slide"))
    candidates: str = setting("step", choices=("step", "batch", "all"))
    num_negatives: int | None = setting(None, low=0)
    correction: str = setting("logq", choices=("logq", "popularity", "none"))
    loss: str = setting("cce", choices=("cce", "cce_sampled"))
    num_sampled: int = setting(255, low=1)
    temperature: float | None = setting(None, above=0)
    kernel: str = setting("auto", choices=("auto", "triton", "torch", "reference"))
    projection: bool = True


def next_item_problems(own: NextItemSettings, task: str | None) -> Iterator[Problem]:
    """Yields settings that would do nothing, all of them where the run's task is another.

    Args:
        own: the settings.
        task: how the run's model is fed; None where that is not known.
    """
    if task not in (None, "next_item"):
        if own != NextItemSettings():
            what = f"It would do nothing: the run's task is {task}."
            yield Problem(PATH, what, fix=f"leave {PATH} out, or choose a model for next_item")
        return
    of_popularity = {"correction": ("candidates", ("batch",))} if own.correction == "popularity" else {}
    yield from unused_problems(own, LOOKED_AT | of_popularity, PATH)
    if own.candidates == "batch" and own.correction == "logq":
        what = "correction=logq is for drawn rows, and candidates=batch draws none."
        yield Problem(f"{PATH}.correction", what, fix=f"{PATH}.correction=popularity, or none")
    if own.candidates == "step" and own.num_negatives == 0 and own.correction == "logq":
        what = "correction=logq lets drawn rows stand for the rest of the catalogue, and none is drawn."
        yield Problem(f"{PATH}.correction", what, fix=f"{PATH}.correction=none, or more num_negatives")
