"""Runs of method iisan that ranks and one process both make, to be compared; what a rank does."""

import contextlib
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from iisan_helpers import DRY, LIVE, Course, built

from effrec_cli.distributed import World

STEPS = 3
DRAWN = ["method.next_item.candidates=step", "method.next_item.correction=none"]
CASES = {
    "iisan": {},
    "iisan, live": {"words": LIVE},
    "iisan, of micro-batches": {"micros": 2},
    # A last step of fewer windows than ranks' shares would be; some ranks have none.
    "iisan, a window a step": {"words": ["method.batch_size=1"]},
    **{mode: {"mode": mode} for mode in ("fft", "adapter", "lora", "bitfit", "frozen")},
    "fft, of micro-batches": {"mode": "fft", "micros": 2},
    "fft, recomputed": {"mode": "fft", "words": ["method.recompute=true"]},
    # One rank has the window, and the other encodes for it; alone in its step it is told from drawn items.
    "fft, a window a step": {"mode": "fft", "words": ["method.batch_size=1", *DRAWN]},
}


def run_case(root, world=None, *, words=(), mode="iisan", micros=1):
    """Runs some steps in float64; returns losses, gradients of each update, weights and a judgement."""
    course = Course(built(root, *DRY, *words, mode=mode, world=world, dtype=torch.float64))
    encoded = watched(course.method.encoding)
    losses = [course.step(number, micros) for number in range(STEPS)]
    found = {"losses": losses, "gradients": course.gradients, "weights": course.weights()}
    found["encoded"] = list(encoded)
    return {**found, "judged": course.method.judge("test"), "table": course.method.table()}


def watched(encoding):
    """Returns a list that receives the rows of every chunk that is encoded, and whether it is again."""
    seen, encode = [], encoding.encode

    def seeing(chunk, *args, again=False, **named):
        seen.append((chunk.rows.tolist(), again))
        return encode(chunk, *args, again=again, **named)

    encoding.encode = seeing
    return seen


def modality_dropout(root, world):
    """Returns which items lose a modality on this rank: the same everywhere, or gradients would not fit."""
    course = Course(built(root, "method.modality_dropout=0.4", world=world))
    losses = [course.step(number) for number in range(2)]
    return {"losses": losses, "weights": course.weights()}


@contextlib.contextmanager
def met(folder, rank, size):
    """Joins `size` ranks; a rank that waits in vain gets an error after a minute."""
    wait = timedelta(seconds=60)
    where = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size, timeout=wait)
    yield World(rank, size)
    dist.barrier()
    dist.destroy_process_group()


def one_rank(rank, folder, size):
    """Runs all cases as one rank, and writes down what it found."""
    torch.set_num_threads(1)
    with met(folder, rank, size) as world:
        found = {name: run_case(Path(folder, "root"), world, **case) for name, case in CASES.items()}
        found["modality dropout"] = modality_dropout(Path(folder, "root"), world)
    torch.save(found, Path(folder, f"{rank}.pt"))
