"""Runs a content encoder over chunks of items, on one rank or on all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.distributed import World
from effrec_cli.evaluation.blocks import on_device
from effrec_cli.methods.content.chunks import Chunk, Limits, plan
from effrec_cli.seeds import plant

Int64 = NDArray[np.int64]
Context = Callable[[], AbstractContextManager[Any]]

_HALF = (torch.bfloat16, torch.float16)


class Encoding:
    """An encoder and the ranks that share its work.

    Args:
        encoder: a module with `costs` int64 [V] (tokens of each item, on the host) and `dim`; called with
            item rows int64 [n] on its device and the longest's tokens it returns their vectors [n, dim].
        limits: of a chunk.
        world: the ranks.

    Attributes:
        encoded: items that went through the encoder on this rank so far, by `forward` and `again`: the first
            time for their vectors, and again for their gradients.
    """

    def __init__(self, encoder: Any, limits: Limits, world: World) -> None:
        self.encoder, self.limits, self.world = encoder, limits, world
        self.encoded = {"forward": 0, "again": 0}

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return cast(torch.device, next(self.encoder.parameters()).device)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.encoder.dim)

    def plan(self, rows: Int64, seed: int, *, together: bool = True, items: int | None = None) -> list[Chunk]:
        """Returns chunks for `rows`, over all ranks or for this one alone.

        Args:
            rows: to encode.
            seed: of the chunks' seeds.
            together: deal them among the ranks; every rank then plans the same.
            items: most items of a chunk, where the limits allow more.
        """
        limits = self.limits if items is None else Limits(self.limits.tokens, items)
        ranks = self.world.size if together else 1
        return plan(rows, self.encoder.costs, limits, seed=seed, ranks=ranks)

    def mine(self, chunks: list[Chunk]) -> list[Chunk]:
        """Returns the chunks that this rank encodes, of those that all plan."""
        return [chunk for chunk in chunks if chunk.rank % self.world.size == self.world.rank]

    def encode(self, chunk: Chunk, autocast: Context = nullcontext, *, again: bool = False) -> Tensor:
        """Returns the vectors [n, d] of a chunk, never in 16 bits; the generators are left as they were."""
        self.encoded["again" if again else "forward"] += len(chunk)
        rows = self.index(chunk.rows)
        with seeded(chunk.seed, self.device), autocast():
            vectors: Tensor = self.encoder(rows, chunk.width)
        return vectors.float() if vectors.dtype in _HALF else vectors

    def index(self, places: Int64) -> Tensor:
        """Returns host indices as a tensor on the device."""
        return on_device(places, self.device)

    def assembled(self, parts: list[Tensor], chunks: list[Chunk]) -> Tensor:
        """Returns this rank's vectors in the order that was planned, [n, d], differentiable.

        Args:
            parts: of each of `chunks`.
            chunks: which together hold all that was planned.
        """
        if not chunks:
            return self.nothing()
        order = np.concatenate([chunk.places for chunk in chunks])
        if len(parts) == 1 and np.array_equal(order, np.arange(len(order))):
            return parts[0]  # as it is where all items cost the same
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return torch.cat(parts).index_select(0, self.index(back))

    def spread(self, parts: list[Tensor], chunks: list[Chunk]) -> Tensor:
        """Returns the vectors of all ranks' chunks in the order that was planned, [n, d], without gradient.

        Args:
            parts: the vectors of this rank's chunks.
            chunks: all ranks'.
        """
        own = (torch.cat(parts) if parts else self.nothing()).detach()
        if self.world.size == 1 or not chunks:
            return self.assembled([own], chunks).detach()
        by_rank = [[c for c in chunks if c.rank % self.world.size == r] for r in range(self.world.size)]
        sizes = [sum(map(len, of_rank)) for of_rank in by_rank]
        most = max(sizes)
        gathered = self.world.gather(F.pad(own, (0, 0, 0, most - len(own))))
        real = np.concatenate([rank * most + np.arange(size) for rank, size in enumerate(sizes)])
        inline = gathered.index_select(0, self.index(real))
        return self.assembled([inline], [chunk for of_rank in by_rank for chunk in of_rank])

    def summed(self, gradient: Tensor) -> Tensor:
        """Returns the sum over ranks of the gradients [n, d] of vectors that all of them have."""
        self.world.sum_([gradient])
        return gradient

    @torch.no_grad()
    def draws(self, chunk: Chunk, autocast: Context = nullcontext) -> bool:
        """Returns whether encoding a chunk draws random numbers, as it does where dropout is on.

        The generators are looked at, not the vectors, which few draws may leave as they are. Ranks agree.
        """
        with seeded(chunk.seed, self.device), autocast():
            before = _drawn_so_far(self.device)
            self.encoder(self.index(chunk.rows), chunk.width)
            after = _drawn_so_far(self.device)
        (drew,) = self.world.agree([any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))])
        return drew

    @torch.no_grad()
    def table(self, autocast: Context = nullcontext, *, only_first: bool = False) -> Tensor:
        """Returns the vectors of the whole catalogue [V, d], in evaluation mode; every rank gets all.

        Args:
            autocast: the context of the run's precision.
            only_first: encode no more than the longest items' chunk, to see what that takes.
        """
        training = self.encoder.training
        self.encoder.eval()
        try:
            chunks = self.plan(np.arange(len(self.encoder.costs)), 0)
            if only_first:
                chunks = [replace(chunks[0], places=np.arange(len(chunks[0])), rank=self.world.rank)]
            counted = dict(self.encoded)
            found = self.spread([self.encode(chunk, autocast) for chunk in self.mine(chunks)], chunks)
            self.encoded = counted  # evaluation is no training step's work
            return found
        finally:
            self.encoder.train(training)

    def nothing(self) -> Tensor:
        """Returns the vectors of no item, [0, d], which a loss may be differentiated by."""
        grad = torch.is_grad_enabled()
        return torch.zeros(0, self.dim, device=self.device, dtype=self.dtype, requires_grad=grad)

    @property
    def dtype(self) -> torch.dtype:
        """What vectors are kept in: float32, or float64 where the weights are."""
        first = next(self.encoder.parameters())
        return torch.float64 if first.dtype == torch.float64 else torch.float32


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Plants a seed for what is drawn inside; outside, the generators go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        plant(seed, device)
        yield


def _drawn_so_far(device: torch.device) -> list[Tensor]:
    """Returns the states of the generators of the CPU and of `device`."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]
