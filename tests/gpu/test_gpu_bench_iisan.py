"""Suite `iisan` on a GPU: its figures are the device's, and all its peers do their work there."""

import pytest
import torch

from effrec_cli.bench import iisan, iisan_work
from effrec_cli.bench.suites import Options

pytestmark = pytest.mark.gpu

MODES, CACHE, *_ = iisan.cells(Options(torch.device("cpu"), quick=True))
EAGER = [peer for peer in iisan.available() if "compiled" not in peer]


@pytest.mark.parametrize("peer", EAGER)
def test_every_mode_has_its_figures(gpu, peer):
    figures = iisan.trial(MODES, peer, gpu)()
    assert set(figures) < set(iisan.UNITS)
    assert {"launches", "peak memory", "step"} <= set(figures)
    assert min(figures.values()) > 0


def test_a_step_of_512_windows_launches_as_much_as_one_of_64_and_less_compiled(gpu):
    shape, found = MODES.parameters | {"users": 1200, "items": 600}, {}
    for peer in (iisan.CACHED, iisan.COMPILED):
        for windows in (64, 512):
            work = iisan_work.prepared(shape | {"windows": windows}, iisan.PEERS[peer], gpu)
            found[peer, windows] = work.counts["launches"]
        least, most = sorted(found[peer, windows] for windows in (64, 512))
        assert most <= 1.1 * least, "a library may part a larger product"
    assert found[iisan.COMPILED, 64] < found[iisan.CACHED, 64]


def test_what_is_held_is_all_that_tensors_hold(gpu):
    before = torch.cuda.memory_allocated(gpu)
    work = iisan_work.make_work(MODES.parameters, iisan.PEERS["fft"], gpu)
    work.run(1)
    known = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in work._held()}
    assert work.held_bytes() - before >= sum(known.values())


@pytest.mark.parametrize("peer", CACHE.peers)
def test_all_items_are_read(gpu, peer):
    assert iisan.trial(CACHE, peer, gpu)()["all items"] > 0
