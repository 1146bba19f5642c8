"""The settings every run has, whatever its dataset, model and method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from effrec_cli.schema.fields import setting


@dataclass
class OptimizerConfig:
    """How weights move.

    Attributes:
        name: `adam`, `adamw` or `sgd`.
        lr: peak learning rate.
        betas: Adam's two decay rates.
        eps: Adam's epsilon.
        weight_decay: L2 strength (decoupled for adamw).
        schedule: `constant`, `cosine` or, falling with 1 / sqrt(step), `noam` after the warm-up.
        warmup_steps: optimizer steps of linear warm-up from 0.
        final_lr_ratio: where cosine ends, as a share of `lr`.
        sparse_rows: move only the rows of the item table that a step draws (docs: sparse.md); None does so
            where they are few, and the result says which.
    """

    name: str = setting("adam", choices=("adam", "adamw", "sgd"))
    lr: float = setting(2e-3, above=0)
    betas: list[float] = setting([0.9, 0.98])
    eps: float = setting(1e-8, above=0)
    weight_decay: float = setting(0.0, low=0)
    schedule: str = setting("constant", choices=("constant", "cosine", "noam"))
    warmup_steps: int = setting(0, low=0)
    final_lr_ratio: float = setting(0.0, low=0, high=1)
    sparse_rows: bool | None = None


@dataclass
class RunConfig:
    """How long, where and how exactly a run goes.

    Attributes:
        dir: the run's folder; None makes one under `outputs/`.
        device: `auto`, `cpu` or `cuda`.
        devices: processes of data-parallel training, one a device.
        precision: `auto` (bf16 where the device has it, else fp32), `fp32`, `bf16` or `fp16`.
        max_epochs: passes over the training data at most.
        max_steps: optimizer steps at most; None for no limit.
        max_minutes: minutes of training at most; None for no limit.
        accumulate: micro-batches whose gradients make one step.
        clip_norm: largest total gradient norm; None for no clipping.
        compile: run the model through `torch.compile`.
        deterministic: refuse operations whose result may vary between runs.
        validate_every: epochs between validations.
        patience: validations without improvement before stopping; None trains to the end.
        checkpoint_every_steps: also save every so many steps; None does not.
        checkpoint_every_minutes: also save every so many minutes; None does not. After each validation a run
            saves anyway, and where and when it is stopped changes no result.
        resume: `never` refuses a folder that holds a run, `auto` goes on where it stopped.
        log_every: steps between two loss records.
    """

    dir: str | None = None
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    devices: int = setting(1, low=1)
    precision: str = setting("auto", choices=("auto", "fp32", "bf16", "fp16"))
    max_epochs: int = setting(100, low=1)
    max_steps: int | None = setting(None, low=1)
    max_minutes: float | None = setting(None, above=0)
    accumulate: int = setting(1, low=1)
    clip_norm: float | None = setting(None, above=0)
    compile: bool = False
    deterministic: bool = False
    validate_every: int = setting(1, low=1)
    patience: int | None = setting(8, low=1)
    checkpoint_every_steps: int | None = setting(None, low=1)
    checkpoint_every_minutes: float | None = setting(10.0, above=0)
    resume: str = setting("never", choices=("never", "auto"))
    log_every: int = setting(50, low=1)


@dataclass
class EvaluationConfig:
    """How a run is judged, and how the catalogue is ranked; the split belongs to the dataset.

    Attributes:
        ks: cut-offs, ascending.
        metrics: names out of ndcg, hr, recall, mrr, map, precision, coverage, surprisal.
        monitor: the validation metric that early stopping and the best checkpoint follow; None is `ndcg@10`
            where the catalogue is ranked (else the first metric that is computed) and `auc` for the tasks
            `news` and `knowledge_tracing`, whose protocols look at no other setting here.
        seen: `exclude` never recommends an item of the user's history, so that a target among them is a miss;
            `exclude_but_target` may recommend those that are targets; `keep` all. What `effrec recommend`
            lists is not decided here.
        block_rows: users scored at once; None sizes the block from free memory.
    """

    ks: list[int] = setting([1, 5, 10, 20, 100])
    metrics: list[str] = setting(["ndcg", "hr", "mrr", "recall", "map", "precision", "coverage", "surprisal"])
    monitor: str | None = None
    seen: str = setting("exclude", choices=("exclude", "exclude_but_target", "keep"))
    block_rows: int | None = setting(None, low=1)


@dataclass
class Config:
    """A whole run: one dataset, one model, one method, and the settings above.

    `dataset`, `model` and `method` hold an instance of the dataclass that the registry names for them.
    """

    dataset: Any = None
    model: Any = None
    method: Any = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = setting(1, low=0)
    data_root: str = ""
    name: str | None = None
