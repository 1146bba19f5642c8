"""Method dsl: settings that contradict each other, or that nothing would read."""

import pytest

from effrec_cli import compose
from effrec_cli.errors import ConfigError

WRONG = {
    "mode=dense method.density=0.1": ("method.density", "it is for mode=dsl or rigl or set or static"),
    "mode=static method.drop_rate=0.1": ("method.drop_rate", "it is for mode=dsl or rigl or set, not static"),
    "mode=set method.window=0.5": ("method.window", "it is for mode=dsl or rigl, not set"),
    "mode=dense method.structure=global": ("method.structure", "would do nothing"),
    "mode=dense_int8 method.values=bf16": ("method.values", "would do nothing"),
    "mode=dense_small method.density=0.001 method.dim=100": None,
    "mode=dsl method.drop_rate=0.1 method.final_rate=0.2": ("method.final_rate", "falls"),
    "mode=dsl method.redistribute=true": ("method.redistribute", "may leave its row"),
    "mode=static method.redistribute=true": ("method.redistribute", "would do nothing"),
    "mode=dsl optimizer=sgd": ("optimizer.name", "moved by Adam"),
    "mode=dsl optimizer.betas=[0.9,0.9999]": ("optimizer.betas", "16 bits"),
    "mode=dsl method.layers=2of4": ("method.layers", "model=bpr_mf has no network over vectors"),
    "mode=dsl model=sasrec method.layers=2of4": ("method.layers", "would do nothing"),
    "mode=dsl model=multvae method.layers=2of4": ("method.layers", "would do nothing"),
    "mode=dsl model=neumf method.layers=2:4": ("method.layers", "'2:4' is not a choice"),
    "mode=dense model=dlrm method.layers=2of4": None,
    "mode=dsl method.density=0": ("method.density", "too small"),
    "mode=dsl method.dim=40000": ("method.dim", "32768"),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_would_do_nothing_is_told(words):
    overrides = ["method=dsl", *f"method.{words}".split()]
    if WRONG[words] is None:
        compose.compose(overrides)
        return
    place, what = WRONG[words]
    with pytest.raises(ConfigError) as caught:
        compose.compose(overrides)
    assert caught.value.where == place
    assert what in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("mode", ["dense", "static"])
def test_slow_moments_are_for_numbers_that_stay(mode):
    compose.compose(["method=dsl", f"method.mode={mode}", "optimizer.betas=[0.9,0.9999]"])
