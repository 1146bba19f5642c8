"""Cases of content training that ranks and one process both run, to be compared; what a rank does.

Each case is a name and the keywords of `run_case`: the mode, the settings of method gram and the batches.
"""

import contextlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from content_helpers import DIM, Setup, ToyBatches

from effrec_cli.data.batches import PAD_ITEM
from effrec_cli.distributed import World
from effrec_cli.methods.content.modes import rows_of
from effrec_cli.methods.content.single_step import SingleStep

STEPS = 4
WIDE = 10**6
FUSED = {"mode": "single_step"}
RECOMPUTED = {"mode": "single_step", "recompute": True}
ONE_UPDATE = {"mode": "multi_step", "update": "inject_single", "period": 2}
MANY_UPDATES = {
    "mode": "multi_step",
    "update": "inject_multi",
    "period": 3,
    "update_items": 4,
    "tokens": WIDE,
}
REGRESS = {"mode": "multi_step", "update": "regress", "period": 3, "update_items": 4, "tokens": WIDE}
KINDS = {
    "e2e": {"mode": "e2e"},
    "e2e_dedup": {"mode": "e2e_dedup"},
    "frozen": {"mode": "frozen"},
    "fused": FUSED,
    "recomputed": RECOMPUTED,
    "inject_single": ONE_UPDATE,
    "inject_multi": MANY_UPDATES,
    "regress": REGRESS | {"passes": 2},
    "drift": ONE_UPDATE | {"drift": 0.5},
}
TOGETHER = [name for name in KINDS if name not in ("e2e", "e2e_dedup", "frozen")]
CASES = {
    # Batches of 4, 4 and 2 users, some without an answer: shares differ in size, and two of four are empty.
    **KINDS,
    **{
        f"{name}, clipped": KINDS[name] | {"clip_norm": 0.05}
        for name in ("e2e_dedup", "fused", "recomputed", "inject_multi")
    },
    **{f"{name}, of micro-batches": kind | {"micros": 2} for name, kind in KINDS.items()},
    # One rank has all items, and the others still encode for it.
    **{f"{name}, a user a step": kind | {"data": "a user a step"} for name, kind in KINDS.items()},
    # Each rank needs the same item, which one owns: the others own none.
    **{
        f"{name}, one item": KINDS[name] | {"data": "one item"}
        for name in ("fused", "recomputed", "inject_single", "regress")
    },
    **{f"{name}, no item": kind | {"data": "no item"} for name, kind in KINDS.items()},
    **{
        f"{name}, rates": KINDS[name] | {"schedule": "noam"} for name in ("e2e", "recomputed", "inject_multi")
    },
    "inject_single, eager": ONE_UPDATE | {"refresh": "eager"},
    "inject_single, a share": ONE_UPDATE | {"update_share": 0.5},
    "inject_single, summed": ONE_UPDATE | {"reduction": "sum"},
    "fused, summed": FUSED | {"reduction": "sum", "clip_norm": 0.5},
    "inject_multi, probed": MANY_UPDATES | {"probe_every": 1, "adapt_period": True},
}
# Four ranks run fewer of them: where half of the shares are empty, or all but one.
OF_SIZE = {
    2: list(CASES),
    4: [*KINDS, *(name for name in CASES if "a user a step" in name or name.startswith("recomputed, "))],
}
# Masks of dropout belong to chunks, which one process packs otherwise: ranks are compared with each other.
DRAWN = {
    "fused": FUSED | {"dropout": 0.4, "filter_dropout": 0.3},
    "recomputed": RECOMPUTED | {"dropout": 0.4, "filter_dropout": 0.3},
    "regress": REGRESS | {"dropout": 0.4},
    "inject_single": ONE_UPDATE | {"dropout": 0.4},
}
MOVED = {"update": "inject_single", "period": 3}
PLAIN_SGD = {"optimizer": torch.optim.SGD, "lr": 0.1}


