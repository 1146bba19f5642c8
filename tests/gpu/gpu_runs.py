"""Small training runs, and a way to break one off as a killed process would."""

from dataclasses import replace

from effrec_cli.engine import Engine
from effrec_cli.schema import Config, EvaluationConfig, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_synthetic import SyntheticConfig
from effrec_cli.schema.method_cce import CCEConfig
from effrec_cli.schema.model_sasrec import SASRecConfig


def make_config(folder, lr=3e-3, **run):
    """Returns the settings of a run of 8 epochs on a small world, made without Hydra."""
    return Config(
        dataset=SyntheticConfig(
            name="synthetic",
            family="synthetic",
            num_users=400,
            num_items=200,
            num_clusters=8,
            interactions_per_user=25.0,
            side=[],
        ),
        model=SASRecConfig(dim=32, max_length=25, dropout=0.0),
        method=CCEConfig(loss="cce_sampled", num_negatives=63, batch_size=64),
        optimizer=OptimizerConfig(lr=lr),
        run=RunConfig(**{"dir": str(folder), "device": "cuda", "max_epochs": 8, **run}),
        evaluation=EvaluationConfig(ks=[10], metrics=["ndcg", "hr"]),
        data_root=str(folder.parent / "data"),
    )


def elsewhere(config, device):
    """Returns the settings to go on with a run on another device."""
    return replace(config, run=replace(config.run, device=device, resume="auto"))


class BrokenOff(BaseException):
    """Ends a process's work at once: nothing is saved on the way out."""


def break_off_at(monkeypatch, step):
    """Lets every engine end after `step` steps as if it had been killed; `monkeypatch.undo` mends it."""
    after_step = Engine._after_step

    def broken(engine):
        after_step(engine)
        if engine.steps == step:
            raise BrokenOff

    monkeypatch.setattr(Engine, "_after_step", broken)
