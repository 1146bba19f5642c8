"""What this machine has and lacks, as a list of findings; works where torch does not import."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effrec_cli import __version__, paths
from effrec_cli.screen import size

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OK, ABSENT, WARN, BROKEN = "ok", "absent", "warn", "broken"

LITTLE_DISK_BYTES = 2 << 30
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what was looked at.
        value: what was found.
        state: `ok`, `absent` (optional, and not there), `warn` (something will not work as it should) or
            `broken` (nothing will).
        fix: what mends it.
    """

    name: str
    value: str
    state: str = OK
    fix: str | None = None


def findings(data_root: Path | None = None) -> list[Finding]:
    """Returns everything found on this machine.

    Args:
        data_root: where data live; None takes the default.
    """
    root = data_root or paths.default_data_root()
    return [
        Finding("effrec", f"{__version__} at {paths.PACKAGE}"),
        Finding("python", f"{platform.python_version()} at {sys.executable}"),
        Finding("machine", f"{platform.platform()}, {os.cpu_count()} cores, {_memory()}"),
        *_packages(),
        *_torch(),
        *_gpus(),
        *_shadows(),
        *_disk("data_root", root),
        *_disk("outputs", Path("outputs").absolute()),
        *_caches(root),
    ]


def _memory() -> str:
    """Returns the machine's memory, where the system tells."""
    try:
        return f"{size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} memory"
    except (AttributeError, ValueError, OSError):
        return "memory unknown"


def requirements() -> list[Requirement]:
    """Returns what effrec needs, extras included, as its source tree or else its wheel says."""
    from packaging.requirements import Requirement

    project = paths.PACKAGE.parent / "pyproject.toml"
    if not project.is_file():
        return [Requirement(text) for text in metadata.requires("effrec") or []]
    import tomllib

    stated = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = stated.get("optional-dependencies", {})
    marked = (_with_extra(text, extra) for extra, texts in extras.items() for text in texts)
    return [Requirement(text) for text in (*stated["dependencies"], *marked)]


def _with_extra(text: str, extra: str) -> str:
    requirement, _, marker = text.partition(";")
    condition = f"extra == '{extra}'"
    return f"{requirement}; ({marker.strip()}) and {condition}" if marker else f"{requirement}; {condition}"


def _packages() -> Iterator[Finding]:
    for each in requirements():
        extra = re.search(r"""extra == ['"](\w+)['"]""", str(each.marker or ""))
        wanted = each.marker is None or each.marker.evaluate({"extra": extra.group(1) if extra else ""})
        if each.name != "effrec" and wanted and (extra is None or extra.group(1) not in ("all", "dev")):
            yield _package(each, extra.group(1) if extra else None)


def _package(wanted: Requirement, extra: str | None) -> Finding:
    """Returns whether a package is there, in a version that effrec is known to work with."""
    install = f"pip install 'effrec[{extra}]'" if extra else f"pip install '{wanted.name}{wanted.specifier}'"
    name = f"{wanted.name} ({extra})" if extra else wanted.name
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", ABSENT if extra else BROKEN, install)
    if not wanted.specifier.contains(version, prereleases=True):
        return Finding(name, f"{version}, outside {wanted.specifier}", WARN, install)
    return Finding(name, version)


def _torch() -> Iterator[Finding]:
    torch = _imported("torch")
    if isinstance(torch, Exception):
        value = f"does not import: {type(torch).__name__}: {torch}"
        yield Finding(
            "torch import", value, BROKEN, "install torch from https://pytorch.org for this machine"
        )
        return
    yield Finding("torch build", f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only")
    triton = _imported("triton")
    if isinstance(triton, Exception):
        linux = sys.platform == "linux"
        fix = "pip install triton" if linux else "Triton is for Linux; the PyTorch kernels compute the same"
        yield Finding("triton import", f"does not import: {triton}", WARN if linux else OK, fix)


def _imported(name: str) -> Any:
    """Returns the module, or the exception that its import ends in (a broken library raises OSError)."""
    try:
        return __import__(name)
    except Exception as error:
        return error


def _gpus() -> Iterator[Finding]:
    torch, driver = _imported("torch"), _driver()
    found = not isinstance(torch, Exception) and torch.cuda.is_available()
    if driver or found:
        yield Finding("NVIDIA driver", driver or "unknown")
    if driver and not found:
        fix = "install a torch built for CUDA, and look at CUDA_VISIBLE_DEVICES"
        yield Finding("GPU", "there is a driver, but torch sees no GPU", WARN, fix)
    elif not found:
        yield Finding("GPU", "none: runs use the CPU")
    else:
        yield from (_gpu(torch, index) for index in range(torch.cuda.device_count()))


def _gpu(torch: Any, index: int) -> Finding:
    about = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    value = f"{about.name}, {size(total)} ({size(free)} free), compute capability {about.major}.{about.minor}"
    return Finding(f"GPU {index}", value)


def _driver() -> str | None:
    """Returns the NVIDIA driver's version: by NVML where its package is there, else as Linux tells it."""
    nvml = _imported("pynvml")
    if not isinstance(nvml, Exception):
        try:
            nvml.nvmlInit()
            return str(nvml.nvmlSystemGetDriverVersion())
        except nvml.NVMLError:
            return None
    if not _DRIVER_FILE.is_file():
        return None
    version = re.search(r"\s(\d+\.\d[\d.]*)\s", _DRIVER_FILE.read_text())
    return version.group(1) if version else "unknown"


def _shadows() -> Iterator[Finding]:
    """Yields a warning for a package `kernels` that is not Hugging Face's: `transformers` would import it."""
    spec = PathFinder.find_spec("kernels", sys.path)
    if spec is None or spec.origin is None:
        return
    files = metadata.packages_distributions().get("kernels", [])
    if "kernels" not in files:
        fix = "move or rename it: `import transformers` looks for Hugging Face's package of this name"
        yield Finding("package `kernels`", f"shadowed by {spec.origin}", WARN, fix)


def _disk(name: str, folder: Path) -> Iterator[Finding]:
    """Yields the free space where `folder` is or would be made, and whether it may be written."""
    existing = existing_parent(folder)
    free = shutil.disk_usage(existing).free
    value = f"{folder}: {size(free)} free"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield Finding(name, f"{folder}: cannot be written", BROKEN, _ELSEWHERE[name])
    elif free < LITTLE_DISK_BYTES:
        yield Finding(name, value, WARN, _ELSEWHERE[name])
    else:
        yield Finding(name, value)


_ELSEWHERE = {
    "data_root": "set EFFREC_DATA (or data_root=) to a folder with room",
    "outputs": "work in another folder, or set run.dir=",
}


def _caches(root: Path) -> Iterator[Finding]:
    for part in ("prepared", "raw"):
        folders = [each for each in sorted((root / part).glob("*")) if each.is_dir()]
        for folder in folders:
            yield Finding(f"{part} data", f"{folder.name}: {size(folder_bytes(folder))}")


def existing_parent(folder: Path) -> Path:
    """Returns the folder itself, or the closest one above it that exists."""
    absolute = folder.absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())


def folder_bytes(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