def batches_of(kind):
    """Returns the batches that a case names."""
    if kind == "a user a step":
        return ToyBatches(batch_size=1)
    batches = ToyBatches()
    real = batches.items != PAD_ITEM
    if kind == "one item":
        batches.items[real] = 3
    if kind == "no item":
        batches.items[:] = PAD_ITEM
        batches.lengths[:] = 0
    return batches


def run_case(world=None, *, data="shares of all sizes", recompute=False, micros=1, kind=None, **settings):
    """Runs some steps; returns gradients of every update, final weights and what else is to be compared."""
    setup = Setup(world=world, batches=batches_of(data), **PLAIN_SGD, **settings)
    if kind is not None:
        setup.mode = kind(setup.mode.parts)
    if recompute:
        setup.mode.recompute = True
    losses = [setup.step(micros=micros) for _ in range(STEPS)]
    return {
        "losses": losses,
        "gradients": setup.gradients,
        "weights": setup.weights(),
        "calls": setup.encoder.calls,
        "notes": setup.engine.notes,
        "updates": setup.mode.parts.rate.steps,
        "period": getattr(setup.mode, "period", None),
    }


class AveragedTwice(SingleStep):
    """What the authors' code does on several ranks, by papers/gram section 5.

    Item gradients are averaged over ranks, and then again the encoder's, although each rank has encoded the
    items of its own share alone.
    """

    def step(self, batch, engine):
        encoding = self.parts.encoding
        own = self._own_rows(batch)
        chunks = encoding.plan(own, self.key(batch), together=False)
        encoded = encoding.assembled([encoding.encode(chunk) for chunk in chunks], chunks)
        rows = rows_of(batch)
        leaf = torch.zeros(len(rows), DIM, dtype=torch.float64)
        leaf[np.searchsorted(rows, own)] = encoded.detach()
        leaf.requires_grad_()
        loss = self.loss(leaf, batch, engine.autocast)
        engine.backward(loss)
        gradient = encoding.summed(leaf.grad)
        encoded.backward(gradient[np.searchsorted(rows, own)] / encoding.world.size)
        self.update(engine)
        return self.report(loss)

    @staticmethod
    def _own_rows(batch):
        real = torch.arange(batch.tensors["items"].shape[1]) < batch.tensors["lengths"][:, None]
        return np.unique(rows_of(batch)[batch.tensors["items"][real].numpy()])


def independent_draws(world):
    """Returns what this rank's encoder is told to draw in a step of two micro-batches."""
    setup = Setup("e2e_dedup", world=world, dropout=0.4, tokens=WIDE, batches=ToyBatches(batch_size=10))
    seeds = []
    encode = setup.encoding.encode

    def watched(chunk, *args, **kwargs):
        seeds.append(chunk.seed)
        return encode(chunk, *args, **kwargs)

    setup.encoding.encode = watched
    setup.step(micros=2)
    return seeds


def in_mid_cycle(world):
    """Returns the state after two steps of a cycle of three, its chunks to be encoded as they were."""
    setup = Setup("multi_step", world=world, **PLAIN_SGD, **MOVED)
    setup.steps(2)
    setup.mode.replays = True
    return {"weights": setup.weights(), "tensors": setup.mode.tensors(), "state": setup.mode.state()}


@contextlib.contextmanager
def met(folder, rank, size):
    """Joins `size` ranks; a rank that waits in vain gets an error after a minute."""
    where = f"file://{folder}/meet{size}"
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size, timeout=wait)
    yield World(rank, size)
    dist.barrier()
    dist.destroy_process_group()


def one_rank(rank, folder):
    """Runs all cases as one rank of each number of ranks it belongs to, and writes down what it found."""
    torch.set_num_threads(1)
    for size in OF_SIZE:
        if rank >= size:
            continue
        with met(folder, rank, size) as world:
            found = {name: run_case(world, **CASES[name]) for name in OF_SIZE[size]}
            found["drawn"] = {name: run_case(world, **case) for name, case in DRAWN.items()}
            found["averaged twice"] = run_case(world, mode="single_step", kind=AveragedTwice)
            found["in mid-cycle"] = in_mid_cycle(world)
            found["seeds"] = independent_draws(world)
        torch.save(found, Path(folder, f"{size}.{rank}.pt"))
