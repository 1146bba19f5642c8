"""Which model can be fed by which training task."""

from __future__ import annotations

from typing import Any

from effrec_cli import registry
from effrec_cli.errors import ConfigError


def model_for(task: str, name: str) -> Any:
    """Returns the class of the model called `name`, which takes `task`.

    A model class names the tasks that can feed it in its attribute `tasks`.

    Args:
        task: the method's training task, such as `next_item`.
        name: the registered model.

    Raises:
        ConfigError: no such model, or it cannot be fed this way; lists the pairs that fit.
    """
    found = registry.implementation("models", name)
    if task in _tasks(found):
        return found
    pairs = {
        other: _tasks(registry.implementation("models", other)) for other in sorted(registry.rows("models"))
    }
    fitting = [other for other, tasks in pairs.items() if task in tasks]
    listed = ", ".join(f"{other} ({', '.join(tasks)})" for other, tasks in pairs.items() if tasks)
    raise ConfigError(
        f"Model '{name}' cannot be trained on task '{task}'; pairs that fit: {listed}.",
        where=f"model={name}",
        nearest=fitting[0] if len(fitting) == 1 else None,
        fix=f"choose a model for {task}: {', '.join(fitting)}" if fitting else None,
    )


def _tasks(model: Any) -> tuple[str, ...]:
    return tuple(getattr(model, "tasks", ()))
