"""Features that are being made: what is on the disk of them, and how far that goes."""

from __future__ import annotations

import math
import shutil
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.atomic import disk_faults, make_folder, publish, read_json, write_json
from effrec_cli.data.cache import BadCache, open_array, write_manifest
from effrec_cli.data.features.arrays import ArrayFile
from effrec_cli.data.features.codes import STORED, Coded
from effrec_cli.data.features.spec import FeatureSpec
from effrec_cli.data.features.store import CHECKS, CONSTANT, ROWS, SCALES, check_sum
from effrec_cli.data.features.versions import versions
from effrec_cli.data.fetch import check_free_space

_PROGRESS = "progress.json"
_SCALED = ("int8", "fp8")


@dataclass
class Progress:
    """How far features are made.

    Attributes:
        facts: what they are made of.
        done: items that are on the disk, in the order in which they are made.
        seconds: that it took.
        worst: the largest error of each tap so far.
        total: the sum of each tap's errors so far.
    """

    facts: dict[str, Any]
    done: int = 0
    seconds: float = 0.0
    worst: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)

    def add(self, error: NDArray[np.float32]) -> None:
        """Counts the errors [n, T'] of n more items."""
        before = np.array(self.worst or np.zeros(error.shape[1]), np.float64)
        self.worst = np.maximum(before, error.max(0, initial=0)).tolist()
        self.total = (np.array(self.total or 0.0) + error.sum(0, dtype=np.float64)).tolist()
        self.done += len(error)


class Draft:
    """The folder beside the final one, in which features are made.

    Callers hold a lock. What a killed process left there is gone on with, as far as it had marked it. Marks
    are made after the data are on the disk: more may be there than is marked, and never less.

    Args:
        spec: what is made.
        target: the final folder.
        constant: float32 [C, D], the taps that all items have in common, which stand first.
    """

    def __init__(self, spec: FeatureSpec, target: Path, constant: NDArray[np.float32]) -> None:
        self.spec, self.target = spec, target
        self.folder = aside(target)
        self.constant = constant
        shape = (spec.num_items, len(spec.taps) - len(constant), spec.dim)
        self._layout: dict[str, tuple[str, tuple[int, ...]]] = {
            ROWS: (STORED[spec.dtype], shape),
            CHECKS: ("<u4", shape[:1]),
            **({SCALES: ("<f4", shape[:2])} if spec.dtype in _SCALED else {}),
        }
        found = self._resumed()
        self.progress, self._files = found or self._begun()

    def _resumed(self) -> tuple[Progress, dict[str, ArrayFile]] | None:
        """Returns what is there already, or None where it cannot be gone on with."""
        try:
            progress = Progress(**(read_json(self.folder / _PROGRESS) or {}))
            constant = open_array(self.folder, CONSTANT)
            if progress.facts != self.spec.facts() or not np.array_equal(constant, self.constant):
                return None
            files = {name: ArrayFile(self._path(name), *each) for name, each in self._layout.items()}
        except (BadCache, OSError, ValueError, TypeError):
            return None
        return progress, files

    def _begun(self) -> tuple[Progress, dict[str, ArrayFile]]:
        """Returns an empty draft.

        Raises:
            EnvironmentFault: the disk has too little space.
        """
        drop(self.target)
        make_folder(self.folder)
        sizes = (np.dtype(kind).itemsize * math.prod(shape) for kind, shape in self._layout.values())
        try:
            check_free_space(self.folder, sum(sizes))
            with disk_faults(self.folder):
                np.save(self._path(CONSTANT), self.constant, allow_pickle=False)
            files = {name: ArrayFile.made(self._path(name), *each) for name, each in self._layout.items()}
        except BaseException:
            drop(self.target)  # gives back what space was set aside
            raise
        return Progress(self.spec.facts()), files

    def write(self, items: NDArray[np.int64], made: Coded) -> None:
        """Writes what was made of items [n]."""
        codes = made.codes.numpy()
        scales = None if made.scales is None else made.scales.numpy()
        self._files[ROWS].write(items, codes)
        if scales is not None:
            self._files[SCALES].write(items, scales)
        sums = [check_sum(row, None if scales is None else scales[at]) for at, row in enumerate(codes)]
        self._files[CHECKS].write(items, np.array(sums, "<u4"))
        self.progress.add(made.error.numpy())

    def mark(self, seconds: float) -> None:
        """Makes sure of all that was written, and notes how far it goes and how long it took in all."""
        for each in self._files.values():
            each.flush()
        self.progress.seconds = seconds
        write_json(self.folder / _PROGRESS, asdict(self.progress))

    def finish(self, seconds: float) -> None:
        """Puts the finished features in their place."""
        self.mark(seconds)
        self.close()
        names = (*self._layout, CONSTANT)
        sizes = {name: self._path(name).stat().st_size for name in names}
        manifest = {
            "facts": self.progress.facts,
            "constant_taps": list(range(len(self.constant))),
            "constant_check": zlib.crc32(np.ascontiguousarray(self.constant).tobytes()),
            "bytes": sizes,
            "build": {"seconds": seconds, "items": self.spec.num_items, "bytes": sum(sizes.values())},
            "error": self._errors(),
            "versions": versions(),
        }
        write_manifest(self.folder, manifest)
        with disk_faults(self.target):
            publish(self.folder, self.target)
            (self.target / _PROGRESS).unlink()

    def _errors(self) -> dict[str, dict[str, float]]:
        taps = self.spec.taps[len(self.constant) :]
        return {
            str(tap): {"max": worst, "mean": total / self.progress.done}
            for tap, worst, total in zip(taps, self.progress.worst, self.progress.total, strict=True)
        }

    def close(self) -> None:
        """Closes the files; what was marked can be gone on with."""
        for each in self._files.values():
            each.close()
        self._files = {}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def aside(target: Path) -> Path:
    """Returns where the features of `target` are made."""
    return target.with_name(f".{target.name}.building")


def drop(target: Path) -> None:
    """Removes what an earlier process had begun to make for `target`."""
    shutil.rmtree(aside(target), ignore_errors=True)


def begun_constant(target: Path) -> NDArray[np.float32] | None:
    """Returns the constant taps of what an earlier process had begun to make, or None."""
    try:
        return open_array(aside(target), CONSTANT)
    except BadCache:
        return None
