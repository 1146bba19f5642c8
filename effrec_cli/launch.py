"""Starts the ranks of a data-parallel run on this machine, through torchrun's Python API."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from effrec_cli import errors
from effrec_cli.env import resolve_device, usable_cores
from effrec_cli.errors import ConfigError, EffrecError, EnvironmentFault, Interrupted
from effrec_cli.parent import LAUNCHER

REPORTS = "EFFREC_RANK_REPORTS"
"""Environment variable with the folder where a failing rank leaves its error."""

FEW_RANKS = 4
"""Ranks that any CPU may have, to try a run of several on a small machine."""
RANKS_PER_CORE = 2
"""Ranks a core, at most, on a CPU: each is a process with torch of its own."""

_CUT_OFF = "cut off"

SHUTDOWN_S = 120
"""Seconds that ranks have to save themselves after a signal, before they are killed."""


def launch(folder: Path, devices: int, device: str = "auto", module: str = "effrec_cli.worker") -> None:
    """Runs `devices` ranks of the run in `folder` and returns when all have ended well.

    The folder's config.yaml is what they read. Nobody may hold the folder's lock: rank 0 takes it.

    Args:
        folder: the run's folder.
        devices: how many ranks.
        device: `auto`, `cpu` or `cuda`.
        module: what a rank runs, as `python -m MODULE FOLDER DEVICE`.

    Raises:
        ConfigError: there are too few cores for so many ranks on a CPU.
        EffrecError: the error of the rank that failed first, with its exit code; `Interrupted` when the
            ranks were told to stop and have saved themselves.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    _refuse_too_many(devices, device)
    arguments = ["-m", module, str(folder), device]
    with tempfile.TemporaryDirectory(prefix="effrec-ranks-") as reports, _environment(devices, reports):
        try:
            with _own_signals():
                elastic_launch(_settings(devices), sys.executable)(*arguments)
        except ChildFailedError as failed:
            codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
            raise first_error(Path(reports), codes) from None
        except SignalException as stopped:
            raise _interruption(Path(reports), stopped.sigval.name, folder) from None


def report(error: BaseException, rank: int) -> None:
    """Leaves a rank's error where the launching process finds it; does nothing without one."""
    folder = os.environ.get(REPORTS)
    if not folder:
        return
    content: dict[str, Any] = {"rank": rank, "kind": _CUT_OFF if _is_cut_off(error) else type(error).__name__}
    if isinstance(error, EffrecError):
        content["words"] = {name: getattr(error, name) for name in ("what", "where", "nearest", "fix")}
    else:
        content["words"] = {"what": f"{type(error).__name__} on rank {rank}: {error}"}
    content["traceback"] = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        draft = Path(folder) / f"draft-{rank}"
        draft.write_text(json.dumps(content))
        draft.rename(Path(folder) / f"rank-{rank}.json")


def first_error(reports: Path, exit_codes: dict[int, int]) -> EffrecError:
    """Returns the error that ended the ranks, with the rank's own traceback as a note.

    A rank that fails makes its peers fail too, by cutting them off. So a fault of effrec's own counts before
    an interruption, that before a bug, that before a rank which died without a word, and the earliest of
    equals first; having been cut off explains nothing.

    Args:
        reports: the folder that `report` wrote to.
        exit_codes: how the ranks that failed ended; negative is a signal.
    """
    found = _read_reports(reports)
    telling = sorted((one for one in found if one["kind"] != _CUT_OFF), key=_order)
    silent = {rank: code for rank, code in exit_codes.items() if rank not in {one["rank"] for one in found}}
    if telling:
        return _rebuilt(telling[0])
    return _silent_death(silent) if silent or not found else _rebuilt(found[0])


def _interruption(reports: Path, name: str, folder: Path) -> EffrecError:
    """Returns what the ranks said when a signal stopped them, or that they had no time to say anything."""
    said = [one for one in _read_reports(reports) if _kind(one) is Interrupted]
    if said:
        return _rebuilt(said[0])
    return Interrupted(f"Stopped by {name}; the last checkpoint is intact.", fix=f"effrec resume {folder}")


def _read_reports(reports: Path) -> list[dict[str, Any]]:
    """Returns what ranks have reported, the earliest first."""
    paths = sorted(reports.glob("rank-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in paths]


def _is_cut_off(error: BaseException) -> bool:
    """Returns whether a rank failed only because it could not reach another."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo/", "NCCL error"))
    )


def _order(content: dict[str, Any]) -> int:
    kind = _kind(content)
    if kind is EffrecError:
        return 2
    return 1 if kind is Interrupted else 0


def _kind(content: dict[str, Any]) -> type[EffrecError]:
    """Returns the class of a reported error; `EffrecError` for any that is not of effrec's own."""
    kind = getattr(errors, content["kind"], None)
    return kind if isinstance(kind, type) and issubclass(kind, EffrecError) else EffrecError


def _rebuilt(content: dict[str, Any]) -> EffrecError:
    error = _kind(content)(**content["words"])
    error.add_note(content["traceback"])
    return error


def _silent_death(exit_codes: dict[int, int]) -> EffrecError:
    """Returns the error for a rank that ended without a word, as one that was killed does."""
    # The launcher ends the peers of a dead rank with SIGTERM, so any other end tells more.
    rank, code = max(exit_codes.items(), key=lambda end: end[1] != -signal.SIGTERM, default=(0, 0))
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return EnvironmentFault(
        f"Rank {rank} {how} and left no message.",
        fix="the system log may tell (out of memory?); `effrec resume` goes on from the last checkpoint",
    )


def _refuse_too_many(devices: int, device: str) -> None:
    if resolve_device(device).type == "cpu":
        _refuse_too_many_for_cores(devices)
    elif devices > torch.cuda.device_count():
        raise EnvironmentFault(
            f"{devices} devices are asked for and there are {torch.cuda.device_count()} GPUs.",
            where=f"run.devices={devices}",
            fix=f"run.devices={torch.cuda.device_count()}, or run.device=cpu",
        )


def _refuse_too_many_for_cores(devices: int) -> None:
    cores = usable_cores()
    most = max(FEW_RANKS, RANKS_PER_CORE * cores)
    if devices > most:
        raise ConfigError(
            f"{devices} ranks are asked for and there are {cores} CPU cores: {most} ranks at most.",
            where=f"run.devices={devices}",
            fix=f"run.devices={max(1, cores)}, a rank a core",
        )


def _settings(devices: int) -> Any:
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )


@contextmanager
def _environment(devices: int, reports: str) -> Iterator[None]:
    """Sets what the ranks inherit, and keeps torchrun's own log off the screen."""
    threads = max(1, (os.cpu_count() or 1) // devices)
    wanted = {
        REPORTS: reports,
        LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S),
    }
    before = {name: os.environ.get(name) for name in wanted}
    logger = logging.getLogger("torch.distributed.elastic")
    level = logger.level
    os.environ.update(wanted)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back the signal handlers that torchrun replaces and leaves replaced."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
