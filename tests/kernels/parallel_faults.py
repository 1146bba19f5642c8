"""What ranks are told where one's arguments are wrong, or tensors differ that all must share."""

import itertools
from dataclasses import replace

import numpy as np
import torch
from effrec_kernels import popularity
from effrec_kernels import vocab_parallel_cross_entropy as parallel_loss
from effrec_kernels import vocab_parallel_embedding as parallel_rows
from parallel_cases import cut

ITEMS = 20
COUNTS = torch.arange(ITEMS)
ROWS = torch.arange(3)


def slice_of(items, rank, size):
    start, end = list(itertools.pairwise(cut(items, size)))[rank]
    return start, end


def told(function, *tensors, **options):
    try:
        function(*tensors, **options)
    except Exception as fault:
        return f"{type(fault).__name__}: {fault}"
    return "no error"


def callers(rank, size):
    """Returns the loss and the look-up with right arguments, of which some can be changed."""
    first, after = slice_of(ITEMS, rank, size)
    table = {"local_items": torch.zeros(after - first, 4), "num_items": ITEMS, "first_item": first}
    loss = {"hidden": torch.zeros(3, 4), "targets": torch.zeros_like(ROWS), "num_negatives": 3} | table
    look_up = {"ids": ROWS} | table
    return (
        lambda **changed: told(parallel_loss, **loss | changed),
        lambda **changed: told(parallel_rows, **look_up | changed),
    )


def different(rank, size):
    """Returns what this rank is told where a tensor holds other values on the last one, by its name."""
    loss, look_up = callers(rank, size)
    last, table = int(rank == size - 1), popularity(COUNTS)
    once = {"replicated": True}
    return {
        "rng_state": loss(rng_state=torch.tensor([last, 0])),
        "normalizer": loss(normalizer=torch.tensor(5.0 + last)),
        "log_q": loss(log_q=torch.full((ITEMS,), -3.0 + last), correction="logq"),
        "sampler.thresholds": loss(sampler=popularity(COUNTS + last * (COUNTS == 3))),
        "sampler.log_q": loss(sampler=replace(table, log_q=table.log_q - last)),
        "negatives": loss(num_negatives=None, negatives=torch.full((1, 4), 1 + last), sharing="batch"),
        "targets": loss(targets=ROWS + last, **once),
        "row_weights": loss(row_weights=ROWS.float() + last, **once),
        "row_offset": loss(row_offset=ROWS + last, **once),
        "sharing": loss(sharing=torch.tensor([0, 1 + last, 3]), **once),
        "ids": look_up(ids=ROWS + last, **once),
    }


def equal(rank, size):
    """Returns what this rank is told where those are equal, and of own rows and of no effect what differs."""
    loss, look_up = callers(rank, size)
    state = {"rng_state": torch.tensor([1, 0]), "normalizer": torch.tensor(5.0)}
    own_offset = {"row_offset": ROWS + 10 * rank, "row_weights": torch.ones(3) + rank}
    return {
        "popularity": loss(sampler=popularity(COUNTS), **state),
        "log_q": loss(log_q=torch.full((ITEMS,), -3.0), correction="logq"),
        "batch": loss(num_negatives=None, negatives=torch.full((1, 4), 1), sharing="batch"),
        "replicated": loss(row_weights=torch.ones(3), replicated=True, row_offset=ROWS),
        "own rows": loss(targets=ROWS + rank, **own_offset),
        "own negatives": loss(num_negatives=None, negatives=torch.full((3, 2), rank)),
        "own sequences": loss(sharing=torch.tensor([0, 1 + rank % 2, 3])),
        "how": loss(chunk_bytes=1000 + rank, kernel="torch" if rank else "auto"),
        "numpy": loss(seed=np.int64(3) if rank else 3, normalizer=np.float64(2) if rank else 2.0),
        "ids": look_up(ids=ROWS + rank),
        "ids, replicated": look_up(replicated=True),
        "no ids": look_up(ids=ROWS[: 3 * (rank == 0)]),
    }


# What is wrong for every rank, and which error it is.
FAULTS = {
    "no states": ({"hidden": None}, "TypeError: hidden"),
    "no items": ({"local_items": None}, "TypeError: local_items"),
    "no targets": ({"targets": None}, "TypeError: targets"),
    "a state": ({"hidden": torch.zeros(4)}, "ValueError: hidden"),
    "targets elsewhere": ({"targets": ROWS.to("meta")}, "ValueError: targets is on meta"),
    "weights elsewhere": ({"row_weights": ROWS.float().to("meta")}, "ValueError: row_weights is on meta"),
    "ids elsewhere": (
        {"negatives": torch.zeros(3, 2, dtype=torch.int64, device="meta"), "num_negatives": None},
        "ValueError: negatives is on meta",
    ),
    "chunk_bytes": ({"chunk_bytes": 0}, "ValueError: chunk_bytes"),
    "half a byte": ({"chunk_bytes": 1.5}, "TypeError: chunk_bytes"),
    "temperature": ({"temperature": 0.0}, "ValueError: temperature"),
    "temperature of all": ({"temperature": -1.0, "num_negatives": None}, "ValueError: temperature"),
    "correction": ({"correction": "exakt"}, "ValueError: correction"),
    "log_q": ({"log_q": torch.zeros(ITEMS - 1), "correction": "logq"}, "ValueError: log_q"),
    "popularity": ({"sampler": popularity(COUNTS[1:])}, "ValueError: the sampler"),
    "sampler": ({"sampler": "popular"}, "ValueError: sampler"),
    "rng_state": ({"rng_state": ROWS}, "ValueError: rng_state"),
    "two keys": ({"rng_state": ROWS[:2], "seed": 1}, "ValueError: give either rng_state"),
    "seed": ({"seed": 2**64}, "ValueError: seed"),
    "step": ({"step": -1}, "ValueError: step"),
    "num_negatives": ({"num_negatives": 9.0}, "TypeError: num_negatives"),
    "in_batch": ({"in_batch": 4}, "ValueError: in_batch"),
    "first_item": ({"first_item": 2**70}, "ValueError: first_item"),
    "num_items": ({"num_items": "20"}, "TypeError: num_items"),
    "row_weights": ({"row_weights": [1.0, 1.0, 1.0]}, "TypeError: row_weights"),
    "normalizer": ({"normalizer": torch.ones(2)}, "ValueError: normalizer"),
    "sharing": ({"sharing": "rows"}, "ValueError: sharing"),
    "replicated": ({"replicated": 1}, "TypeError: replicated must be True or False"),
    "return_lse": ({"return_lse": "no"}, "TypeError: return_lse must be True or False"),
    "boundaries": ({"sharing": torch.zeros(3)}, "ValueError: boundaries"),
}
LOOK_UP_FAULTS = {
    "no ids": ({"ids": None}, "TypeError: ids"),
    "no table": ({"local_items": None}, "TypeError: local_items"),
    "replicated": ({"replicated": 1}, "TypeError: replicated must be True or False"),
    "half an item": ({"first_item": 0.5}, "TypeError: first_item"),
    "ids elsewhere": ({"ids": ROWS.to("meta")}, "ValueError: ids are on meta"),
}


def faults(rank, size):
    """Returns what this rank is told where rank 1 alone, and where every rank, is given something wrong."""
    loss, look_up = callers(rank, size)
    found = {}
    for call, wrongs in ((loss, FAULTS), (look_up, LOOK_UP_FAULTS)):
        for name, (wrong, _) in wrongs.items():
            found[call is loss, name] = call(**wrong if rank == 1 else {}), call(**wrong)
    return found
