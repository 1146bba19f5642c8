"""`effrec train`: composes with Hydra, checks, and runs one job or a sweep of jobs."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import TYPE_CHECKING, Any, NoReturn

from effrec_cli.arguments import nearest_option
from effrec_cli.compose import CONFIG_NAME, Folders, opened, refuse_hydras_folder
from effrec_cli.errors import ConfigError, nearest_name

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

_HEAD = """usage: effrec train [KEY=VALUE ...] [-m] [options]

Trains one run, or with -m one run for every combination of comma-separated values.

examples:
  effrec train method=cce dataset=ml-20m                        one run
  effrec train method.loss=ce run.max_epochs=10 seed=3          other settings
  effrec train run.dir=outputs/mine run.resume=auto             a folder of its own, resumed when it is there
  effrec train -m method=cce,pop,ease seed=1,2,3                nine runs and a table
  effrec train -m seed='range(1,6)' hydra/launcher=submitit_slurm   on a cluster; needs 'effrec[slurm]'
  effrec train --config-dir my_conf method=mine                 your YAML: my_conf/method/mine.yaml

groups, and what each can name (GROUP=NAME):
"""

_FOOT = """
options:
  -m, --multirun                 a sweep; its runs go to hydra.sweep.dir (default outputs/sweeps/TIME)
  -c, --cfg job|hydra|all        print the composed settings instead of running
  -p, --package KEY              with --cfg: only this part
  --resolve                      with --cfg: interpolations resolved
  -i, --info [all|config|defaults|defaults-tree|plugins|searchpath]
                                 how the settings came together
  -cd, --config-dir DIR          a folder with YAML groups of your own
  -cp, --config-path DIR         a folder to use in place of effrec's
  -cn, --config-name NAME        a primary config other than `config`
  --hydra-help                   Hydra's own help
  -sc, --shell-completion        eval "$(effrec -sc install=bash)"; also zsh and fish
  --debug                        show tracebacks

Every key of the composed settings: effrec train --cfg job"""


def main(argv: list[str]) -> int:
    """Runs `effrec train ARGV` and returns the exit code.

    Raises:
        ConfigError: a wrong option, override or value.
        EffrecError: what stopped a single run.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    options = _parse(parser, argv)
    folders = Folders(options.config_path, options.config_dir)
    with opened(folders, options.overrides) as hydra:
        code, error = (0, None) if _answered(hydra, parser, options) else _run(hydra, options)
    if error is not None:
        raise error  # out here, where an error of the job is not taken for one of Hydra
    return code


def _answered(hydra: Hydra, parser: argparse.ArgumentParser, options: argparse.Namespace) -> bool:
    """Prints what an option asks for; returns False where nothing but a run is asked for."""
    if options.help:
        print(_help(hydra))
    elif options.hydra_help:
        hydra.hydra_help(options.config_name, parser, options)
    elif options.shell_completion:
        hydra.shell_completion(options.config_name, options.overrides)
    elif options.cfg is not None:
        _show(hydra, options)
    elif options.info is not None:
        hydra.show_info(options.info, options.config_name, options.overrides)
    else:
        return False
    return True


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Returns Hydra's options and the overrides, which may stand in any order.

    Raises:
        ConfigError: an option that does not exist, or options that exclude each other.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"effrec train: {message}.", fix="effrec train --help")

    parser.error = refuse  # type: ignore[method-assign]
    parser.set_defaults(config_name=CONFIG_NAME)
    options, rest = parser.parse_known_intermixed_args(argv)
    if rest:
        raise _unknown_option(parser, rest[0])
    if options.experimental_rerun is not None:
        raise ConfigError("A pickled job is not run: unpickling runs code.", fix="effrec resume RUN")
    modes = [options.multirun, options.cfg is not None, options.info is not None, options.shell_completion]
    if sum(modes) > 1:
        refuse("use only one of --multirun, --cfg, --info and --shell-completion")
    if options.resolve and options.cfg is None:
        refuse("--resolve goes with --cfg")
    return options


def _unknown_option(parser: argparse.ArgumentParser, word: str) -> ConfigError:
    name, _, value = word.partition("=")
    known = [option for action in parser._actions for option in action.option_strings]
    return ConfigError(
        f"There is no option called '{name}'.",
        nearest=nearest_option(word, known),
        fix=f"settings are written without dashes: {name.lstrip('-')}={value or 'VALUE'}",
    )


def _help(hydra: Hydra) -> str:
    groups = hydra.format_config_groups(lambda group: not group.startswith("hydra"))
    listed = "".join(f"  {line}\n" for line in groups.splitlines())
    return f"{_HEAD}{listed}{_FOOT}"


def _show(hydra: Hydra, options: argparse.Namespace) -> None:
    """Prints the composed settings, or the part that `--package` names."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # Hydra's own line about a part that is not there
            hydra.show_cfg(
                options.config_name,
                options.overrides,
                options.cfg,
                package=options.package,
                resolve=options.resolve,
            )
    except SystemExit:
        raise _no_such_part(hydra, options) from None


def _no_such_part(hydra: Hydra, options: argparse.Namespace) -> ConfigError:
    from hydra.types import RunMode

    composed = hydra.compose_config(options.config_name, options.overrides, RunMode.RUN)
    return ConfigError(
        f"There is no part called '{options.package}'.",
        where="--package",
        nearest=nearest_name(options.package, map(str, composed)),
        fix="effrec train --cfg job",
    )


def _run(hydra: Hydra, options: argparse.Namespace) -> tuple[int, Exception | None]:
    """Runs a job or a sweep; returns the exit code, and what stopped a single job."""
    from hydra.types import RunMode

    from effrec_cli.jobs import Job
    from effrec_cli.sweep import sweep

    mode = _glance(hydra, options)
    if options.multirun or mode == RunMode.MULTIRUN:
        return sweep(hydra, options.config_name, options.overrides), None
    job = Job()
    hydra.run(options.config_name, job, [*options.overrides, "hydra.mode=RUN"])
    return 0, job.error


def _glance(hydra: Hydra, options: argparse.Namespace) -> Any:
    """Returns Hydra's mode; None where the settings do not compose, which whoever runs them will say.

    Raises:
        ConfigError: the settings name a folder that Hydra would make and no run go to.
    """
    from hydra.types import RunMode

    try:
        composed = hydra.compose_config(
            options.config_name, options.overrides, RunMode.MULTIRUN, validate_sweep_overrides=False
        )
    except Exception:
        return None
    refuse_hydras_folder(composed)
    return composed.hydra.mode
