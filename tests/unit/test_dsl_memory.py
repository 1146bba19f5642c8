"""What sparse tables take while they train: the packed formula and no more (papers/dsl section 5)."""

import pytest
import torch
from dsl_helpers import begun, step
from pair_helpers import data_of
from torch.profiler import ProfilerActivity, profile

USERS, ITEMS, BATCH = 6000, 3000, 64
BLOCK = 1 << 18
"""Numbers that are looked at together when places change."""


def drawn_data():
    draw = torch.Generator().manual_seed(0)
    return data_of(torch.randint(0, ITEMS, (USERS, 2), generator=draw).tolist(), num_items=ITEMS)


def peak_of(run):
    """Returns the most bytes that are allocated at once while `run` runs, and the largest piece."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = largest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak, largest = max(peak, alive), max(largest, event.nbytes())
    return peak, largest


def held(method, optimizers):
    from effrec_cli.evaluation.held import optimizer_bytes, weights_bytes

    return weights_bytes(method.model), optimizer_bytes(optimizers)


@pytest.mark.parametrize(("density", "most"), [(0.25, 0.45), (0.1, 0.2)])
@pytest.mark.parametrize("structure", ["row", "global"])
def test_tables_and_their_states_are_as_large_as_the_formula(structure, density, most):
    dim, rows = 128, USERS + ITEMS
    words = [f"method.density={density}", "method.dim=128", f"method.structure={structure}"]
    method, batches, engine = begun(*words, "method.batch_size=64", data=drawn_data(), total_steps=1000)
    step(method, batches, engine, 2)
    weights, states = held(method, engine.optimizers)
    live = method.sparsity()["live"]
    offsets = 8 * (rows + 2) if structure == "global" else 0
    assert weights == live * (4 + 1) + offsets
    assert states == live * (4 + 4 + 2)
    sums = sum(tensor.nbytes for tensor in method.extra_tensors().values())
    assert sums <= weights + states + 4 * dim
    dense = rows * dim * (4 + 4 + 4 + 4)
    assert weights + states + sums + engine.gradient_bytes < most * dense, "of a dense table as it is usual"


@pytest.mark.parametrize("structure", ["row", "global"])
def test_neither_a_step_nor_an_update_makes_a_dense_table(structure, monkeypatch):
    from effrec_cli.models.sparse import places

    monkeypatch.setattr(places, "BLOCK", 1 << 13)
    dim = 512
    words = [f"method.dim={dim}", "method.density=0.02", f"method.structure={structure}", "method.turns=20"]
    method, batches, engine = begun(
        *words, f"method.batch_size={BATCH}", "method.update_every=2", data=drawn_data(), total_steps=1000
    )
    interval = method._rewiring.plan.interval
    step(method, batches, engine, interval - 1)
    peak, largest = peak_of(lambda: step(method, batches, engine, 2))
    assert method._told
    table = USERS * dim * 4
    live = method.sparsity()["live"]
    read = 3 * BATCH * dim * 4
    sums = (USERS + ITEMS) // 20 * dim * 4
    # A few copies of what a step reads; for ragged rows where each number comes from, and one new array.
    assert peak < 6 * read + 1.1 * sums + (8 * live if structure == "global" else 2 * live) + 12 * 8 * (
        1 << 13
    )
    assert largest < table / 8
