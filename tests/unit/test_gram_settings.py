"""Settings of method gram: what would do nothing or contradicts is named before anything is prepared."""

import pytest

from effrec_cli import compose
from effrec_cli.errors import ConfigError
from effrec_cli.schema.method_gram import MODES, OF_UPDATE, GRAMConfig, gram_problems

MULTI = {"mode": "multi_step"}
SHARED = {**MULTI, "update": "inject_single", "update_share": 0.5}
REGRESS = {**MULTI, "update": "regress"}
KEPT = [
    *({"mode": mode, "period": 3.0, "update": "inject_multi"} for mode in MODES),
    {"recompute": True},
    {"recompute": False},
    {"memory_share": 0.2},
    {**MULTI, "period": 0.5, "period_unit": "epochs", "update": "inject_multi", "update_items": 8},
    {**MULTI, "refresh": "eager", "probe_every": 2, "adapt_period": True},
    {**MULTI, "drift": 0.5},
    {**SHARED, "update_by": "age"},
    {**REGRESS, "passes": 3, "drift": 0.1, "update_items": None},
]
REFUSED = [
    ({**MULTI, "recompute": True}, "recompute", "for mode=single_step, not multi_step"),
    ({"mode": "e2e", "memory_share": 0.2}, "memory_share", "for mode=single_step, not e2e"),
    ({"recompute": False, "memory_share": 0.2}, "memory_share", "for recompute=null, not false"),
    ({"refresh": "eager"}, "refresh", "for mode=multi_step, not single_step"),
    ({"mode": "frozen", "probe_every": 1}, "probe_every", "for mode=multi_step, not frozen"),
    ({"drift": 0.5}, "drift", "only multi_step has"),
    ({"update_items": 8}, "update_items", "for mode=multi_step, not single_step"),
    ({"mode": "e2e_dedup", "passes": 2}, "passes", "for mode=multi_step, not e2e_dedup"),
    ({**MULTI, "update_items": 8}, "update_items", "for update=inject_multi or regress, not inject_single"),
    ({**MULTI, "update": "inject_multi", "passes": 2}, "passes", "for update=regress, not inject_multi"),
    ({**REGRESS, "update_share": 0.5}, "update_share", "for update=inject_multi or inject_single"),
    ({**REGRESS, "update_by": "age"}, "update_by", "for update=inject_multi or inject_single"),
    ({**REGRESS, "drift": 0.0}, "drift", "without drift nothing is to learn"),
    ({**MULTI, "update_by": "popularity"}, "update_by", "no item has to wait"),
    ({**MULTI, "period": 2.5}, "period", "whole steps, not 2.5"),
    ({**MULTI, "period": 2.0, "period_unit": "epochs"}, "period", "would be one epoch"),
    ({**MULTI, "adapt_period": True}, "adapt_period", "never probes"),
]


@pytest.mark.parametrize("given", KEPT, ids=str)
def test_settings_that_fit_together_are_kept(given):
    assert not list(gram_problems(GRAMConfig(**given), "news"))


@pytest.mark.parametrize(("given", "name", "said"), REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_one_problem_names_the_setting_says_why_and_what_to_write(given, name, said):
    (problem,) = gram_problems(GRAMConfig(**given), "news")
    assert problem.path == f"method.{name}"
    assert said in problem.what
    assert "method." in problem.fix


def test_every_setting_of_an_update_is_refused_elsewhere():
    assert {row[1] for row in REFUSED} >= set(OF_UPDATE)


COMMAND_LINES = [
    (["model=dkt", "method.num_negatives=3"], "method.num_negatives"),
    (["model=dkt", "method.next_item.window=last"], "method.next_item"),
    (["model=dkt", "method.mode=fused"], "method.mode"),
    (["method.encoder.pooling=max"], "method.encoder.pooling"),
    (["dataset=table", "dataset.path=log.csv"], "dataset.title"),
    (["method.mode=multi_step", "method.update=regress", "run.precision=bf16"], "run.precision"),
    (["method.period=0"], "method.period"),
    (["method.update_share=1.5"], "method.update_share"),
    (["method.mode=frozen", "optimizer.sparse_rows=true"], "optimizer.sparse_rows"),
]


@pytest.mark.parametrize(("overrides", "said"), COMMAND_LINES, ids=[str(row[0]) for row in COMMAND_LINES])
def test_a_command_line_that_cannot_mean_anything(overrides, said):
    with pytest.raises(ConfigError) as caught:
        compose.compose(["method=gram", *overrides])
    assert said in str(caught.value)
    assert caught.value.fix or caught.value.nearest
