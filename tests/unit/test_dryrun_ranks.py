"""A look at a run of several ranks, none of which is there: the first one's part of each step."""

from pathlib import Path

import pytest
import torch
from data_helpers import quiet
from iisan_helpers import config_of

from effrec_cli import dryrun
from effrec_cli.data.load import load
from effrec_cli.distributed import Imagined


@pytest.mark.parametrize("mode", ["iisan", "fft"])
def test_memory_of_one_of_two_ranks_is_told(mode, tmp_path):
    load(config_of(tmp_path).dataset, Path(tmp_path), quiet)
    alone, one = (
        dryrun.look(config_of(tmp_path, f"run.devices={ranks}", "method.batch_tokens=200", mode=mode))
        for ranks in (1, 2)
    )
    assert one["parameters"] == alone["parameters"]
    share = one["memory"]["activations"] / alone["memory"]["activations"]
    if mode == "fft":  # the items' graphs are dealt among the ranks
        assert 0.4 < share < 0.75
    else:
        assert 0 < share <= 1


def test_imagined_ranks_say_what_the_first_one_says():
    world, given = Imagined(size=3), torch.arange(4.0).view(2, 2)
    summed = given.clone()
    world.sum_([summed])
    assert torch.equal(summed, given)
    assert torch.equal(world.gather(given), torch.cat([given] * 3))
    assert world.agree([True, False]) == [True, False]
    assert (world.most([4]), world.union("ba")) == ([4], ["a", "b"])
