"""Factorisations that other methods start from: fitted once on the training rows, and kept on the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effrec_cli.data.atomic import locked, new_folder
from effrec_cli.data.cache import BadCache, hash_file, open_array, read_manifest, write_arrays, write_manifest
from effrec_cli.data.types import EvalCases, Int64, RecData
from effrec_cli.distributed import World
from effrec_cli.evaluation.blocks import flat_ranges
from effrec_cli.evaluation.stages import Stages
from effrec_cli.methods.factors.fit import Fitted, fit, kind_of, settled
from effrec_cli.methods.factors.judge import judge_of
from effrec_cli.methods.factors.tuned import Size
from effrec_cli.models.factors.kinds import FOLDS
from effrec_cli.schema import EvaluationConfig

FORMAT = 1
"""Raised when what is fitted from the same settings and rows becomes something else."""
_USERS_AT_ONCE = 1 << 16
Say = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """A factorisation of the training rows.

    Attributes:
        users: float32 [U, d] on the CPU; zeros for users without training rows (and the ones that stand for
            biases).
        items: float32 [V, d] on the CPU.
        seconds: that fitting took, whichever run did it.
        digest: of all that decides the vectors.
        found: whether an earlier run had fitted them.
        kind: of factorisation.
        state: `users`, `items` and what folding in needs.
        choices: settings that were left open, each with what it became and why.
    """

    users: Tensor
    items: Tensor
    seconds: float
    digest: str
    found: bool
    kind: str
    state: dict[str, Tensor]
    choices: dict[str, str]

    def fold_in(self, offsets: Tensor, items: Tensor) -> Tensor:
        """Returns the vectors float32 [B, d] of users by their histories, on these tensors' device.

        Args:
            offsets: int64 [B + 1].
            items: int64 [total].
        """
        state = {name: tensor.to(items.device) for name, tensor in self.state.items() if name != "users"}
        return FOLDS[self.kind](state, offsets, items)


def kept_factors(
    settings: Any,
    data: RecData,
    data_root: Path,
    device: torch.device,
    say: Say,
    *,
    seed: int = 1,
    evaluation: EvaluationConfig | None = None,
    monitor: str = "ndcg@10",
    stages: Stages | None = None,
) -> Kept:
    """Returns a factorisation of the training rows of `data`, fitted first where it is not kept yet.

    Processes that ask for the same at once fit it once; the others wait. The validation cases say how many
    sweeps are best; test rows are not read.

    Args:
        settings: of `schema.factors`, such as `FactorsConfig`.
        data: the dataset; of a sample, its kept rows alone are training rows.
        data_root: factorisations are kept below it, in `factors/DIGEST`.
        device: where to fit.
        say: receives a line about what takes time.
        seed: of what is drawn.
        evaluation: how validation cases are ranked; None as runs do by default.
        monitor: by which metric.
        stages: of the run that asks; fitting is its stage `factorise`.

    Raises:
        DataError: there are no training rows, or no ratings where they are needed.
        EnvironmentFault: the disk is full or may not be written.
    """
    evaluation = evaluation or EvaluationConfig()
    facts = _facts(settings, data, seed, evaluation, monitor)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    folder = data_root / "factors" / digest
    found = _opened(folder, digest)
    if found is not None:
        return found
    with locked(folder.with_name(f"{digest}.lock"), say, "fitting the same factorisation"):
        found = _opened(folder, digest)
        if found is not None:
            return found
        say(f"Factorising {data.num_train:,} training rows by {kind_of(settings)}, once.")
        judge = judge_of(kind_of(settings), data, evaluation, monitor, World(device=device))
        stages = stages or Stages(device)
        earlier = stages.seconds.get("factorise", 0.0)
        with stages.of("factorise"):
            fitted = fit(settings, data, device, seed, judge)
        _keep(folder, facts, fitted, stages.seconds["factorise"] - earlier)
        say(f"Kept the vectors of sweep {fitted.sweeps} of {fitted.swept}: {folder}.")
    made = _opened(folder, digest, found=False)
    assert made is not None
    return made


def _keep(folder: Path, facts: dict[str, Any], fitted: Fitted, seconds: float) -> None:
    """Writes a folder that appears whole or not at all."""
    with new_folder(folder) as draft:
        arrays = write_arrays(draft, {name: each.cpu().numpy() for name, each in fitted.state.items()})
        told = {"kind": facts["kind"], "seconds": seconds, "facts": facts, "choices": fitted.choices}
        write_manifest(draft, {**told, "arrays": arrays})


def _opened(folder: Path, digest: str, *, found: bool = True) -> Kept | None:
    """Returns what is kept in a folder; None where it is missing or damaged, so that it is fitted anew."""
    try:
        manifest = read_manifest(folder)
        state = {name: _read(folder, name, entry) for name, entry in manifest["arrays"].items()}
        kind, seconds, choices = manifest["kind"], manifest["seconds"], manifest["choices"]
        return Kept(state["users"], state["items"], seconds, digest, found, kind, state, choices)
    except (BadCache, KeyError, TypeError):
        return None


def _read(folder: Path, name: str, entry: dict[str, Any]) -> Tensor:
    array = open_array(folder, name, entry["bytes"])
    if hash_file(folder / f"{name}.npy") != entry["sha256"]:
        raise BadCache(f"{name}.npy holds other values than were written")
    return torch.from_numpy(np.array(array))


def _facts(
    settings: Any, data: RecData, seed: int, evaluation: EvaluationConfig, monitor: str
) -> dict[str, Any]:
    """Returns all that decides the vectors, JSON-able."""
    values, _ = settled(settings, Size.of(data))
    kind = kind_of(settings)
    cut = kind != "rsvd" and len(data.valid) > 0
    return {
        "format": FORMAT,
        "kind": kind,
        "settings": {name: value for name, value in values.items() if name != "chunk_mib"},
        "seed": seed,
        "rows": _digest_of_rows(data, kind == "explicit_als"),
        "valid": _digest_of_cases(data, data.valid) if cut else None,
        "judged_by": [monitor, evaluation.seen] if cut else None,
    }


def _digest_of_rows(data: RecData, ratings: bool) -> str:
    """Returns a digest of who trains on what, in order; of nothing else in the dataset."""
    digest = hashlib.sha256(f"{data.num_users} {data.num_items}".encode())
    _feed(digest, data.sequences.items, data.train_start, data.train_end)
    if ratings and data.sequences.ratings is not None:
        _feed(digest, data.sequences.ratings, data.train_start, data.train_end)
    return digest.hexdigest()


def _digest_of_cases(data: RecData, cases: EvalCases) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(cases.users).tobytes())
    for start, end in ((cases.history_start, cases.history_end), (cases.target_start, cases.target_end)):
        _feed(digest, data.sequences.items, start, end)
    return digest.hexdigest()


def _feed(digest: Any, values: NDArray[Any], start: Int64, end: Int64) -> None:
    """Feeds the lengths of ranges and the values in them, some ranges at a time."""
    for first, last in _blocks(len(start)):
        some = slice(first, last)
        positions, _ = flat_ranges(np.asarray(start[some]), np.asarray(end[some]))
        digest.update(np.ascontiguousarray(end[some] - start[some]).tobytes())
        digest.update(np.ascontiguousarray(values[positions]).tobytes())


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, _USERS_AT_ONCE):
        yield first, min(first + _USERS_AT_ONCE, rows)
