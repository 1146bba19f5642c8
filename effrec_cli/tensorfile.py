"""Named tensors in a safetensors file: written in one move, read without running code."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from effrec_cli.durable import sync_file, sync_folder, writing
from effrec_cli.errors import DataError

_KEY = "effrec"


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> None:
    """Puts tensors at `path` as safetensors, in one move.

    Names that share one tensor (tied weights) are stored once. The same tensors and meta give the same bytes:
    safetensors writes its metadata in no fixed order, so all of ours is one JSON key.

    Args:
        path: the file.
        tensors: by name; any device, any strides.
        meta: JSON-able facts to keep beside them.

    Raises:
        EnvironmentFault: the disk is full, read-only or broken; the file that was there is untouched.
    """
    packed, aliases = _pack(tensors)
    note = json.dumps({"meta": meta or {}, "aliases": aliases}, sort_keys=True)
    with writing(path), tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        _save(packed, draft, note)
        draft.chmod(0o644)  # the library leaves it to the owner alone
        sync_file(draft)
        draft.replace(path)
        sync_folder(path.parent)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors of a file, on the CPU, and the meta beside them.

    Raises:
        DataError: the file is missing or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            # A clone, since what safetensors returns is a window on the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as fault:
        raise DataError(f"Cannot read the tensors in {path}: {fault}", where=str(path)) from fault
    tensors |= {name: tensors[kept] for name, kept in note.get("aliases", {}).items()}
    return tensors, note.get("meta", {})


def is_whole(path: Path) -> bool:
    """Returns whether `path` is a tensor file of the length that its head promises; reads the head alone."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _save(packed: dict[str, Tensor], draft: Path, note: str) -> None:
    try:
        save_file(packed, draft, metadata={_KEY: note})
    except SafetensorError as fault:  # carries the system's error in its text alone
        found = re.search(r"os error (\d+)", str(fault))
        raise OSError(int(found[1]) if found else 0, str(fault)) from fault


def _pack(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns contiguous CPU tensors that share no memory, and other names of the same ones."""
    packed: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_name: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        kept = first_name.setdefault(_identity(tensor, name), name)
        if kept != name:
            aliases[name] = kept
            continue
        ready = tensor.detach().to("cpu").contiguous()
        owns_all = ready.untyped_storage().nbytes() == ready.nbytes
        packed[name] = ready if owns_all else ready.clone()
    return packed, aliases


def _identity(tensor: Tensor, name: str) -> tuple[Any, ...]:
    """Returns what two names of one tensor have in common; empty tensors share nothing."""
    if not tensor.numel():
        return (name,)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def move_to(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Returns copies of the tensors on `device`; changing the originals does not change them."""
    return {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}
