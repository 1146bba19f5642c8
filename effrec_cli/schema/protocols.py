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
}
"""Metrics of the tasks with a protocol of their own, the usual one to select by first; all others rank the
catalogue."""

LOWER_IS_BETTER = ("log_loss", "log_loss_cold")
"""No run is selected by these: higher is better for those it may be."""

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
    return next((task for task in registry.tasks("methods", method) if task in taken), None)


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
