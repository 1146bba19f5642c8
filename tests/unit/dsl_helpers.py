"""Method dsl on small data in memory, its steps taken by hand."""

from types import SimpleNamespace

import torch
from cadc_helpers import held_out

from effrec_cli import compose
from effrec_cli.data.batches import Share
from effrec_cli.evaluation.held import gradient_bytes
from effrec_cli.methods.dsl import DSL
from effrec_cli.models.sparse.tables import PackedTable


def method_on(data, *words, seed=1):
    """Returns the method about to train, and its batches."""
    overrides = [
        "method=dsl",
        "data_root=/nowhere",
        f"seed={seed}",
        "run.device=cpu",
        "method.dim=12",
        *words,
    ]
    method = DSL(compose.compose(overrides))
    method.data = method.prepare(data)
    method.model = method.build(data)
    return method, method.batches(data)


def engine_of(method, batches, total_steps=40):
    """Returns what of an engine the method's own steps ask for; `loop` is left to the caller."""
    optimizers = method.optimizers(method.model)

    def update():
        held = gradient_bytes(method.model.parameters())
        engine.gradient_bytes = max(engine.gradient_bytes, held)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    engine = SimpleNamespace(
        gradient_bytes=0,
        optimizers=optimizers,
        steps=0,
        steps_per_epoch=batches.steps_per_epoch,
        total_steps=total_steps,
        last_micro_batch=True,
        scaler=None,
        autocast=lambda: torch.autocast("cpu", enabled=False),
        backward=lambda loss: loss.backward(),
        update=update,
        loop=lambda: None,
    )
    return engine


def begun(*words, data=None, total_steps=40, seed=1):
    """Returns the method, its batches and an engine, before the first step."""
    method, batches = method_on(data or held_out(), *words, seed=seed)
    engine = engine_of(method, batches, total_steps)
    method.fit(engine)
    return method, batches, engine


def step(method, batches, engine, times=1):
    """Takes some steps."""
    for _ in range(times):
        epoch, position = divmod(engine.steps, batches.steps_per_epoch)
        method.training_step(batches.batch(epoch, position, Share(), engine.steps), engine)
        engine.steps += 1


def dense_of(table):
    """Returns what a table stands for, float32 [N, d]."""
    if isinstance(table, PackedTable):
        from effrec_kernels.packed import unpack

        return unpack(table.packed).detach()
    return table.weights.detach().clone()


def mask_of(table):
    """Returns which numbers are live, bool [N, d]."""
    if not isinstance(table, PackedTable):
        return table.mask.clone()
    rows, dim = table.shape.rows, table.shape.dim
    if table.offsets is None:
        owner = torch.arange(rows)[:, None].expand_as(table.columns)
    else:
        owner = torch.repeat_interleave(table.offsets.diff())
    mask = torch.zeros(rows, dim, dtype=torch.bool)
    mask[owner.flatten(), table.columns.flatten().long()] = True
    return mask
