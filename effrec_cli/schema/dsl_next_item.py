"""What settings of method dsl are for which of its tasks."""

from __future__ import annotations

from collections.abc import Iterator

from effrec_cli.schema.method_dsl import OWN_LOSS, SOFTMAX, DSLConfig
from effrec_cli.schema.problems import Problem, typed

NUM_NEGATIVES = 255
"""Where they are left open, for all targets of a step."""
UNREAD = {"next_item": ("filter_negatives", "reg", "redistribute"), "top_n": ("sequence_window",)}
"""Settings that a task does not read."""


def task_problems(own: DSLConfig, model: object, task: str | None) -> Iterator[Problem]:
    """Yields settings that the run's task does not read, and what it cannot do.

    Args:
        own: the method's settings.
        model: the model's.
        task: of the run; None where method and model do not fit, which is told elsewhere.
    """
    usual = DSLConfig()
    for name in UNREAD.get(task or "", ()):
        if getattr(own, name) != getattr(usual, name):
            what = f"{name}={typed(getattr(own, name))} would do nothing: task {task} does not read it."
            yield Problem(f"method.{name}", what, fix=f"leave method.{name} out")
    if task == "next_item":
        yield from _next_item(own, getattr(model, "dim", None))
    elif own.loss in SOFTMAX and getattr(model, "name", None) not in OWN_LOSS:
        what = f"loss={own.loss} is a softmax over next items, which task {task} has none of."
        yield Problem("method.loss", what, fix="method.loss=auto, or model=sasrec")


def _next_item(own: DSLConfig, width: int | None) -> Iterator[Problem]:
    """Yields what a sequence model cannot do; its width is that of the item table."""
    if own.loss not in ("auto", *SOFTMAX):
        what = f"loss={own.loss} is for pairs of users and items, and task next_item has none."
        yield Problem("method.loss", what, fix=f"method.loss={SOFTMAX[0]}, or model=bpr_mf")
    if own.mode == "dense_small":
        what = "The item table is as wide as the sequence model, so a small one is a smaller model."
        yield Problem("method.mode", what, fix="method.mode=dense with a smaller model.dim")
    if None not in (own.dim, width) and own.dim != width:
        what = f"The item table is as wide as the sequence model, and model.dim={width}."
        yield Problem("method.dim", what, fix=f"method.dim=null, or model.dim={own.dim}")
