"""Settings from YAML and overrides to a checked `Config`, and back to YAML.

Hydra composes; `schema.check` decides what is valid; every error of either is a `ConfigError`. Hydra is
imported inside functions, so that what needs no composition stays quick.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effrec_cli import paths
from effrec_cli.errors import ConfigError
from effrec_cli.schema import Config, check
from effrec_cli.schema.protocols import monitor_of

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

CONFIG_NAME = "config"
_HERE = "."
"""`hydra.run.dir` in effrec's config: Hydra makes no folder."""


@dataclass(frozen=True)
class Folders:
    """Where YAML is looked for.

    Attributes:
        main: the folder of the primary config; None is effrec's own.
        extra: the user's folder (`--config-dir`), searched after it, as Hydra does.
    """

    main: str | None = None
    extra: str | None = None


def compose(overrides: list[str], config_dir: str | None = None) -> Config:
    """Returns the checked settings of `effrec train OVERRIDES`.

    Args:
        overrides: Hydra overrides, such as `method=pop` or `run.max_epochs=3`.
        config_dir: a folder of the user's own YAML groups.

    Raises:
        ConfigError: an override, a file or a value is wrong.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    with opened(Folders(extra=config_dir), overrides) as hydra:
        composed = hydra.compose_config(CONFIG_NAME, list(overrides), RunMode.RUN)
        HydraConfig.instance().set_config(composed)
        refuse_hydras_folder(composed)
        return checked(composed)


def refuse_hydras_folder(composed: DictConfig) -> None:
    """Raises where Hydra's own setting names a folder for a run: no run would go there.

    Raises:
        ConfigError: `hydra.run.dir` is not as effrec has it.
    """
    from omegaconf import OmegaConf

    run = OmegaConf.to_container(composed.hydra.run, resolve=False)
    named = run.get("dir") if isinstance(run, dict) else None
    if named != _HERE:
        raise ConfigError(
            "Hydra's folder is not where a run goes: runs make their own.",
            where=f"hydra.run.dir={named}",
            fix=f"run.dir={named}, or with -m: hydra.sweep.dir={named}",
        )


def checked(composed: DictConfig, source: str | None = None) -> Config:
    """Returns the dataclasses of a composed configuration, interpolations resolved.

    Raises:
        ConfigError: a value is missing, cannot be resolved, or is not valid.
    """
    return _finished(check.build(plain(composed), source))


def plain(composed: DictConfig) -> dict[str, Any]:
    """Returns the composed settings as dicts and lists, resolved, without Hydra's own section.

    Raises:
        ConfigError: an interpolation leads nowhere, or a mandatory value (`???`) is missing.
    """
    from omegaconf import OmegaConf

    from effrec_cli.hydra_errors import translated

    with translated():
        keys = [str(key) for key in composed if key != "hydra"]
        job = OmegaConf.masked_copy(composed, keys)
        found = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def resolved(config: Config) -> dict[str, Any]:
    """Returns the settings as plain dicts, lists and scalars, ready for JSON or YAML."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """Returns the settings as YAML that `from_yaml` reads back without loss."""
    import yaml

    settings = resolved(config)
    text: str = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) == settings:
        return text
    # PyYAML writes Unicode's own line ends bare and reads them as blanks; escaped they come back.
    escaped: str = yaml.safe_dump(settings, sort_keys=False)
    return escaped


def from_yaml(path: str | Path) -> Config:
    """Returns the settings kept in a run folder's `config.yaml`, checked as strictly as new ones.

    Raises:
        ConfigError: the file is not there, is not YAML, or holds what the schema does not know.
    """
    import yaml

    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the settings: {error.strerror}.", where=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("The settings are not valid YAML.", where=f"{path}: {error}") from error
    if not isinstance(raw, Mapping):
        raise ConfigError("The settings are not a mapping.", where=str(path))
    return _finished(check.build(raw, str(path)))


@contextmanager
def opened(folders: Folders, overrides: list[str]) -> Iterator[Hydra]:
    """Yields a Hydra over effrec's configs and the user's; what it raises inside becomes a ConfigError.

    Args:
        folders: where YAML is looked for.
        overrides: what the user typed, for the error text.
    """
    from hydra import version
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.hydra import Hydra
    from hydra.core.utils import env_override

    from effrec_cli.hydra_errors import translated

    with translated(overrides) as context, env_override({"HYDRA_FULL_ERROR": "1"}), warnings.catch_warnings():
        # Hydra only warns of a search path that is not there, and then cannot find what lies in it.
        warnings.filterwarnings("error", message="provider=.* is not available")
        version.setbase("1.3")
        context.loader = ConfigLoaderImpl(_search_path(folders))
        yield Hydra("train", context.loader)


def _search_path(folders: Folders) -> Any:
    """Returns Hydra's search path: its own configs, the main folder, the user's."""
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    main = folders.main or str(paths.conf_dir())
    search_path = create_config_search_path(main if main.startswith("pkg://") else _folder(main))
    if folders.extra is not None:
        extra = f"file://{_folder(folders.extra)}"
        search_path.prepend("command-line", extra, anchor=SearchPathQuery(provider="schema"))
    return search_path


def _folder(name: str) -> str:
    folder = Path(name).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError("There is no such folder of configs.", where=str(folder))
    return str(folder)


def _finished(config: Config) -> Config:
    """Makes `data_root` absolute, so that settings mean the same from any folder, and names the monitor."""
    config.evaluation.monitor = monitor_of(config)
    root = Path(config.data_root).expanduser() if config.data_root else paths.default_data_root()
    config.data_root = str(root.absolute())
    return config
