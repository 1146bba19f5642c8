"""One of several ranks, each with a slice of the catalogue: `python parallel_rank.py FOLDER RANK SIZE TASK`.

What it finds is written to FOLDER/RANK.pt.
"""

import itertools
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from effrec_kernels import linear_cross_entropy, sampled_cross_entropy
from effrec_kernels import vocab_parallel_cross_entropy as parallel_loss
from effrec_kernels import vocab_parallel_embedding as parallel_rows
from parallel_cases import CASES, cut, data_of, options_of, parts, run
from parallel_faults import ITEMS, different, equal, faults, slice_of, told
from parallel_model import TOY_ITEMS, toy_batch, train


def values(rank, size):
    """Returns what each case gives."""
    found = {}
    for name, setup in CASES.items():
        data = data_of(setup)
        first, after = slice_of(setup.items, rank, size)
        start, end = parts(setup, size)[rank]
        place = {"num_items": setup.items, "first_item": first, "replicated": setup.replicated}
        found[name] = run(
            partial(parallel_loss, **place),
            data.hidden[start:end],
            data.items[first:after],
            data.targets[start:end],
            options_of(setup, start, end),
            data.upstream[start:end],
        )
    return found


def counted(rank, size):
    """Returns the bytes that each collective of one step takes from this rank, and its name."""
    sent = []

    def counting(name, function, own):
        def call(*tensors, **options):
            sent.append((name, tensors[own].nbytes))
            return function(*tensors, **options)

        return call

    watched = {"all_reduce": 0, "all_gather_single": 1, "all_gather_into_tensor": 1}
    watched |= {"reduce_scatter_single": 1, "reduce_scatter_tensor": 1}
    kept = {name: getattr(dist, name) for name in watched if hasattr(dist, name)}
    for name, function in kept.items():
        setattr(dist, name, counting(name.replace("into_tensor", "single"), function, watched[name]))
    values_of = {}
    for replicated in (False, True):
        sent.clear()
        hidden = torch.randn(8, 4).requires_grad_()
        items = torch.randn(5, 4).requires_grad_()
        place = {"num_items": 5 * size, "first_item": 5 * rank, "replicated": replicated}
        compared = {"rng_state": torch.tensor([1, 2]), "normalizer": torch.tensor(8.0)}
        parallel_loss(hidden, items, torch.arange(8), num_negatives=3, **compared, **place).backward()
        parallel_rows(torch.arange(8), items, **place).sum().backward()
        values_of[replicated] = list(sent)
    for name, function in kept.items():
        setattr(dist, name, function)
    return values_of


def training(rank, size):
    """Returns own rows of a tied table and the shared weights after some steps."""
    first, after = slice_of(TOY_ITEMS, rank, size)
    place = {"num_items": TOY_ITEMS, "first_item": first}

    def step_batch(step):
        ids, targets = toy_batch(step)
        start, end = list(itertools.pairwise(cut(len(ids), size)))[rank]
        return ids[start:end], targets[start:end]

    return train(
        lambda table: table[first:after].clone(),
        step_batch,
        partial(parallel_rows, **place),
        partial(parallel_loss, **place),
        dist.all_reduce,
    )


def errors(rank, size):
    """Returns what this rank is told where arguments are wrong."""
    hidden, targets = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    first, after = slice_of(ITEMS, rank, size)
    right = {"num_items": ITEMS, "first_item": first, "num_negatives": 3}

    def loss(items=after - first, at=hidden, **changed):
        return told(parallel_loss, at, torch.zeros(items, 4), targets, **right | changed)

    last = rank == size - 1
    found = {
        "right": loss(),
        "overlap": loss(first_item=first - last, items=after - first + last),
        "gap": loss(first_item=first + last, items=after - first - last),
        "too few": loss(num_items=ITEMS + 2),
        "too many": loss(num_items=ITEMS - 1),
        "seed": loss(seed=rank),
        "gradient": loss(at=hidden.clone().requires_grad_(rank == 0)),
        "one rank": loss(at=torch.zeros(3, 4 + (rank == 1))),
        "one rank's rows": loss(row_offset=torch.zeros(3 + (rank == 1), dtype=torch.int64)),
        "one rank's ids": loss(num_negatives=None, negatives=torch.zeros(3 + (rank == 1), 2).long()),
        "ids": loss(num_negatives=None, negatives=torch.zeros(3, 2 + rank).long()),
        "triton": loss(kernel="triton"),
        "reference": loss(kernel="reference"),
        "useless": loss(num_negatives=None, sharing="batch"),
        "tiles given": loss(num_negatives=None, negatives=torch.zeros(1, 3).long(), sharing=8),
        "replicated": told(
            parallel_loss, torch.zeros(3 + rank, 4), torch.zeros(after - first, 4),
            torch.zeros(3 + rank).long(), replicated=True, **right,
        ),
        "id": told(
            parallel_loss, hidden, torch.zeros(after - first, 4), targets + ITEMS * (rank == 1), **right
        ),
        "look-up id": told(
            parallel_rows, targets + ITEMS * (rank == 1), torch.zeros(after - first, 4), num_items=ITEMS,
            first_item=first,
        ),
        "look-up gap": told(
            parallel_rows, targets, torch.zeros(after - first - last, 4), num_items=ITEMS, first_item=first
        ),
    }  # fmt: skip
    return found | dtensors(hidden, targets, rank, size)


def dtensors(hidden, targets, rank, size):
    """Returns what is said to a table that is spread by PyTorch itself."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    table = distribute_tensor(torch.zeros(ITEMS, 4), init_device_mesh("cpu", (size,)), [Shard(0)])
    place = {"num_items": ITEMS, "first_item": slice_of(ITEMS, rank, size)[0]}
    return {
        "dtensor": told(sampled_cross_entropy, hidden, table, targets, num_negatives=3),
        "dtensor full": told(linear_cross_entropy, hidden, table, targets),
        "dtensor slice": told(parallel_loss, hidden, table, targets, **place),
        "dtensor look-up": told(parallel_rows, targets, table, **place),
    }


def quick(rank, size):
    return {
        "values": values(rank, size),
        "counted": counted(rank, size),
        "training": training(rank, size),
        "errors": errors(rank, size),
        "different": different(rank, size),
        "equal": equal(rank, size),
        "faults": faults(rank, size),
    }


def fsdp(rank, size):
    """Returns gradients of a model under FSDP that computes its loss in its own forward."""
    from parallel_model import Whole
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = Whole()
    fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    ids, targets = toy_batch(0)
    share = len(ids) // size
    loss = model(ids[rank * share :][:share], targets[rank * share :][:share], rank * share)
    loss.backward()
    return {name: value.grad.full_tensor() for name, value in model.named_parameters()}


def main():
    folder, rank, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    # A rank that waits in vain for another says so, long before the test gives up.
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=100),
    )
    found = {"quick": quick, "fsdp": fsdp}[sys.argv[4]](rank, size)
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
