"""Suites that live in the source tree as scripts: `benchmarks/bench_NAME.py` with a function `cells()`.

`cells()` returns one dict for each measured setting: `cell`, its name; `shape`, a dict of what the work is;
and figures, each under its name and unit such as `seconds` or `peak_bytes`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from effrec_cli.bench.records import Record, make_record
from effrec_cli.errors import ConfigError
from effrec_cli.paths import PACKAGE

_SETTLED = ("suite", "cell", "shape", "parameters", "device")


def measure(name: str) -> Iterator[Record]:
    """Yields the records of the script of suite `name`.

    Raises:
        ConfigError: there is no such script, as outside a source tree.
    """
    for cell in _load(name).cells():
        figures = {key: float(value) for key, value in cell.items() if _is_figure(key, value)}
        parameters = cell.get("shape", cell.get("parameters", {}))
        units = {key: _unit(key) for key in figures}
        yield make_record(name, str(cell["cell"]), "effrec", parameters, [figures], units)


def _load(name: str) -> ModuleType:
    path = PACKAGE.parent / "benchmarks" / f"bench_{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(
            f"Suite '{name}' needs effrec's source tree.",
            where=str(path),
            fix="run it in a clone of the repository",
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_figure(key: str, value: Any) -> bool:
    return key not in _SETTLED and isinstance(value, int | float) and not isinstance(value, bool)


def _unit(key: str) -> str:
    """Returns the unit that a figure's name ends with."""
    endings = {"seconds": "s", "_s": "s", "bytes": "B", "_ms": "ms", "gib": "GiB", "mib": "MiB"}
    return next((unit for ending, unit in endings.items() if key.endswith(ending)), "")
