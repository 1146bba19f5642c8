"""The settings of a run as dataclasses; nothing here imports torch.

`root` holds what every run has, `dataset_*`, `model_*` and `method_*` what each registered thing adds, and
`check.build` turns a composed mapping into them.
"""

from effrec_cli.schema.root import Config, EvaluationConfig, OptimizerConfig, RunConfig

__all__ = ["Config", "EvaluationConfig", "OptimizerConfig", "RunConfig"]
