"""Whole runs, each in a folder `NAME-SEED` of its own, that may be broken off and called again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, words: list[str], folder: Path) -> int:
    """Runs `effrec train` with these words on one thread, unless it is finished; returns its exit code.

    Args:
        name: of the run, `NAME-SEED`.
        words: overrides, those that say where and whether to go on among them.
        folder: of the run.
    """
    if (folder / "result.json").is_file():
        return 0
    print(f"{name}: effrec train {' '.join(words)}", flush=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, "-m", "effrec_cli", "train", *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-4:])
        print(f"{name}: ended with code {done.returncode}\n{said}", flush=True)
    return done.returncode


def finished(folder: Path, names: list[str]) -> dict[str, list[Path]]:
    """Returns the folders of finished runs by name, in the order of `names`, seed by seed.

    Raises:
        SystemExit: no run is finished.
    """
    found: dict[str, list[Path]] = {name: [] for name in names}
    for path in sorted(folder.glob("*-*/result.json")):
        found.get(path.parent.name.rpartition("-")[0], []).append(path.parent)
    if not any(found.values()):
        raise SystemExit(f"No finished run in {folder}.")
    return {name: seeds for name, seeds in found.items() if seeds}
