"""A sweep: every job in a folder of its own, failures collected, one table at the end."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from effrec_cli.compose import checked
from effrec_cli.errors import ConfigError
from effrec_cli.jobprocess import KEYBOARD
from effrec_cli.jobs import SweepJob, SweepStopped
from effrec_cli.outcomes import DONE, Outcome
from effrec_cli.screen import table

OUTCOMES = "jobs"
_SECTIONS = ("method", "model", "dataset", "optimizer", "run", "experiment")
"""Config groups, whose choice decides which keys there are."""

_SUBDIR = "${hydra.job.num}-${dataset.name}-${method.name}-seed${seed}"


def sweep(hydra: Hydra, config_name: str, overrides: list[str]) -> int:
    """Runs every job of a sweep, prints the table, and returns the first failure's exit code, or 0.

    All jobs are composed and checked before the first starts, as far as the sweeper knows them by then.

    Args:
        hydra: opened on the configs.
        config_name: the primary config.
        overrides: what the user typed.

    Raises:
        ConfigError: a job's settings are wrong, or the jobs would share one folder.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "A sweep starts its own processes; it cannot be started once by every rank of torchrun.",
            where="-m",
            fix="without torchrun: effrec train -m run.devices=N ...",
        )
    hydra.config_loader = CheckedLoader(hydra.config_loader.get_search_path())
    typed = [*overrides, "hydra.mode=MULTIRUN"]
    master = hydra.compose_config(config_name, list(typed), RunMode.MULTIRUN)
    _refuse_shared_folder(master, overrides)
    folder, placement = _placement(master)
    stopped = 0
    try:
        hydra.multirun(config_name, SweepJob(folder / OUTCOMES), [*typed, *placement])
    except SweepStopped as stop:
        stopped = stop.exit_code
    except KeyboardInterrupt:
        stopped = KEYBOARD
    finally:
        _remove_unused(folder)
    return _conclude(folder, stopped)


class CheckedLoader(ConfigLoaderImpl):
    """Composes a sweep as its first job, and checks each job as the sweeper composes it, before any runs."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Returns the composed settings.

        What is not swept, Hydra applies to the sweep as a whole, with the default choice of each group; it
        would refuse a key that only the swept choices have: `-m method=itemknn,ease method.last=5`. Here a
        sweep as a whole has the first of its swept choices.
        """
        options = {"from_shell": from_shell, "validate_sweep_overrides": validate_sweep_overrides}
        if run_mode != RunMode.MULTIRUN:
            return super().load_configuration(config_name, overrides, run_mode, **options)
        typed_for = {self._first_choice(line): line for line in overrides}
        composed: DictConfig = super().load_configuration(config_name, list(typed_for), run_mode, **options)
        applied = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
        assert isinstance(applied, list)
        with read_write(composed.hydra.overrides):  # what the sweeper will vary
            composed.hydra.overrides.task = [typed_for[line] for line in applied]
        return composed

    def _first_choice(self, line: str) -> str:
        """Returns an override with the first of the choices that it sweeps a group over."""
        (override,) = OverridesParser.create(self).parse_overrides([line])
        if override.key_or_group not in _SECTIONS or not override.is_sweep_override():
            return line
        return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Returns the composed settings of one job.

        Raises:
            ConfigError: names the job.
        """
        composed: DictConfig = super().load_sweep_config(master_config, sweep_overrides)
        try:
            checked(composed)
        except ConfigError as error:
            if not isinstance(error.__cause__, OmegaConfBaseException):
                error.where = f"{error.where}, in the job {' '.join(sweep_overrides)}"
                raise
            # Only the running job can resolve such as ${hydra:job.num}; it checks again.
        return composed


def _refuse_shared_folder(master: DictConfig, overrides: list[str]) -> None:
    """Refuses a `run.dir` that is the same for all jobs."""
    named = _unresolved(master.run).get("dir")
    swept = any(each.lstrip("+").startswith("run.dir=") and "," in each for each in overrides)
    if named is not None and "${" not in str(named) and not swept:
        raise ConfigError(
            "The jobs of a sweep cannot share one run folder.",
            where=f"run.dir={named}",
            fix=f"hydra.sweep.dir={named} gives each job a folder inside; or 'run.dir={named}-${{seed}}'",
        )


def _placement(master: DictConfig) -> tuple[Path, list[str]]:
    """Makes the sweep's folder; returns it and the overrides that put the jobs there, never into `.`."""
    named = str(master.hydra.sweep.dir)
    folder = _new_folder() if named == "." else Path(named)
    shutil.rmtree(folder / OUTCOMES, ignore_errors=True)
    (folder / OUTCOMES).mkdir(parents=True)
    overrides = [f"hydra.sweep.dir={_quoted(str(folder))}"]
    if _unresolved(master.hydra.sweep)["subdir"] == ".":
        overrides.append(f"hydra.sweep.subdir={_quoted(_SUBDIR)}")
    return folder.absolute(), overrides


def _new_folder() -> Path:
    """Makes and returns a folder named by the time that no other sweep has."""
    stamp = f"outputs/sweeps/{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    for name in [stamp, *(f"{stamp}_{number}" for number in range(2, 1000))]:
        try:
            Path(name).mkdir(parents=True)
        except FileExistsError:
            continue
        return Path(name)
    raise ConfigError("A thousand sweeps began in this second.", where=stamp, fix="hydra.sweep.dir=FOLDER")


def _unresolved(node: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(node, resolve=False)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _remove_unused(folder: Path) -> None:
    """Takes the sweep's folder away when no job came to run in it."""
    if not any((folder / OUTCOMES).iterdir()):
        (folder / OUTCOMES).rmdir()
        (folder / "multirun.yaml").unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _conclude(folder: Path, stopped: int) -> int:
    outcomes = Outcome.read_all(folder / OUTCOMES)
    print(f"\n{outcomes_table(outcomes)}")
    done = [str(Path(outcome.folder).absolute()) for outcome in outcomes if outcome.status == DONE]
    if done:
        print(f"\nnext: effrec compare {_near(Path(os.path.commonpath(done)))}")
    return stopped or next((outcome.exit_code for outcome in outcomes if outcome.exit_code), 0)


def outcomes_table(outcomes: list[Outcome]) -> str:
    """Returns the table of a sweep's jobs: what each varied, how it ended, its score and folder."""
    common = set.intersection(*(set(each.overrides) for each in outcomes)) if len(outcomes) > 1 else set()
    metric = next((each.metric for each in outcomes if each.metric), "metric")
    rows = [
        (
            each.number,
            " ".join(text for text in each.overrides if text not in common) or "-",
            each.status if each.status == DONE else f"{each.status} ({each.exit_code})",
            each.valid,
            each.test,
            f"{each.seconds:.1f}",
            _near(Path(each.folder)) if each.error is None else f"{_near(Path(each.folder))}: {each.error}",
        )
        for each in outcomes
    ]
    return table(
        ("job", "settings", "status", f"valid {metric}", f"test {metric}", "seconds", "folder"), rows
    )


def _near(folder: Path) -> str:
    """Returns the folder as seen from here, where that is shorter."""
    return min(os.path.relpath(folder), str(folder), key=len)
