"""Benchmarks on a GPU: the clock and the memory figures are the device's."""

import pytest
import torch

from effrec_cli.bench import clock, loss
from effrec_cli.bench.loss_peers import available
from effrec_cli.bench.suites import Options
from effrec_cli.evaluation.cost import CostMeter

pytestmark = pytest.mark.gpu


def test_extra_memory_is_what_tensors_held_at_the_peak(gpu):
    held = torch.ones(1 << 20, device=gpu)
    assert clock.extra_bytes(lambda: held.repeat(8).sum(), gpu) == pytest.approx(8 * held.nbytes, rel=0.01)


def test_every_loss_here_is_near_float64(gpu):
    (cell,) = loss.cells(Options(gpu, quick=True))
    for peer in available(gpu):
        figures = loss.trial(cell, peer, gpu)()
        assert figures["error of loss"] < 1e-2, peer
        assert figures["error of gradient"] < 2e-2, peer
        assert figures["time"] > 0


def test_meter_waits_for_the_device_and_sees_the_allocators_peak(gpu):
    meter = CostMeter(gpu)
    meter.start()
    meter.epoch_started()
    large = torch.randn(4096, 4096, device=gpu)
    for _ in range(50):
        torch.mm(large, large)
    meter.epoch_ended()
    meter.stop()
    cost = meter.costs(torch.nn.Linear(2, 2), training_rows=1)
    least_seconds = 50 * 2 * 4096**3 / 3e15
    assert cost.seconds_per_epoch > least_seconds
    assert cost.peak_memory_bytes >= 2 * large.nbytes
    assert cost.memory_kind == "cuda_allocated"
