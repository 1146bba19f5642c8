"""Settings of method cadc and of samples: those that nothing would read are refused, and no others."""

import pytest

from effrec_cli import compose
from effrec_cli.errors import ConfigError

LABELLED = ("model=dlrm", "dataset=synthetic", "method.task=ctr")
REFUSED = {
    "power=2.0 would do nothing: it is for mode=propensity, not uniform.": (
        ["method.sample.power=2"],
        "method.sample.power",
        "method.sample.mode=propensity, or method.sample.power=0.5",
    ),
    "max_weight=5.0 would do nothing: it is for mode=propensity, not exact.": (
        ["dataset.sample.rate=0.5", "dataset.sample.mode=exact", "dataset.sample.max_weight=5"],
        "dataset.sample.max_weight",
        "dataset.sample.mode=propensity, or dataset.sample.max_weight=100.0",
    ),
    "epochs=3 would do nothing: it is for mode=forgetting, not uniform.": (
        ["method.sample.forgetting.epochs=3"],
        "method.sample.forgetting.epochs",
        "method.sample.mode=forgetting, or method.sample.forgetting.epochs=50",
    ),
    "dim=4 would do nothing: it is for proxy=mf, not bias.": (
        ["method.sample.mode=forgetting", "method.sample.forgetting={proxy:bias,dim:4}"],
        "method.sample.forgetting.dim",
        "method.sample.forgetting.proxy=mf, or method.sample.forgetting.dim=10",
    ),
    "seed=7 would do nothing: it is for mode=uniform or exact or per_user or per_item or user or head or "
    "propensity or forgetting, not temporal.": (
        ["method.sample.mode=temporal", "method.sample.seed=7"],
        "method.sample.seed",
        "method.sample.mode=uniform, or method.sample.seed=42",
    ),
    "mode=exact would do nothing: it is for a rate below 1, not 1.0.": (
        ["method.sample.rate=1", "method.sample.mode=exact"],
        "method.sample.mode",
        "method.sample.rate=0.1, or method.sample.mode=uniform",
    ),
    "seed=7 would do nothing: it is for a rate below 1, not 1.0.": (
        ["dataset.sample.seed=7"],
        "dataset.sample.seed",
        "dataset.sample.rate=0.1, or dataset.sample.seed=42",
    ),
    "negatives=2 would do nothing: it is for a rate below 1, not 1.0.": (
        ["dataset.sample.forgetting.negatives=2"],
        "dataset.sample.forgetting.negatives",
        "dataset.sample.rate=0.1, or dataset.sample.forgetting.negatives=1",
    ),
    "num_negatives=9 would do nothing: it is for loss=bce or cce_sampled, not softmax.": (
        ["method.loss=softmax", "method.num_negatives=9"],
        "method.num_negatives",
        "method.loss=bce, or method.num_negatives=4",
    ),
    "num_negatives=9 would do nothing: it is for loss=bce or cce_sampled, not cce.": (
        ["method.loss=cce", "method.num_negatives=9"],
        "method.num_negatives",
        "method.loss=bce, or method.num_negatives=4",
    ),
    "text_dim=8 would do nothing: it is for attributes with text, not [dense,flags].": (
        ["method.attributes=[dense,flags]", "method.text_dim=8"],
        "method.text_dim",
        "method.attributes=[dense,flags,text], or method.text_dim=32",
    ),
    "sweeps=3 would do nothing: it is for vectors that are factorised, not rand.": (
        ["method.embedding=rand", "method.factors.sweeps=3"],
        "method.factors.sweeps",
        "method.embedding=init_frz, or method.factors.sweeps=null",
    ),
    "kind=bpr would do nothing: it is for vectors that are factorised, not rand.": (
        ["method.embedding=rand", "method.factors.kind=bpr"],
        "method.factors.kind",
        "method.embedding=init_frz, or method.factors.kind=ials",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_setting_that_nothing_reads_is_refused_alone(what):
    words, where, fix = REFUSED[what]
    method = "method=pop" if where.startswith("dataset") else "method=cadc"
    with pytest.raises(ConfigError) as refusal:
        compose.compose([method, *words])
    assert (refusal.value.what, refusal.value.where, refusal.value.fix) == (what, where, fix)
    compose.compose([method, *words, fix.rpartition(", or ")[2]])  # of one key the later word counts


@pytest.mark.parametrize(
    "words",
    [
        ["method.sample={mode:propensity,power:2,max_weight:5,seed:7}"],
        ["method.sample.mode=forgetting", "method.sample.forgetting={dim:4,epochs:3,per_user:true}"],
        ["method.sample.mode=forgetting", "method.sample.forgetting={proxy:bias,lr:0.1}"],
        ["dataset.sample={rate:0.5,mode:exact,seed:7}", "method.sample.rate=1"],
        ["method.loss=cce_sampled", "method.num_negatives=9"],
        ["method.attributes=[text]", "method.text_dim=8"],
        ["method.embedding=rand", "method.factors.dim=16"],
        [*LABELLED, "method.negative_rate=0.5", "method.sample={rate:1,seed:7}"],
    ],
)
def test_a_setting_that_something_reads_is_taken(words):
    compose.compose(["method=cadc", *words])


def test_the_seed_of_labelled_rows_draws_nothing_where_all_are_kept():
    with pytest.raises(ConfigError, match="seed=7 would do nothing: it is for a rate below 1"):
        compose.compose(["method=cadc", *LABELLED, "method.sample={rate:1,seed:7}"])


def test_all_that_nothing_reads_is_told_at_once():
    with pytest.raises(ConfigError) as refusal:
        compose.compose(["method=cadc", "method.sample={rate:1,mode:forgetting,seed:3,forgetting:{dim:4}}"])
    assert refusal.value.what.startswith("3 settings are wrong.")
    assert "method.sample.forgetting.dim: dim=4 would do nothing: it is for a rate" in str(refusal.value)
