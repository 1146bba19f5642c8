"""What a run is judged by: the metrics of its task's protocol, and the one to select by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effrec_cli import registry

if TYPE_CHECKING:
    from effrec_cli.schema.root import Config, EvaluationConfig

_IMPRESSIONS = ("auc", "mrr", "ndcg@5", "ndcg@10")
OWN = {
    "news": (*_IMPRESSIONS, *(f"{name}_cold" for name in _IMPRESSIONS)),
    "knowledge_tracing": ("auc", "accuracy", "log_loss", "auc_cold"),
    "ctr": ("auc", "log_loss", "ne", "calibration", "ece"),
}
"""Metrics of the tasks with a protocol of their own, the usual one to select by first; all others rank the
catalogue."""

LOWER_IS_BETTER = ("log_loss", "log_loss_cold", "ne", "ece")
"""No run is selected by these: higher is better for those it may be."""

BEST_IN_BETWEEN = ("calibration",)
"""Nor by these, of which 1 is best."""


def is_rising(metric: str) -> bool:
    """Returns whether a metric is the better the higher it is, so that runs may be selected by it."""
    return metric not in (*LOWER_IS_BETTER, *BEST_IN_BETWEEN)


def shortfall(metric: str, score: float) -> float:
    """Returns a number that is the lower the better a score is: of `calibration` its distance from 1."""
    if metric in BEST_IN_BETWEEN:
        return abs(score - 1)
    return -score if is_rising(metric) else score


FULL = "full"
"""Stands in the stamp of a ranking, as its `candidates`: the whole catalogue."""

USUAL = "ndcg@10"
"""What rankings are selected by, where it is computed."""


def task_of(config: Config) -> str | None:
    """Returns how the run's model is fed; None where it fits no task of the method, which the run refuses."""
    method, model = (getattr(part, "name", None) for part in (config.method, config.model))
    if method not in registry.rows("methods") or model not in registry.rows("models"):
        return None
    taken = registry.tasks("models", model)
    return next((task for task in asked_of(config, registry.tasks("methods", method)) if task in taken), None)


def asked_of(config: Config, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Returns which of a method's tasks a run may train, the ones to be preferred first.

    A method may let its settings say (`method.task`). `auto` prefers to predict labels where the dataset
    names a column of them.
    """
    asked = getattr(config.method, "task", None)
    if asked is None:
        return tasks
    if asked != "auto":
        return tuple(task for task in tasks if task == asked)
    labelled = getattr(config.dataset, "label", None) is not None
    return tuple(sorted(tasks, key=lambda task: task != "ctr")) if labelled else tasks


def metrics_of(config: Config) -> list[str]:
    """Returns the names of all metrics that the run computes."""
    own = OWN.get(task_of(config) or "")
    return list(own) if own else _ranking(config.evaluation)


def monitor_of(config: Config) -> str:
    """Returns the validation metric that the run selects by: the one named, or the protocol's usual one."""
    if config.evaluation.monitor is not None:
        return config.evaluation.monitor
    computed = metrics_of(config)
    return USUAL if USUAL in computed and not is_own(config) else next(iter(computed), USUAL)


def is_own(config: Config) -> bool:
    """Returns whether the run's task has a protocol of its own, and does not rank the catalogue."""
    return task_of(config) in OWN


def _ranking(settings: EvaluationConfig) -> list[str]:
    return [f"{metric}@{k}" for metric in settings.metrics for k in settings.ks]
