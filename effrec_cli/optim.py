"""Optimizers from settings, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import torch
from effrec_kernels import RowAdam
from torch import Tensor

from effrec_cli.schema import OptimizerConfig


def make_optimizers(
    params: Iterable[Tensor], config: OptimizerConfig, row_sparse: Collection[Tensor] = ()
) -> list[torch.optim.Optimizer]:
    """Returns what moves `params`: `make_optimizer`, and `RowAdam` for tables whose gradients are rows.

    Args:
        params: what to move.
        config: of both alike; RowAdam decays weights of the rows of a step alone.
        row_sparse: those of `params` that get row-sparse gradients; the name must then be `adam` or `adamw`.
    """
    tables = set(row_sparse)
    rest = [param for param in params if param not in tables]
    made = [make_optimizer(rest, config)] if rest else []
    if tables:
        made.append(
            RowAdam(
                row_sparse,
                config.lr,
                (config.betas[0], config.betas[1]),
                config.eps,
                config.weight_decay,
                decoupled=config.name == "adamw",
            )
        )
    return made


def make_optimizer(params: Iterable[Tensor], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Returns the optimizer that moves `params`, fused, on a CPU as on a GPU.

    Fused optimizers heed `found_inf` and `grad_scale` set on them, so that the device itself can skip an
    update whose gradients are not finite. Weight decay goes to matrices and tables alone: tensors of one
    dimension (biases, LayerNorm's weights) are never decayed.

    Args:
        params: what to move; frozen tensors are left out.
        config: name, rate, decay rates and decay. `config.betas` is Adam's; `sgd` has no momentum.
    """
    groups = _groups(params, config.weight_decay)
    betas = (config.betas[0], config.betas[1])
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, fused=True)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)


def state_bytes(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Returns what optimizers will hold: Adam and its kin two numbers a weight, plain SGD none."""
    return sum(_group_bytes(each, group) for each in optimizers for group in each.param_groups)


def _group_bytes(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> int:
    weights: list[Tensor] = group["params"]
    if isinstance(optimizer, torch.optim.SGD):
        return 0
    moments = 2 * sum(each.nbytes for each in weights)
    if not isinstance(optimizer, RowAdam):
        return moments
    if group["slot_steps"]:
        return moments + sum(each.numel() * torch.int16.itemsize for each in weights)
    return moments + sum(len(each) * each.element_size() for each in weights)


def learning_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Returns the rate of one step: linear warm-up to `lr`, then constant or a way down.

    Args:
        step: optimizer steps done before this one.
        total_steps: steps the run would take without stopping early; cosine ends there.
        config: `lr`, `schedule`, `warmup_steps`, `final_lr_ratio`.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "noam":  # Vaswani et al. 2017, section 5.3, its peak made `lr`
        return config.lr * math.sqrt(max(1, config.warmup_steps) / (step + 1))
    span = max(1, total_steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    ratio = config.final_lr_ratio
    return config.lr * (ratio + (1 - ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def _groups(params: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Returns parameter groups with and without decay, without empty ones."""
    trained = [param for param in params if param.requires_grad]
    decayed = [param for param in trained if param.ndim > 1]
    spared = [param for param in trained if param.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
