"""Method gram on a GPU: a CPU's gradients in every mode, finite bf16 training, memory that does not grow."""

import pytest
import torch

from effrec_cli.bench import gram, gram_work
from effrec_cli.bench.suites import Options

pytestmark = pytest.mark.gpu

CELLS = gram.cells(Options(torch.device("cpu"), quick=True))
EACH = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)


def make(cell, peer, device, **parameters):
    """Returns a mode's whole work on a device, not warmed up."""
    own, shape = gram.PEERS[peer], cell.parameters | parameters
    return gram_work.make_work(shape, own.settings, own.steps or shape["steps"], device)


@pytest.fixture
def exact(monkeypatch):
    """Lets nothing differ between devices but rounding: no dropout, fp32, and weights that stay."""
    config_of = gram_work.config_of

    def still(*args):
        config = config_of(*args)
        config.model.dropout = config.method.encoder.dropout = config.optimizer.lr = 0.0
        config.run.precision = "fp32"
        return config

    monkeypatch.setattr(gram_work, "config_of", still)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def updates_of(work):
    """Returns the gradients of each update, of encoder and filter as one vector on the CPU."""
    found, check = [], work.engine.check

    def watched(norm):
        parameters = [p for p in work.engine._parameters if p.grad is not None]
        found.append(torch.cat([p.grad.flatten() for p in parameters]).double().cpu())
        check(norm)

    work.engine.check = watched
    work.run()
    return found


@EACH
@pytest.mark.parametrize("peer", gram.PEERS)
def test_gradients_of_every_mode_are_those_of_a_cpu(gpu, exact, cell, peer):
    there, here = (updates_of(make(cell, peer, device)) for device in (gpu, torch.device("cpu")))
    assert [len(one) for one in there] == [len(one) for one in here]
    # regress subtracts vectors that differ by a gradient, which costs digits on either device.
    tolerance = 5e-2 if "regress" in peer else 1e-3
    for found, true in zip(there, here, strict=True):
        assert (found - true).norm() <= tolerance * true.norm()


@EACH
@pytest.mark.parametrize("peer", [peer for peer in gram.PEERS if "regress" not in peer])
def test_no_step_waits_for_the_device(gpu, cell, peer):
    """Not the LSTM's dropout either, nor the indices of chunks; `regress` says a ratio a cycle, and waits."""
    work = make(cell, peer, gpu)
    work.run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@EACH
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 2e-2)])
def test_a_second_encoding_draws_the_dropout_of_the_first(gpu, monkeypatch, cell, precision, tolerance):
    """Without a graph attention might be another kernel than with one; other masks would be a third off."""
    config_of = gram_work.config_of

    def drawing(*args):
        config = config_of(*args)
        config.model.dropout = config.optimizer.lr = 0.0
        config.method.encoder.dropout, config.run.precision = 0.3, precision
        return config

    monkeypatch.setattr(gram_work, "config_of", drawing)
    fused, recomputed = (
        updates_of(make(cell, f"single_step, {way}", gpu)) for way in ("fused", "recomputed")
    )
    for found, true in zip(recomputed, fused, strict=True):
        assert (found - true).norm() <= tolerance * true.norm()


@EACH
@pytest.mark.parametrize("peer", [peer for peer in gram.PEERS if "regress" not in peer])
def test_bf16_training_stays_finite_and_keeps_vectors_in_float32(gpu, cell, peer):
    work = make(cell, peer, gpu)
    for _ in range(3):
        work.run()
    assert work.engine.precision == "bf16"
    assert work.engine.guard.failure() is None
    model = work.mode.parts
    weights = [*model.encoding.encoder.parameters(), *model.filter.parameters()]
    assert all(torch.isfinite(weight).all() and weight.dtype == torch.float32 for weight in weights)
    vectors = work.mode.table(work.engine.autocast)
    assert vectors.dtype == torch.float32
    assert torch.isfinite(vectors).all()


def peak_mib(gpu, peer, windows):
    shape = {"answers": 100, "items": 1000, "tokens": 64, "batch_tokens": 16_384, "steps": 2}
    work = make(CELLS[0], peer, gpu, **shape, windows=windows, encoder=gram_work.SMALL)
    work.warm_up()
    return work.figures()["peak memory"]


def test_memory_of_recomputing_is_that_of_a_micro_batch_however_large_the_step(gpu):
    small, large = (peak_mib(gpu, "single_step, recomputed", windows) for windows in (8, 64))
    plain_small, plain_large = (peak_mib(gpu, "e2e", windows) for windows in (8, 64))
    assert large < 1.5 * small
    assert plain_large > 5 * plain_small
    assert large < 0.4 * plain_large


def test_a_step_too_large_for_the_device_is_parted(gpu):
    """The whole step's graph would take more than the device has, so that micro-batches have to do."""
    shape = CELLS[0].parameters | {"answers": 100, "items": 1000, "tokens": 64, "batch_tokens": 16_384}
    torch.cuda.set_per_process_memory_fraction(4 * 2**30 / torch.cuda.mem_get_info(gpu)[1])
    try:
        settings = {"windows": 64, "steps": 2, "encoder": gram_work.SMALL}
        work = gram_work.prepared(shape | settings, gram.PEERS["e2e"].settings, 2, gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(work.steps[0]) > 1
    assert work.interactions == 2 * 64 * 100
