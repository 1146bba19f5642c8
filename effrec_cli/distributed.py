"""The processes of one training run: joining them, and what they tell each other.

Nothing here is needed by a run of one process; a `World` of size 1 answers every call by itself.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from effrec_cli.env import resolve_device
from effrec_cli.errors import EnvironmentFault

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long ranks wait for each other: rank 0 may be evaluating. A rank that died is noticed at once."""

BUCKET_BYTES = 32 * 2**20
"""Gradients are summed in buckets of about this size."""


@dataclass
class World:
    """The processes that share a run's steps.

    Attributes:
        rank: this process.
        size: processes in all.
        device: where this process computes.
        host_group: the group for small messages between hosts, which never wait for a GPU.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    host_group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def sum_(self, tensors: list[Tensor]) -> None:
        """Replaces dense tensors on the device by their sums over ranks, in flat buckets."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            if len(bucket) == 1 and bucket[0].is_contiguous():
                dist.all_reduce(bucket[0])
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the ranks' tensors, all of one shape [n, ...], one after the other: [size n, ...]."""
        if self.size == 1:
            return tensor
        together = tensor.new_empty(self.size * len(tensor), *tensor.shape[1:])
        # PyTorch 2.13 has renamed it.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        gather(together, tensor.contiguous())
        return together

    def most(self, numbers: list[int]) -> list[int]:
        """Returns for each number the largest that any rank has."""
        if self.size == 1 or not numbers:
            return numbers
        found = torch.tensor(numbers)
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.host_group)
        return [int(number) for number in found.tolist()]

    def agree(self, flags: list[bool]) -> list[bool]:
        """Returns for each flag whether any rank has raised it; all ranks learn the same."""
        if self.size == 1:
            return flags
        votes = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.host_group)
        return [bool(vote) for vote in votes.tolist()]

    def union(self, names: Iterable[str]) -> list[str]:
        """Returns the names that any rank has, sorted."""
        mine = sorted(names)
        if self.size == 1:
            return mine
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, mine, group=self.host_group)
        return sorted(set().union(*gathered))

    def from_main(self, value: T) -> T:
        """Returns rank 0's value on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.host_group)
        return box[0]

    def spread_(self, tensors: Iterable[Tensor]) -> None:
        """Replaces tensors on the device by rank 0's."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def wait(self) -> None:
        """Waits until every rank is here."""
        if self.size > 1:
            dist.barrier(group=self.host_group)

    def leave(self) -> None:
        """Ends the connection to the other ranks, once all are here.

        Gloo's threads end with the last reference to a group. One that lived on might let go of a tensor
        while the interpreter shuts down, which aborts the process.
        """
        if self.size > 1:
            self.wait()
            self.host_group = None
            dist.destroy_process_group()


class Imagined(World):
    """The first of some ranks of which no other is there: all of them say what it says."""

    def sum_(self, tensors: list[Tensor]) -> None:
        """Leaves the tensors as they are."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the tensor [n, ...] once for each rank: [size n, ...]."""
        return tensor.repeat(self.size, *(1 for _ in tensor.shape[1:]))

    def most(self, numbers: list[int]) -> list[int]:
        """Returns the numbers."""
        return numbers

    def agree(self, flags: list[bool]) -> list[bool]:
        """Returns the flags."""
        return flags

    def union(self, names: Iterable[str]) -> list[str]:
        """Returns the names, sorted."""
        return sorted(names)

    def from_main(self, value: T) -> T:
        """Returns the value."""
        return value

    def spread_(self, tensors: Iterable[Tensor]) -> None:
        """Leaves the tensors as they are."""

    def wait(self) -> None:
        """Waits for nobody."""

    def leave(self) -> None:
        """Has nobody to leave."""


def is_one_of_many() -> bool:
    """Returns whether a launcher (torchrun, Slurm's srun or effrec's own) started this process as a rank."""
    return _rank_variables() is not None


def join(device: str = "auto") -> World:
    """Joins the other ranks where a launcher started this process as one of several.

    Args:
        device: `auto`, `cpu` or `cuda`; each rank of a machine takes a GPU of its own.

    Raises:
        EnvironmentFault: no such device, fewer GPUs than ranks, or the other ranks cannot be reached.
    """
    variables = _rank_variables()
    if variables is None:
        return World(device=resolve_device(device))
    # Its functions' defaults would keep the group for good if torch.compile's import came to it later.
    importlib.import_module("torch.distributed.nn.functional")
    os.environ.update(variables)
    chosen = _own_device(device, int(variables["LOCAL_RANK"]))
    on_gpu = chosen.type == "cuda"
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", timeout=TIMEOUT, device_id=chosen if on_gpu else None
        )
    except (RuntimeError, ValueError) as fault:
        address = f"{variables['MASTER_ADDR']}:{variables['MASTER_PORT']}"
        raise EnvironmentFault(f"The ranks cannot reach each other: {fault}", where=address) from fault
    host_group = dist.new_group(backend="gloo", timeout=TIMEOUT) if on_gpu else None
    return World(dist.get_rank(), dist.get_world_size(), chosen, host_group)


def _own_device(name: str, local_rank: int) -> torch.device:
    device = resolve_device(name)
    if device.type != "cuda":
        return device
    if local_rank >= torch.cuda.device_count():
        raise EnvironmentFault(
            f"There are {torch.cuda.device_count()} GPUs, too few for rank {local_rank} of this machine.",
            where="run.devices",
            fix=f"run.devices={torch.cuda.device_count()}, or run.device=cpu",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _rank_variables() -> dict[str, str] | None:
    """Returns torchrun's variables, also made from Slurm's; None for a process that is alone."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if all(name in os.environ for name in names):
        return {name: os.environ[name] for name in names}
    return _slurm_variables() if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 else None


def _slurm_variables() -> dict[str, str]:
    """Returns what torchrun would set, for a task that srun started.

    The step's own variables are read, since those of the job are also set in a batch script that is no rank.
    """
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    return {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": os.environ.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or _first_host(os.environ["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(20000 + job % 20000)),
    }


def _first_host(nodes: str) -> str:
    """Returns the first name in Slurm's list notation, such as `gpu03` of `gpu[03-05,9]`."""
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True)
        if listed.stdout.split():
            return listed.stdout.split()[0]
    except OSError:
        pass  # no scontrol on this machine: the notation is read here
    found = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    return (found[1] + (found[2] or "")) if found else nodes


def _buckets(tensors: list[Tensor]) -> Iterable[list[Tensor]]:
    """Yields the tensors in groups of one dtype, each of about BUCKET_BYTES or a single larger tensor."""
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        bucket: list[Tensor] = []
        filled = 0
        for tensor in (one for one in tensors if one.dtype == dtype):
            if bucket and filled + tensor.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, filled = [], 0
            bucket.append(tensor)
            filled += tensor.nbytes
        yield bucket
