"""The settings of a run as dataclasses; nothing here imports torch."""

from effrec_cli.schema.root import Config, EvaluationConfig, OptimizerConfig, RunConfig

__all__ = ["Config", "EvaluationConfig", "OptimizerConfig", "RunConfig"]
