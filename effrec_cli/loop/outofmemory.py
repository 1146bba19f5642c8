"""Says what was asked for when memory runs out, how much there is, and which setting halves it."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from effrec_cli.errors import OutOfMemoryError
from effrec_cli.schema import Config
from effrec_cli.screen import size

if TYPE_CHECKING:
    from effrec_cli.methods.base import Method

_SIGNS = ("not enough memory", "can't allocate memory", "out of memory")
_ASKED = re.compile(r"allocate\s+((\d+) bytes|[\d.]+\s*[KMGT]?i?B)", re.IGNORECASE)


@contextmanager
def explained(method: Method, device: torch.device, *, validating: bool = False) -> Iterator[None]:
    """Turns running out of memory inside into OutOfMemoryError (exit 4) with the setting that helps.

    Args:
        method: the run's, which says what relieves it.
        device: where it computes.
        validating: whether it is validation that runs inside, whose memory other settings rule.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        if not _is_out_of_memory(fault):
            raise
        raise OutOfMemoryError(
            f"Out of memory while {'validating' if validating else method.doing}:"
            f" {_asked(fault)} was asked for, {_available(device)}.",
            where=str(device),
            fix=_validation_fix(method.config) if validating else "; or ".join(method.relief()),
        ) from fault


def _is_out_of_memory(fault: Exception) -> bool:
    if isinstance(fault, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(fault) for sign in _SIGNS)


def _asked(fault: Exception) -> str:
    """Returns how much memory could not be had, in words; PyTorch counts bare bytes on a CPU."""
    found = _ASKED.search(str(fault))
    if found is None:
        return "more than there is"
    return size(int(found[2])) if found[2] else found[1]


def _available(device: torch.device) -> str:
    """Returns how much memory the device has, in words."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{_gib(free)} of {_gib(total)} are free on {torch.cuda.get_device_name(device)}"
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        return f"this process may have {_gib(limit)} in all (ulimit -v)"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, AttributeError, TypeError):
        with open("/proc/meminfo") as file:  # noqa: PTH123
            kib = re.search(r"MemAvailable:\s+(\d+)", file.read())
        return f"{_gib(int(kib[1]) * 1024)} of {_gib(total)} are free"  # type: ignore[index]
    return f"this machine has {_gib(total)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _validation_fix(config: Config) -> str:
    rows = config.evaluation.block_rows
    return f"evaluation.block_rows={max(1, rows // 2) if rows else 32} scores fewer users at once"
