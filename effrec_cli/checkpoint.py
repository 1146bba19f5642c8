"""Saves and loads everything a run needs to go on as if it had never stopped.

A checkpoint is a folder `checkpoints/000012/`: tensors in safetensors, the rest in JSON, and a manifest with
the digest of each file. It is written aside and takes its name in one rename, so that it is there whole or
not at all. The two newest stay: when the newest turns out to be damaged, the one before it is taken. Nothing
in it can run code when loaded, and nothing depends on the device or on the number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effrec_cli.durable import sync_folder, write_json, writing
from effrec_cli.errors import DataError
from effrec_cli.tensorfile import read_tensors, write_tensors

KEEP = 2
_MANIFEST = "manifest.json"
_STATE = "state.json"
_UNREADABLE = (OSError, ValueError, TypeError, LookupError)


@dataclass
class Checkpoint:
    """The state of a run between two steps.

    Attributes:
        model: the weights.
        best: the weights of the best validation; None where there is none, or where they are `model`.
        optimizers: the optimizers' tensors, named `<optimizer>.<parameter>.<entry>`.
        state: JSON-able rest: step, patience, accumulated cost ...
        method: tensors that the method keeps beside the model; most have none.
    """

    model: dict[str, Tensor]
    best: dict[str, Tensor] | None
    optimizers: dict[str, Tensor]
    state: dict[str, Any]
    method: dict[str, Tensor] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes a new checkpoint into `folder` and returns its path; older ones go once it is there and sound.

    Raises:
        EnvironmentFault: the disk is full, read-only or broken; earlier checkpoints are intact.
    """
    with writing(folder):
        folder.mkdir(exist_ok=True)
        _remove(folder.glob(".writing-*"))
        serial = max((int(path.name) for path in _numbered(folder)), default=0) + 1
        draft = folder / f".writing-{serial:06d}"
        try:
            draft.mkdir()
            _write_parts(draft, checkpoint)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)  # gives a full disk its space back
            raise
        final = folder / f"{serial:06d}"
        draft.replace(final)
        sync_folder(folder)
        _check(final, contents=False)
    _remove(_numbered(folder)[:-KEEP])
    return final


def load(folder: Path, say: Callable[[str], None] | None = None) -> Checkpoint | None:
    """Returns the newest sound checkpoint, or None where there is none.

    A damaged one is set aside under another name and the one before it is taken.

    Args:
        folder: where `save` wrote.
        say: told what was damaged and what is done about it; stderr by default.
    """
    say = say or _to_stderr
    found = list(reversed(_numbered(folder)))
    for path in found:
        try:
            return _read(path)
        except DataError as damage:
            say(f"checkpoint {path} is damaged ({damage.what}); falling back to the one before it")
            _set_aside(path)
    if found:
        say(f"no sound checkpoint is left in {folder}: starting over")
    return None


def any_sound(folder: Path) -> bool:
    """Returns whether `load` would find a checkpoint; nothing is set aside."""
    for path in _numbered(folder):
        with contextlib.suppress(DataError, *_UNREADABLE):
            _check(path, contents=True)
            return True
    return False


def method_state(folder: Path) -> dict[str, Any]:
    """Returns the method's `extra_state` in the newest checkpoint; empty where there is none.

    Tensors are neither read nor checked: this is for what stays the same from one checkpoint to the next.
    """
    for path in reversed(_numbered(folder)):
        with contextlib.suppress(*_UNREADABLE):
            if _digest(path / _STATE) == _manifest(path)[_STATE]:
                return dict(json.loads((path / _STATE).read_text())["method"])
    return {}


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns an optimizer's state as flat tensors and a JSON-able rest.

    Its groups' settings are left out: they come from the configuration.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for parameter, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            kind = tensors if isinstance(value, Tensor) else plain
            kind[f"{parameter}.{name}"] = value
    return tensors, plain


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]
) -> None:
    """Puts the state that `pack_optimizer` returned back, on the device of the parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain}.items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    own, groups = optimizer.param_groups, optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    optimizer.param_groups = own  # not copies of them: whoever sets learning rates knows these


def _write_parts(draft: Path, checkpoint: Checkpoint) -> None:
    parts = {
        "model": checkpoint.model,
        "best": checkpoint.best,
        "optimizers": checkpoint.optimizers,
        "method": checkpoint.method or None,
    }
    for name, tensors in parts.items():
        if tensors is not None:
            write_tensors(draft / f"{name}.safetensors", tensors)
    write_json(draft / _STATE, checkpoint.state)
    files = sorted(path for path in draft.iterdir() if path.is_file())
    write_json(draft / _MANIFEST, {path.name: _digest(path) for path in files})


def _read(path: Path) -> Checkpoint:
    """Returns the checkpoint at `path`, or raises DataError where a byte of it is not as it was written."""
    try:
        names = _check(path, contents=True)
        optional = {
            name: read_tensors(path / f"{name}.safetensors")[0]
            for name in ("best", "method")
            if f"{name}.safetensors" in names
        }
        return Checkpoint(
            model=read_tensors(path / "model.safetensors")[0],
            best=optional.get("best"),
            optimizers=read_tensors(path / "optimizers.safetensors")[0],
            state=json.loads((path / _STATE).read_text()),
            method=optional.get("method", {}),
        )
    except _UNREADABLE as fault:
        raise DataError(f"{type(fault).__name__}: {fault}") from fault


def _check(path: Path, *, contents: bool) -> set[str]:
    """Returns the names of a checkpoint's files, after comparing sizes and, with `contents`, digests.

    Raises:
        DataError: a file is not as the manifest says.
        OSError, ValueError: a file is missing, or the manifest is unreadable.
    """
    manifest = _manifest(path)
    if not isinstance(manifest, dict):
        raise DataError(f"{_MANIFEST} is no list of files")
    for name, entry in manifest.items():
        if (path / name).stat().st_size != entry[0]:
            raise DataError(f"{name} has the wrong size")
        if contents and _digest(path / name) != entry:
            raise DataError(f"{name} does not match its digest")
    return set(manifest)


def _manifest(path: Path) -> Any:
    return json.loads((path / _MANIFEST).read_text())


def _digest(path: Path) -> list[Any]:
    """Returns the size in bytes and the SHA-256 of a file."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _numbered(folder: Path) -> list[Path]:
    """Returns the checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that it neither counts nor takes the place of a sound one."""
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with writing(aside):
        path.rename(aside)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
