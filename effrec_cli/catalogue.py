"""What can be named on the command line: the options of a config group with a line about each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from effrec_cli import registry
from effrec_cli.compose import CONFIG_NAME, Folders, opened

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

GROUPS = {"methods": "method", "datasets": "dataset", "models": "model", "experiments": "experiment"}


def entries(kind: str, config_dir: str | None = None) -> list[dict[str, Any]]:
    """Returns every option of `kind`, effrec's own and those of a user's folder.

    Args:
        kind: a key of GROUPS.
        config_dir: the user's folder of YAML groups.

    Returns:
        for each option its `name`, facts that depend on the kind (such as a method's default `model` and
        training `task`; None where unknown), and a one-line `summary`.
    """
    with opened(Folders(extra=config_dir), []) as hydra:
        names = sorted(hydra.config_loader.get_group_options(GROUPS[kind]))
        return [_entry(hydra, kind, name) for name in names]


def _entry(hydra: Hydra, kind: str, name: str) -> dict[str, Any]:
    from hydra.types import RunMode

    try:
        composed = hydra.compose_config(CONFIG_NAME, [f"{GROUPS[kind]}={name}"], RunMode.RUN)
    except Exception as error:  # one broken file of the user's must not hide the others
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return {"name": name, "summary": f"does not compose: {reason}"}
    return {"name": name, **_facts(kind, composed), "summary": _summary(hydra, kind, name, composed)}


def _facts(kind: str, composed: DictConfig) -> dict[str, Any]:
    """Returns what is worth knowing of an option before it is chosen."""
    if kind == "methods":
        return {"model": composed.model.name, "task": _tasks(kind, composed.method.name)}
    if kind == "models":
        return {"tasks": _tasks(kind, composed.model.name)}
    if kind == "datasets":
        return {"family": composed.dataset.family}
    needs = "dataset.path=FILE" if composed.dataset.get("path", "") is None else None
    return {"method": composed.method.name, "dataset": composed.dataset.name, "needs": needs}


def _tasks(kind: str, name: str) -> str | None:
    """Returns what a method trains or a model goes with, by its row or else its class; None where unknown."""
    if name not in registry.rows(kind):
        return None
    try:
        return ", ".join(registry.tasks(kind, name)) or None
    except (ImportError, OSError):  # its module cannot be imported here
        return None


def _summary(hydra: Hydra, kind: str, name: str, composed: DictConfig) -> str:
    """Returns the registry's line on a method or model; else the first comment of the YAML file."""
    if kind in ("methods", "models"):
        known = registry.rows(kind).get(composed[GROUPS[kind]].name)
        return known.summary if known else "not registered"
    for source in hydra.config_loader.get_sources():
        path = Path(source.path) / GROUPS[kind] / f"{name}.yaml"
        if path.is_file():
            return first_comment(path)
    return ""


def first_comment(path: Path) -> str:
    """Returns the first comment line of a YAML file that says something, or an empty text."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("#").strip()
        if text and not text.startswith("@package"):
            return text.removesuffix(".")
    return ""
