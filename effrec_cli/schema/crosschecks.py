"""Settings that are right alone and wrong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from effrec_cli.errors import nearest_name
from effrec_cli.schema.dataset_base import split_problems
from effrec_cli.schema.dataset_table import TableConfig
from effrec_cli.schema.dsl_next_item import task_problems
from effrec_cli.schema.factors import Fitting, factor_problems
from effrec_cli.schema.histories import strong_problems
from effrec_cli.schema.method_cadc import CADCConfig, cadc_problems
from effrec_cli.schema.method_cce import CCEConfig, cce_problems
from effrec_cli.schema.method_dsl import MOVING, SLOWEST_BETA, DSLConfig, dsl_problems
from effrec_cli.schema.method_gram import GRAMConfig, gram_problems
from effrec_cli.schema.method_iisan import IISANConfig, iisan_problems
from effrec_cli.schema.problems import Problem
from effrec_cli.schema.protocols import BEST_IN_BETWEEN, OWN, is_own, is_rising, metrics_of, task_of
from effrec_cli.schema.root import Config, EvaluationConfig
from effrec_cli.schema.row_sparse import row_sparse_problems
from effrec_cli.schema.sample import is_sampled, sample_problems


def cross_problems(config: Config) -> Iterator[Problem]:
    """Yields what contradicts what, each with the setting to change."""
    for check in _CHECKS:
        yield from check(config)


LONGEST_NAME = 100
"""Characters; with time, dataset and method beside it, a folder's name must stay below 255 bytes."""


def _names(config: Config) -> Iterator[Problem]:
    for key, name in (("name", config.name), ("dataset.name", getattr(config.dataset, "name", None))):
        reason = _no_folder_name(name) if name else None
        if reason:
            yield Problem(
                key, f"It becomes part of a folder's name, and {reason}.", fix=f"{key}=WORD, or run.dir=PATH"
            )


def _no_folder_name(name: str) -> str | None:
    """Returns why a name cannot be part of a folder's, or None."""
    if not name.strip() or "/" in name or not name.isprintable():
        return f"'{name}' is blank, or holds a slash or a control character"
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        return f"this one has more than {LONGEST_NAME} bytes"
    return None


def _run_dir(config: Config) -> Iterator[Problem]:
    folder = config.run.dir
    if folder is not None and (not folder.strip() or not folder.isprintable()):
        yield Problem("run.dir", f"'{folder}' names no folder.", fix="run.dir=PATH, or leave it out")


def _cutoffs(config: Config) -> Iterator[Problem]:
    ks = config.evaluation.ks
    if not ks or ks[0] < 1 or any(later <= earlier for earlier, later in pairwise(ks)):
        fix = f"evaluation.ks={sorted({k for k in ks if k > 0}) or [10]}".replace(" ", "")
        yield Problem("evaluation.ks", f"Cut-offs must be 1 or more and rise, not {ks}.", fix=fix)


def _metrics(config: Config) -> Iterator[Problem]:
    known = EvaluationConfig().metrics
    for name in config.evaluation.metrics:
        if name not in known:
            fix = f"choose from: {', '.join(known)}"
            what = f"There is no metric called '{name}'."
            yield Problem("evaluation.metrics", what, nearest_name(name, known), fix)


def _monitor(config: Config) -> Iterator[Problem]:
    settings = config.evaluation
    if any(_cutoffs(config)) or any(_metrics(config)):  # what they are told comes first
        return
    given, rising = settings.monitor, [name for name in metrics_of(config) if is_rising(name)]
    if given is None or given in rising:
        return
    what = f"'{given}' is not among the metrics that this run computes."
    if given in metrics_of(config):
        better = "1 is best" if given in BEST_IN_BETWEEN else "Lower is better"
        what = f"{better} for '{given}', and a run selects by what is better when higher."
    fix = "name a metric of evaluation.metrics at a cut-off of evaluation.ks, or add yours to them"
    if is_own(config):
        fix = f"choose from: {', '.join(rising)}; or evaluation.monitor=null"
    yield Problem("evaluation.monitor", what, nearest_name(given, rising), fix)


def _ranks_nothing(config: Config) -> Iterator[Problem]:
    """Yields settings of the ranking protocol where the task has another, which looks at none of them."""
    if not is_own(config):
        return
    given, defaults = config.evaluation, EvaluationConfig()
    for name in ("ks", "metrics", "seen"):
        if getattr(given, name) != getattr(defaults, name):
            metrics = ", ".join(metrics_of(config))
            what = f"{name} would do nothing: it is for ranking, and task {task_of(config)} has {metrics}."
            yield Problem(f"evaluation.{name}", what, fix=f"leave evaluation.{name} out")


def _betas(config: Config) -> Iterator[Problem]:
    betas = config.optimizer.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        what = f"Adam takes two decay rates, each from 0 to below 1, not {betas}."
        yield Problem("optimizer.betas", what, fix="optimizer.betas=[0.9,0.98]")


def _half_precision(config: Config) -> Iterator[Problem]:
    if config.run.precision == "fp16" and config.run.device == "cpu":
        what = "fp16 needs a GPU: a CPU has no gradient scaling for it."
        yield Problem("run.precision", what, fix="run.precision=bf16, or run.device=cuda")


def _patience(config: Config) -> Iterator[Problem]:
    run = config.run
    if run.patience is not None and run.validate_every > run.max_epochs > 0:
        what = (
            f"Patience counts validations, and there are none: run.validate_every={run.validate_every} "
            f"is more than run.max_epochs={run.max_epochs}."
        )
        yield Problem("run.patience", what, fix=f"run.validate_every={run.max_epochs}, or run.patience=null")


