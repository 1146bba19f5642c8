"""Two processes train and judge as one, in float64, in every mode."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from iisan_helpers import relative
from iisan_ranks import CASES, one_rank, run_case

SIZE = 2
EACH = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank found, and the folder in which they did; both asked for caches that were not there."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(one_rank, (str(folder), SIZE), nprocs=SIZE)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(SIZE)], folder


@EACH
def test_two_processes_are_one(ranks, name):
    found, folder = ranks
    alone = run_case(folder / "root", **CASES[name])
    total = [sum(losses) for losses in zip(*(each[name]["losses"] for each in found), strict=True)]
    assert total == pytest.approx(alone["losses"], rel=1e-7)
    for each in found:
        for part, whole in zip(each[name]["gradients"], alone["gradients"], strict=True):
            assert part.keys() == whole.keys()
            for parameter in whole:
                assert torch.allclose(part[parameter], whole[parameter], rtol=1e-6, atol=1e-9), parameter
        for parameter, weight in alone["weights"].items():
            assert torch.allclose(each[name]["weights"][parameter], weight, rtol=1e-5, atol=1e-6), parameter
        assert torch.allclose(each[name]["table"], alone["table"], rtol=1e-5, atol=1e-6)
        assert each[name]["judged"] == pytest.approx(alone["judged"], abs=1e-6)


LIVE = ["iisan, live", *(name for name, case in CASES.items() if case.get("mode", "frozen") != "frozen")]


@pytest.mark.parametrize("name", LIVE)
def test_each_item_is_encoded_by_one_rank_where_backbones_run(ranks, name):
    """By both together as often as by one process: what one of them encodes, the other does not."""
    found, folder = ranks
    alone = run_case(folder / "root", **CASES[name])["encoded"]
    for again in (False, True):
        counts = [Counter(items_of(each[name]["encoded"], again)) for each in found]
        assert counts[0] + counts[1] == Counter(items_of(alone, again))
    assert any(again for _, again in alone) is (name == "fft, recomputed")
    assert all(each[name]["encoded"] for each in found), "both have work"


def items_of(encoded, again):
    return [row for rows, second in encoded for row in rows if second is again]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fft")])
def test_two_processes_have_the_gradient_of_one(ranks, name):
    found, folder = ranks
    alone = run_case(folder / "root", **CASES[name])["gradients"][0]
    whole = torch.cat([gradient.flatten() for gradient in alone.values()])
    for each in found:
        own = torch.cat([each[name]["gradients"][0][parameter].flatten() for parameter in alone])
        assert relative(own, whole) < 1e-12


@EACH
def test_ranks_end_with_the_same_weights(ranks, name):
    one, other = (each[name] for each in ranks[0])
    assert all(torch.equal(one["weights"][each], other["weights"][each]) for each in one["weights"])
    assert one["judged"] == other["judged"]


def test_ranks_end_with_the_same_weights_where_modalities_are_dropped_out(ranks):
    one, other = (each["modality dropout"] for each in ranks[0])
    assert one["losses"] != other["losses"]
    assert all(torch.equal(one["weights"][each], other["weights"][each]) for each in one["weights"])


def test_ranks_make_a_cache_once(ranks):
    folders = {path for path in Path(ranks[1], "root", "features").iterdir() if path.is_dir()}
    assert len(folders) == 4, "seven taps' and the frozen model's, of texts and of images"
