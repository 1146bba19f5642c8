"""Makes features in one pass over the items, longest first, and goes on where a killed one ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.data.atomic import locked
from effrec_cli.data.cache import MANIFEST
from effrec_cli.data.features.codes import Coded, coded
from effrec_cli.data.features.draft import Draft, begun_constant, drop
from effrec_cli.data.features.spec import FeatureSpec
from effrec_cli.data.features.store import REBUILD, Features, open_features
from effrec_cli.data.features.versions import since, versions
from effrec_cli.errors import DataError

Int64 = NDArray[np.int64]
Say = Callable[[str], None]
MARK_SECONDS = 5.0
"""A killed build loses about so much work."""
_SAY_SECONDS = 60.0
_AHEAD = 2
_SAME = 1e-5


class Work(Protocol):
    """Makes the features of items; `models.encoders.sources.ItemReader` is one.

    Attributes:
        costs: int64 [V], how long each item is.
        leads: whether the first tap is the same for all items, if all begin with one token.
    """

    costs: Int64

    @property
    def leads(self) -> bool:
        """Whether the first tap is the same for all items, if all begin with one token."""

    def chunks(self, items: Int64) -> Iterator[Int64]:
        """Yields items [n], longest first and in their order otherwise, as many at once as shall be."""

    def load(self, items: Int64) -> Any:
        """Returns what `read` needs from the host; runs in a thread of its own."""

    def read(self, loaded: Any) -> Tensor:
        """Returns the taps, float [n, T, D], of items that were loaded."""


class _NotConstant(Exception):
    """The first tap is not the same for all items."""


def kept_features(
    spec: FeatureSpec, data_root: Path, work: Callable[[], Work], *, rebuild: bool, say: Say
) -> Features:
    """Returns the features that `spec` says, made first where they are not kept yet.

    Processes that ask for the same at once make them once; the others wait.

    Args:
        spec: what decides them.
        data_root: features are kept below it.
        work: makes the backbone; called where features have to be made, and never otherwise.
        rebuild: make them anew, even if they are there.
        say: receives a line about what takes time, and where other versions of torch or transformers kept
            what is reused.

    Raises:
        DataError: kept ones are damaged, there are no items, or the backbone gives what cannot be kept.
        EnvironmentFault: the disk is full or may not be written.
    """
    folder = spec.folder(data_root)
    before = _age(folder)
    if before is not None and not rebuild:
        return _reused(open_features(folder, spec), spec, say)
    if not spec.num_items:
        raise DataError("There are no items of which features could be kept.", where="dataset")
    with locked(folder.with_name(f"{folder.name}.lock"), say, "making the same features"):
        if _age(folder) == before:  # nobody else has made them in the meantime
            if rebuild:
                drop(folder)
            _make(spec, folder, work(), say)
    return open_features(folder, spec)


def _reused(found: Features, spec: FeatureSpec, say: Say) -> Features:
    """Returns features that were there; says where other versions kept them, which may compute otherwise."""
    if changed := since(found.versions, versions()):
        say(f"The features of the items' {spec.modality} were {changed}. {REBUILD} makes them anew.")
    return found


def _age(folder: Path) -> int | None:
    """Returns when the features of a folder were made, or None where there are none."""
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        return 0 if folder.exists() else None


def _make(spec: FeatureSpec, folder: Path, work: Work, say: Say) -> None:
    say(f"Keeping hidden states {list(spec.taps)} of {spec.num_items:,} items' {spec.modality}, once.")
    if len(work.costs) != spec.num_items:
        raise DataError(f"There are {spec.num_items} items, and the backbone reads {len(work.costs)}.")
    try:
        _Build(spec, folder, work, say, shared=work.leads and len(spec.taps) > 1).run()
    except _NotConstant:
        say("The first hidden state is not the same for all items: starting again, and keeping it of each.")
        drop(folder)
        _Build(spec, folder, work, say, shared=False).run()


class _Build:
    """One pass over the items."""

    def __init__(self, spec: FeatureSpec, folder: Path, work: Work, say: Say, *, shared: bool) -> None:
        self.spec, self.work, self.say = spec, work, say
        self.order = np.argsort(-work.costs, kind="stable")
        self.draft = Draft(spec, folder, self._constant(folder, shared))
        self.began = time.monotonic() - self.draft.progress.seconds
        self.marked = self.said = time.monotonic()
        if self.draft.progress.done:
            say(f"Going on after {self.draft.progress.done:,} items that an earlier run has kept.")

    def _constant(self, folder: Path, shared: bool) -> NDArray[np.float32]:
        """Returns the taps [C, D] that all items should have in common: the first item's first, or none."""
        if not shared:
            return np.zeros((0, self.spec.dim), np.float32)
        found = begun_constant(folder)
        if found is not None and found.shape in ((0, self.spec.dim), (1, self.spec.dim)):
            return np.array(found)  # an earlier run may have found that they have none
        with torch.inference_mode():
            shortest = self.work.read(self.work.load(self.order[-1:]))
        return shortest[0, :1].float().cpu().numpy()

    def run(self) -> None:
        """Makes what is missing, and puts all in its place."""
        try:
            pending = None
            for items, loaded in self._loaded():
                coming = self._started(items, loaded)
                if pending is not None:
                    self._take(*pending)
                pending = coming
            if pending is not None:
                self._take(*pending)
            self.draft.finish(time.monotonic() - self.began)
        finally:
            self.draft.close()
        self.say(self._told())

    def _loaded(self) -> Iterator[tuple[Int64, Any]]:
        """Yields the chunks that are missing with what reading them needs, which a thread gets ready."""
        chunks = self.work.chunks(self.order[self.draft.progress.done :])
        waiting: deque[tuple[Int64, Future[Any]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for items in chunks:
                waiting.append((items, pool.submit(self.work.load, items)))
                if len(waiting) > _AHEAD:
                    first, ready = waiting.popleft()
                    yield first, ready.result()
            while waiting:
                first, ready = waiting.popleft()
                yield first, ready.result()

    def _started(self, items: Int64, loaded: Any) -> tuple[Int64, Coded, Any]:
        """Returns a chunk whose features are under way to the host, and what to wait for."""
        with torch.inference_mode():
            values = self.work.read(loaded)
            self._check_shape(values)
            constant = torch.from_numpy(self.draft.constant).to(values.device)
            made = coded(values, self.spec.dtype, constant).fetched()
        if values.device.type != "cuda":
            return items, made, None
        event = torch.cuda.Event()
        event.record()
        return items, made, event

    def _take(self, items: Int64, made: Coded, event: Any) -> None:
        """Writes a chunk's features once they are on the host."""
        if event is not None:
            event.synchronize()
        self._refuse(items, made)
        self.draft.write(items, made)
        now = time.monotonic()
        if now - self.marked >= MARK_SECONDS:
            self.draft.mark(now - self.began)
            self.marked = time.monotonic()
        if now - self.said >= _SAY_SECONDS:
            self.say(f"{self.draft.progress.done:,} of {self.spec.num_items:,} items.")
            self.said = now

    def _check_shape(self, values: Tensor) -> None:
        found, wanted = tuple(values.shape[1:]), (len(self.spec.taps), self.spec.dim)
        if found != wanted:
            what = f"The backbone gives {found[0]} rows of width {found[1]} an item instead of {wanted}."
            raise DataError(what, where=f"method.{self.spec.modality}")

    def _refuse(self, items: Int64, made: Coded) -> None:
        """Raises where features cannot be kept, or the constant taps are not."""
        for good, what, fix in (
            (made.whole, "The backbone gives what is no finite number.", "try another backbone or precision"),
            (made.fits, f"A hidden state is too large for {self.spec.dtype}.", "method.cache.dtype=bf16"),
        ):
            if not good.all():
                item = int(items[int((~good).int().argmax())])
                raise DataError(what, where=f"item row {item}, {self.spec.modality}", fix=fix)
        if not (made.constant <= _SAME).all():
            raise _NotConstant

    def _told(self) -> str:
        progress = self.draft.progress
        lost = f", at most {max(progress.worst):.2g} of a vector lost" if any(progress.worst) else ""
        return f"Kept {progress.done:,} items in {progress.seconds:.1f} s{lost}: {self.draft.target}."
