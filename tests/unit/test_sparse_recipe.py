"""The recipe of docs/sparse.md runs as it is written, in one process and in two."""

import os
import re
from pathlib import Path

import effrec_kernels
import pytest
import torch
import torch.distributed as dist
from torch import nn

ITEMS, LENGTH, RANKS = 400, 8, 2
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (Path(__file__).parents[2] / "docs" / "sparse.md").read_text(), re.M | re.S
)
TRAIN, CLIP, EXCHANGE = (block.replace("10_000_000", str(ITEMS)) for block in BLOCKS)
CALL = re.compile(r"^(clip|exchange_rows)\(.*", re.M)
"""What stands below a definition, to be called between backward and the steps."""


def batches(seed, number=3):
    draw = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(ITEMS, (4, LENGTH), generator=draw) for _ in "it") for _ in range(number)]


def recipe(*blocks, **names):
    """Returns the names that the blocks leave; what is called between backward and the steps is not."""
    torch.manual_seed(0)
    for block in blocks:
        exec(CALL.sub("", block), names)
    return names


def prepared(*blocks):
    """Returns the names before any step."""
    return recipe(TRAIN, *blocks, batches=[])


def backward(found, inputs, targets, sparse=True, **options):
    """Makes gradients, by the wrapped model where there is one."""
    model = found["model"]
    loss = effrec_kernels.sampled_cross_entropy(
        found.get("wrapped", model)(inputs).flatten(0, 1), found["table"], targets.flatten(),
        num_negatives=15, sharing=8, sparse=sparse, **options,
    )  # fmt: skip
    loss.backward()


def test_the_loop_trains_table_and_rest():
    before = prepared()
    after = recipe(TRAIN, batches=batches(1))
    moved = (after["table"] != before["table"]).any(1)
    drawn = torch.cat([inputs.flatten() for inputs, _ in batches(1)]).unique()
    assert moved[drawn].all()
    assert not torch.equal(after["rest"][0], before["rest"][0])


def test_adam_over_all_parameters_raises_as_is_said():
    found = prepared()
    backward(found, *batches(1)[0])
    with pytest.raises(RuntimeError, match="sparse"):
        torch.optim.Adam(found["model"].parameters(), fused=True).step()


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_clipping_is_that_of_dense_gradients(limit):
    rows, dense = prepared(CLIP), prepared(CLIP)
    dense["model"].items.sparse = False
    backward(rows, *batches(1)[0])
    backward(dense, *batches(1)[0], sparse=False)
    norm = rows["clip"](rows["model"].parameters(), limit)
    wanted = nn.utils.clip_grad_norm_(dense["model"].parameters(), limit)
    torch.testing.assert_close(norm, wanted)
    for one, other in zip(rows["model"].parameters(), dense["model"].parameters(), strict=True):
        torch.testing.assert_close(one.grad.to_dense(), other.grad)
    with pytest.raises(NotImplementedError):
        nn.utils.clip_grad_norm_(rows["model"].parameters(), limit)


def test_a_padding_row_that_is_left_out_is_no_candidate():
    table, hidden = torch.randn(9, 4, requires_grad=True), torch.randn(6, 4)
    targets = torch.tensor([0, 1, 8, 3, 0, 2])
    options = {"num_negatives": 50, "ignore_index": -1}
    loss = effrec_kernels.sampled_cross_entropy(hidden, table[1:], targets - 1, **options)
    loss.backward()
    assert table.grad[0].eq(0).all()
    assert table.grad[1:].ne(0).any(1).all()
    losses = effrec_kernels.sampled_cross_entropy(hidden, table[1:], targets - 1, reduction="none", **options)
    assert losses.eq(0).tolist() == targets.eq(0).tolist()


def on_a_rank(rank, store):
    """Takes a step of one rank and holds it against dense gradients, and against the other rank."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    rows, dense = prepared(CLIP, EXCHANGE), prepared()
    dense["model"].items.sparse = False
    for found, sparse in ((rows, True), (dense, False)):
        inputs, targets = batches(rank)[0]
        targets[rank:, :] = -100  # so that ranks have unequal numbers of rows
        backward(found, inputs, targets, sparse, row_offset=rank * inputs.numel())
    rows["exchange_rows"](rows["table"])
    for parameter in dense["model"].parameters():
        dist.all_reduce(parameter.grad)
    for one, other in zip(rows["model"].parameters(), dense["model"].parameters(), strict=True):
        torch.testing.assert_close(one.grad.to_dense(), other.grad / RANKS)
    rows["clip"](rows["model"].parameters(), 1e-3)
    for optimizer in rows["optimizers"]:
        optimizer.step()
    for parameter in rows["model"].parameters():
        theirs = parameter.detach().clone()
        dist.broadcast(theirs, src=0)
        assert torch.equal(parameter, theirs)
    dist.barrier()
    os._exit(0)  # gloo's threads may outlive what the wrapped model holds of the group, which aborts an exit


def test_ranks_exchange_rows(tmp_path):
    torch.multiprocessing.spawn(on_a_rank, (str(tmp_path / "store"),), nprocs=RANKS)
