"""What a run ran on: versions, device, driver, commit. No names of hosts or people."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import effrec_cli
from effrec_cli.errors import EnvironmentFault
from effrec_cli.paths import PACKAGE

_PACKAGES = ("torch", "triton", "numpy", "hydra-core", "omegaconf", "safetensors", "rich")


def resolve_device(name: str) -> torch.device:
    """Returns the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        EnvironmentFault: a GPU is asked for and there is none that PyTorch can use.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        why = "this PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch finds no GPU"
        raise EnvironmentFault(
            f"There is no CUDA device: {why}.",
            where="run.device=cuda",
            fix="run.device=auto, or `effrec doctor`",
        )
    return torch.device(name)


def usable_cores() -> int:
    """Returns how many CPU cores this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe(device: torch.device | None = None) -> dict[str, Any]:
    """Returns what env.json and result.json say about where a run ran.

    Args:
        device: the run's device; None is what `auto` means here.
    """
    device = device or resolve_device("auto")
    return {
        "versions": versions(),
        "commit": commit(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": device_name(device),
        "device_kind": device.type,
        "driver": driver() if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cpu_threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def versions() -> dict[str, str | None]:
    """Returns the versions of Python, effrec and what it stands on; None for what is not installed."""
    found: dict[str, str | None] = {
        "python": sys.version.split()[0],
        "effrec": effrec_cli.__version__,
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str:
    """Returns the commit of the source tree effrec runs from (`+` when changed since), else its version."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return effrec_cli.__version__
    head = _git(root, "rev-parse", "HEAD")
    if not head:
        return effrec_cli.__version__
    return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def device_name(device: torch.device) -> str:
    """Returns the name of the GPU, or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"model name\s*:\s*(.+)", _text(Path("/proc/cpuinfo")))
    return found[1].strip() if found else platform.processor() or platform.machine()


def device_words(device: torch.device, count: int = 1) -> str:
    """Returns a device for a sentence, such as `cpu (NAME, 2 threads)` or `2 x cuda (NAME)`."""
    threads = torch.get_num_threads()
    cores = f", {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else ""
    return f"{f'{count} x ' if count > 1 else ''}{device.type} ({device_name(device)}{cores})"


def driver() -> str | None:
    """Returns the version of the NVIDIA driver, or None where it does not say."""
    found = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", _text(Path("/proc/driver/nvidia/version")))
    return found[1] if found else None


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