def _heads(config: Config) -> Iterator[Problem]:
    dim, heads = getattr(config.model, "dim", None), getattr(config.model, "num_heads", None)
    if dim is not None and heads is not None and dim % heads:
        what = f"model.dim={dim} is not a multiple of model.num_heads={heads}."
        yield Problem(
            "model.dim", what, fix=f"model.dim={-(-dim // heads) * heads}, or another number of heads"
        )


def _cce(config: Config) -> Iterator[Problem]:
    if isinstance(config.method, CCEConfig):
        yield from cce_problems(config.method, getattr(config.model, "dim", None))


def _cadc(config: Config) -> Iterator[Problem]:
    if isinstance(config.method, CADCConfig):
        yield from cadc_problems(config.method, config.model, task_of(config))
        yield from _sampled_twice(config.method, config)


def _dsl(config: Config) -> Iterator[Problem]:
    if isinstance(config.method, DSLConfig):
        yield from dsl_problems(config.method, config.model)
        yield from task_problems(config.method, config.model, task_of(config))
        yield from _rows_optimizer(config)


def _rows_optimizer(config: Config) -> Iterator[Problem]:
    """Yields an optimizer that does not move rows of sparse tables, or forgets too slowly."""
    if config.optimizer.name == "sgd":
        what = "Tables of method dsl are moved by Adam, row by row; sgd is not there for them."
        yield Problem("optimizer.name", what, fix="optimizer=adam, or optimizer=adamw")
    if config.method.mode in MOVING and max(config.optimizer.betas, default=0) > SLOWEST_BETA:
        what = f"Steps of a number are counted in 16 bits, which is enough for betas up to {SLOWEST_BETA}."
        yield Problem("optimizer.betas", what, fix="optimizer.betas=[0.9,0.999]")


def _sampled_twice(own: CADCConfig, config: Config) -> Iterator[Problem]:
    """Yields a sample of a sample, of which nobody could say what the factorisation is to read."""
    dataset = getattr(config.dataset, "sample", None)
    if dataset is not None and is_sampled(dataset) and is_sampled(own.sample):
        what = f"The dataset is a sample already: dataset.sample.rate={dataset.rate:g}."
        whole = "dataset.sample.rate=1, and the factorisation reads all rows"
        yield Problem(
            "method.sample.rate",
            what,
            fix=f"{whole}; or method.sample.rate=1, and it reads the sample's alone",
        )


def _gram(config: Config) -> Iterator[Problem]:
    own, precision = config.method, config.run.precision
    if not isinstance(own, GRAMConfig):
        return
    yield from gram_problems(own, task_of(config))
    if own.encoder.modality == "text":
        yield from _titles(config)
    if (own.mode, own.update) == ("multi_step", "regress") and precision in ("bf16", "fp16"):
        what = f"update=regress subtracts vectors that differ by a gradient, which {precision} rounds away."
        yield Problem("run.precision", what, fix="run.precision=fp32, or method.update=inject_multi")


def _iisan(config: Config) -> Iterator[Problem]:
    own = config.method
    if isinstance(own, IISANConfig):
        yield from iisan_problems(own, task_of(config))
        yield from _as_wide(own, getattr(config.model, "dim", None))
        if own.modality in ("text", "both"):
            yield from _titles(config)


def _as_wide(own: IISANConfig, dim: int | None) -> Iterator[Problem]:
    """Yields a model that cannot read the vectors, where nothing maps them to its width."""
    if not own.next_item.projection and dim not in (None, own.dim):
        what = f"The model reads vectors of method.dim={own.dim} as they are, and model.dim={dim}."
        fix = f"model.dim=null, method.dim={dim}, or method.next_item.projection=true"
        yield Problem("model.dim", what, fix=fix)


def _titles(config: Config) -> Iterator[Problem]:
    """Yields a table of which nobody says where its texts are."""
    if type(config.dataset) is TableConfig and config.dataset.title is None:
        what = "The encoder reads what items say, and no column of titles or texts is named."
        fix = "dataset.title=COLUMN, with dataset.items_path=FILE where a table of items has it"
        yield Problem("dataset.title", what, fix=fix)


def _split(config: Config) -> Iterator[Problem]:
    yield from split_problems(config.dataset.split)
    yield from strong_problems(config)


def _sample(config: Config) -> Iterator[Problem]:
    """Yields what a sample would not look at, and one of interactions where the task trains on other rows."""
    sample, task = config.dataset.sample, task_of(config)
    yield from sample_problems(sample, "dataset.sample")
    if is_sampled(sample) and task in OWN:
        rows = _OWN_ROWS.get(task, "others")
        what = f"A sample keeps some of the interactions, and task {task} trains on {rows}."
        yield Problem("dataset.sample.rate", what, fix="leave dataset.sample out, or train another task")


_OWN_ROWS = {"news": "impressions", "knowledge_tracing": "answers", "ctr": "labelled rows"}


def _factors(config: Config) -> Iterator[Problem]:
    if isinstance(config.method, Fitting):
        yield from factor_problems(config.method)


def _sparse_rows(config: Config) -> Iterator[Problem]:
    if config.optimizer.sparse_rows:
        yield from row_sparse_problems(config)


_CHECKS: tuple[Callable[[Config], Iterator[Problem]], ...] = (
    _names,
    _run_dir,
    _cutoffs,
    _metrics,
    _monitor,
    _ranks_nothing,
    _betas,
    _half_precision,
    _patience,
    _heads,
    _cadc,
    _cce,
    _dsl,
    _gram,
    _iisan,
    _factors,
    _split,
    _sample,
    _sparse_rows,
)
