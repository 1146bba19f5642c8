"""Which model can be fed by which training task, and which of a method's tasks a model takes."""

from __future__ import annotations

from typing import Any

from effrec_cli import registry
from effrec_cli.errors import ConfigError
from effrec_cli.schema import Config
from effrec_cli.schema.protocols import asked_of


def model_for(task: str, name: str) -> Any:
    """Returns the class of the model called `name`, which takes `task`.

    A model class names the tasks that can feed it in its attribute `tasks`.

    Args:
        task: the method's training task, such as `next_item`.
        name: the registered model.

    Raises:
        ConfigError: no such model, or it cannot be fed this way; lists the pairs that fit.
    """
    task_for((task,), name)
    return registry.implementation("models", name)


def task_for(tasks: tuple[str, ...], name: str) -> str:
    """Returns which of a method's training tasks feeds the model called `name`: the first that it takes.

    Args:
        tasks: of the method, such as `("news", "next_item")`.
        name: the registered model.

    Raises:
        ConfigError: no such model, or none of the tasks can feed it; lists the pairs that fit.
    """
    taken = registry.tasks("models", name)
    found = next((task for task in tasks if task in taken), None)
    if found is None:
        raise _no_pair(tasks, name)
    return found


def task_of_run(config: Config) -> str:
    """Returns how the model of a run will be fed.

    Raises:
        ConfigError: method and model do not fit, or the task is on interactions and rows name nobody.
    """
    task = task_for(asked_of(config, registry.tasks("methods", config.method.name)), config.model.name)
    if task != "ctr" and getattr(config.dataset, "user", "") is None:
        raise ConfigError(
            f"Its rows name no users and items, and task {task} trains on interactions.",
            where="dataset.user=null",
            fix="method=cadc model=dlrm, or dataset.user=COLUMN dataset.item=COLUMN",
        )
    return task


def _no_pair(tasks: tuple[str, ...], name: str) -> ConfigError:
    pairs = {other: registry.tasks("models", other) for other in sorted(registry.rows("models"))}
    fitting = [other for other, taken in pairs.items() if set(tasks) & set(taken)]
    listed = ", ".join(f"{other} ({', '.join(taken)})" for other, taken in pairs.items() if taken)
    named = " or ".join(f"'{task}'" for task in tasks)
    return ConfigError(
        f"Model '{name}' cannot be trained on task {named}; pairs that fit: {listed}.",
        where=f"model={name}",
        nearest=fitting[0] if len(fitting) == 1 else None,
        fix=f"choose a model for {' or '.join(tasks)}: {', '.join(fitting)}" if fitting else None,
    )
