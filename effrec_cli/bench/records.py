"""What a benchmark leaves: one JSON file for each suite and device, one record for each cell and peer.

A record carries `suite`, `cell`, `peer`, `parameters`, `figures` (each with its unit, median, smallest and
largest value and number of repeats), `error` where the peer failed, and where and when: `device`,
`device_kind`, `threads`, `versions`, `commit`, `date`.
"""

from __future__ import annotations

import json
import re
import statistics
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from effrec_cli import env
from effrec_cli.durable import Advice, write_json, writing
from effrec_cli.errors import ConfigError

SCHEMA_VERSION = 1

_ADVICE = Advice(
    full="free some space on that disk, or keep the records on another: --out FOLDER",
    closed="name a folder you may write to: --out FOLDER",
    other="name a folder that can be written to: --out FOLDER",
)

Record = dict[str, Any]


def make_record(
    suite: str,
    cell: str,
    peer: str,
    parameters: dict[str, Any],
    samples: list[dict[str, float]],
    units: dict[str, str],
    error: str | None = None,
) -> Record:
    """Returns the record of a peer's samples, without where it ran; see `stamped`."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    figures = {
        name: _figure([sample[name] for sample in samples if name in sample], units.get(name, ""))
        for name in names
    }
    record = {"suite": suite, "cell": cell, "peer": peer, "parameters": parameters, "figures": figures}
    return record if error is None else {**record, "error": error}


def check_folder(folder: Path) -> None:
    """Makes the folder for records, and sees that it can be written, before anything is measured.

    Raises:
        EnvironmentFault: it cannot.
    """
    with writing(folder, _ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


def stamped(record: Record, device: torch.device) -> Record:
    """Returns the record with the device, the versions, the commit and the time."""
    machine = env.describe(device)
    versions = {name: machine["versions"].get(name) for name in ("python", "effrec", "torch", "triton")}
    return {
        **record,
        "device": machine["device"],
        "device_kind": machine["device_kind"],
        "threads": machine["cpu_threads"],
        "versions": versions,
        "commit": machine["commit"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def keep(folder: Path, record: Record) -> Path:
    """Puts a record into its file, in place of an older one of the same cell and peer; returns the file.

    Raises:
        EnvironmentFault: the file cannot be written; the records before are untouched.
    """
    with writing(folder, _ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record['suite']}-{_slug(record['device'])}.json"
    others = [old for old in (read(path) if path.exists() else []) if _key(old) != _key(record)]
    write_json(path, {"schema_version": SCHEMA_VERSION, "records": [*others, record]}, _ADVICE)
    return path


def keep_runs(folder: Path, record: Record) -> Path:
    """Keeps a record made on a CPU of finished runs, by its `runs`, at the commits that these ran at.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    commits = ", ".join(dict.fromkeys(run["commit"] for run in record["runs"]))
    return keep(folder, stamped(record, torch.device("cpu")) | {"commit": commits})


def read(path: Path) -> list[Record]:
    """Returns the records of a file.

    Raises:
        ConfigError: it is no such file, or a newer effrec wrote it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, records = int(content["schema_version"]), list(content["records"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ConfigError(
            f"'{path}' holds no benchmark records: {problem}", fix=f"remove {path}"
        ) from problem
    if version > SCHEMA_VERSION:
        raise ConfigError(f"'{path}' was written by a newer effrec.", fix="pip install --upgrade effrec")
    return records


def _key(record: Record) -> tuple[str, str]:
    return record["cell"], record["peer"]


def _figure(values: list[float], unit: str) -> dict[str, Any]:
    return {
        "unit": unit,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "repeats": len(values),
    }


def _slug(device: str) -> str:
    """Returns a device's name as a file name, such as `nvidia-h200`."""
    plain = re.sub(r"\(.*?\)|@.*|\bcpu\b|\bprocessor\b", " ", device.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "unknown"
