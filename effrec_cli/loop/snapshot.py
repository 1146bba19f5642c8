"""The engine's state as a checkpoint, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from effrec_cli.checkpoint import Checkpoint, pack_optimizer, unpack_optimizer
from effrec_cli.errors import ConfigError
from effrec_cli.tensorfile import move_to

if TYPE_CHECKING:
    from effrec_cli.engine import Engine

FORMAT = 1
_HELD = ("weights_bytes", "gradient_bytes", "optimizer_bytes")
"""Maxima over the run, which the part that goes on may not reach again."""


def take(engine: Engine) -> Checkpoint:
    """Returns everything the engine needs to go on; every rank must call it."""
    tensors, rest = _optimizers(engine)
    selection = engine.selection
    return Checkpoint(
        model=engine.method.state_dict(),
        best=None if selection.step == engine.steps else selection.weights,
        optimizers=tensors,
        state={
            "format": FORMAT,
            "steps": engine.steps,
            "steps_per_epoch": engine.steps_per_epoch,
            "validated_step": engine.validated_step,
            "elapsed_s": engine.elapsed_s,
            "metrics_lines": engine.folder.metrics_lines,
            "selection": selection.state(),
            "totals": engine.totals.state(),
            "scaler": engine.scaler.state() if engine.scaler else None,
            "optimizers": rest,
            "held": {name: getattr(engine, name) for name in _HELD},
            "meter": engine.meter.state(),
            "method": engine.method.extra_state(),
        },
        method=engine.method.extra_tensors(),
    )


def put_back(engine: Engine, checkpoint: Checkpoint) -> int:
    """Gives the engine the state of a checkpoint; returns the lines that metrics.jsonl had.

    Raises:
        ConfigError: the checkpoint was made with settings that do not fit the engine's.
    """
    state = checkpoint.state
    _refuse_other_settings(engine, state)
    try:
        engine.method.load_state_dict(checkpoint.model)
        for number, optimizer in enumerate(engine.optimizers):
            mine = _of(checkpoint.optimizers, number)
            unpack_optimizer(optimizer, mine, state["optimizers"][number])
    except (RuntimeError, ValueError, KeyError, IndexError) as fault:
        raise _does_not_fit(str(fault)) from fault
    engine.steps, engine.validated_step = state["steps"], state["validated_step"]
    engine.elapsed_before_s = state["elapsed_s"]
    engine.selection.load(state["selection"], _best(checkpoint))
    engine.totals.load(state["totals"])
    if engine.scaler and state["scaler"]:
        engine.scaler.load(state["scaler"])
    for name, most in state.get("held", {}).items():
        setattr(engine, name, most)
    engine.meter.load(state["meter"])
    engine.method.load_extra_tensors(checkpoint.method)
    engine.method.load_extra_state(state["method"])
    return int(state["metrics_lines"])


def _best(checkpoint: Checkpoint) -> dict[str, Tensor] | None:
    """Returns the best validation's weights, which are the model's where they were just validated."""
    if checkpoint.best is not None or checkpoint.state["selection"]["step"] is None:
        return checkpoint.best
    return move_to(checkpoint.model, torch.device("cpu"))


def _optimizers(engine: Engine) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Returns all optimizers' tensors under one roof, and each one's JSON-able rest."""
    tensors: dict[str, Tensor] = {}
    rest = []
    for number, optimizer in enumerate(engine.optimizers):
        packed, plain = pack_optimizer(optimizer)
        tensors |= {f"{number}.{name}": tensor for name, tensor in packed.items()}
        rest.append(plain)
    return tensors, rest


def _of(tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _refuse_other_settings(engine: Engine, state: dict[str, Any]) -> None:
    if state.get("format") != FORMAT:
        raise _does_not_fit(f"it has format {state.get('format')}, this effrec reads {FORMAT}")
    if state["steps_per_epoch"] != engine.steps_per_epoch:
        raise _does_not_fit(
            f"its epochs have {state['steps_per_epoch']} steps, now they have {engine.steps_per_epoch}"
        )


def _does_not_fit(why: str) -> ConfigError:
    return ConfigError(
        f"The checkpoint does not fit these settings: {why}.",
        fix="resume with the run's own config.yaml (`effrec resume RUN`), or name a new folder: run.dir=PATH",
    )
