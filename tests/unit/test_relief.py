"""What is advised when memory runs out: settings that exist, and that lower what a step holds."""

import re

import pytest
import torch
from iisan_helpers import built

from effrec_cli import compose, registry
from effrec_cli.data.batches import Share
from effrec_cli.errors import OutOfMemoryError
from effrec_cli.loop.outofmemory import explained

OF_A_STEP = ["method.batch_size=64"]
TOLD_IN_BATCH = ["method.next_item.candidates=batch", "method.next_item.correction=popularity"]
IISAN, GRAM = ["method=iisan", *OF_A_STEP], ["method=gram", *OF_A_STEP]
LIVE = ["method.cache.use=false"]
SPLIT, HALF, AGAIN = "run.accumulate=2", "method.batch_size=32", "method.recompute=true"
IISAN_TOKENS, GRAM_TOKENS = "method.batch_tokens=4096", "method.encoder.batch_tokens=4096"
# Settings, and what is advised, in order.
CASES = {
    "cce": (["method=cce", *OF_A_STEP], [SPLIT, HALF]),
    "fft": ([*IISAN, "method.mode=fft"], [AGAIN, HALF]),
    "fft, recomputed": ([*IISAN, "method.mode=fft", AGAIN], [IISAN_TOKENS, SPLIT, HALF]),
    "frozen, live": ([*IISAN, *LIVE, "method.mode=frozen"], [IISAN_TOKENS, HALF]),
    "iisan": (IISAN, [HALF, IISAN_TOKENS]),
    "gram": (GRAM, [AGAIN, HALF]),
    "gram, in batch": ([*GRAM, *TOLD_IN_BATCH], [AGAIN, HALF]),
    "gram, recomputed": ([*GRAM, *TOLD_IN_BATCH, AGAIN], [GRAM_TOKENS, SPLIT, HALF]),
    "gram, by cycles": ([*GRAM, "method.mode=multi_step"], [GRAM_TOKENS, SPLIT, HALF]),
    "gram, end to end": ([*GRAM, "method.mode=e2e_dedup"], [f"method.mode=single_step {AGAIN}", HALF]),
    # Impressions hold their own candidates: the parts of a step have fewer.
    "gram, news": (
        ["experiment=paper_gram_mind", *OF_A_STEP],
        [AGAIN, SPLIT, HALF],
    ),
}


def advised(words):
    """Returns the settings that each line of advice begins with."""
    config = compose.compose(words)
    lines = registry.implementation("methods", config.method.name)(config).relief()
    return [re.match(r"[\w.]+=\w+( [\w.]+=\w+)*", line)[0] for line in lines]


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_helps_there(name):
    words, settings = CASES[name]
    assert advised(words) == settings


@pytest.mark.parametrize("name", CASES)
def test_it_can_be_followed_to_other_advice(name):
    """Each is a setting that the run takes."""
    words, settings = CASES[name]
    for each in settings:
        assert advised([*words, *each.split()]) != settings


def test_it_is_told_when_memory_runs_out(tmp_path):
    """To no end is who fine-tunes backbones sent to micro-batches: each encodes all items of the step."""
    method = built(tmp_path, mode="fft")
    whole, half = (method.batches(method.data).batch(0, 0, Share(micros=n), 0) for n in (1, 2))
    assert half.host["items"].tolist() == whole.host["items"].tolist()
    with pytest.raises(OutOfMemoryError) as caught, explained(method, torch.device("cpu")):
        raise MemoryError
    assert "method.recompute=true" in caught.value.fix
    assert "method.batch_size=8" in caught.value.fix
    assert "accumulate" not in caught.value.fix
