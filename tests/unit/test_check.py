"""Composed mappings to dataclasses: types, limits, unknown keys, contradictions."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effrec_cli import registry
from effrec_cli.errors import ConfigError
from effrec_cli.schema import Config, OptimizerConfig, RunConfig, check
from effrec_cli.schema.fields import setting
from effrec_cli.schema.method_cce import LOSSES, SOFTMAX
from effrec_cli.schema.model_sasrec import SASRecConfig
from effrec_cli.schema.problems import nearest_path
from effrec_cli.schema.values import WrongValue, check_limits, convert, describe


def composed(**sections):
    """Returns a small valid mapping with some sections changed."""
    base = {"dataset": {"family": "synthetic"}, "model": {"name": "sasrec"}, "method": {"name": "cce"}}
    return {**base, **{name: {**base.get(name, {}), **values} for name, values in sections.items()}}


def refused(raw, source=None):
    with pytest.raises(ConfigError) as caught:
        check.build(raw, source)
    return caught.value


def test_sections_are_the_registered_dataclasses():
    config = check.build(composed(model={"dim": 32}, optimizer={"lr": 1}))
    assert isinstance(config, Config)
    assert isinstance(config.model, SASRecConfig)
    assert type(config.dataset) is registry.schema("datasets", "synthetic")
    assert isinstance(config.optimizer, OptimizerConfig)
    assert config.model.dim == 32
    assert type(config.optimizer.lr) is float
    assert config.run == RunConfig()


def test_nested_sections_and_lists():
    config = check.build(composed(dataset={"filter": {"min_rating": 4}}, evaluation={"ks": [1, 10]}))
    assert config.dataset.filter.min_rating == 4.0
    assert config.evaluation.ks == [1, 10]


@pytest.mark.parametrize(
    ("section", "values", "where", "says"),
    [
        ("run", {"max_epochs": "3"}, "run.max_epochs", "a whole number, not the text '3'"),
        ("run", {"max_epochs": 3.5}, "run.max_epochs", "a whole number, not 3.5"),
        ("run", {"max_epochs": True}, "run.max_epochs", "a whole number, not true"),
        ("run", {"max_epochs": None}, "run.max_epochs", "a whole number, not null"),
        ("run", {"compile": 1}, "run.compile", "true or false, not 1"),
        ("run", {"compile": "yes"}, "run.compile", "true or false, not the text 'yes'"),
        ("run", {"dir": 3}, "run.dir", "text or null, not 3"),
        ("run", {"max_minutes": "long"}, "run.max_minutes", "a number or null, not the text"),
        ("run", {"max_steps": 0}, "run.max_steps", "0 is too small"),
        ("run", {"device": "tpu"}, "run.device", "'tpu' is not a choice"),
        ("optimizer", {"lr": False}, "optimizer.lr", "a number, not false"),
        ("optimizer", {"lr": 0}, "optimizer.lr", "0.0 is too small"),
        ("optimizer", {"lr": float("nan")}, "optimizer.lr", "a finite number, not nan"),
        ("optimizer", {"lr": float("inf")}, "optimizer.lr", "a finite number, not inf"),
        ("optimizer", {"final_lr_ratio": 1.5}, "optimizer.final_lr_ratio", "1.5 is too large"),
        (
            "optimizer",
            {"betas": [0.9, "x"]},
            "optimizer.betas",
            "Element 1: it must be a number, not the text 'x'",
        ),
        ("optimizer", {"betas": 0.9}, "optimizer.betas", "a list of numbers, not 0.9"),
        ("evaluation", {"ks": [1, None]}, "evaluation.ks", "Element 1: it must be a whole number, not null"),
        ("evaluation", {"ks": {"a": 1}}, "evaluation.ks", "a list of whole numbers, not a mapping"),
        ("model", {"dropout": 1}, "model.dropout", "1.0 is too large"),
        ("method", {"loss": "cse"}, "method.loss", "'cse' is not a choice"),
        ("dataset", {"split": "random"}, "dataset.split", "settings of its own"),
        ("dataset", {"split": {"kind": None}}, "dataset.split.kind", "must be text, not null"),
    ],
)
def test_values_that_do_not_fit(section, values, where, says):
    error = refused(composed(**{section: values}))
    assert error.where == where
    assert says in error.what


@pytest.mark.parametrize(
    ("section", "values", "where", "nearest"),
    [
        ("method", {"num_negativ": 1}, "method.num_negativ", "method.num_negatives"),
        ("run", {"lr": 1}, "run.lr", "optimizer.lr"),
        (
            "dataset",
            {"filter": {"min_ratings": 1}},
            "dataset.filter.min_ratings",
            "dataset.filter.min_rating",
        ),
        ("dataset", {"kind": "x"}, "dataset.kind", "dataset.split.kind"),
    ],
)
def test_unknown_keys_name_the_nearest(section, values, where, nearest):
    error = refused(composed(**{section: values}))
    assert (error.where, error.nearest) == (where, nearest)


def test_unknown_top_level_key():
    error = refused({**composed(), "sed": 3})
    assert (error.where, error.nearest) == ("sed", "seed")


@pytest.mark.parametrize(("section", "key"), [("dataset", "family"), ("model", "name"), ("method", "name")])
def test_sections_must_name_something_registered(section, key):
    assert f"{section}.{key}" in str(refused({**composed(), section: {}}))
    assert "ccee" in str(refused(composed(method={"name": "ccee"})))
    missing = composed()
    del missing[section]
    assert refused(missing).fix == f"{section}=NAME"


def test_all_problems_are_listed_first_first():
    error = refused(
        composed(method={"x": 1}, optimizer={"lr": "a", "betas": ["b"]}, run={"device": "gpuu"}), "my.yaml"
    )
    text = str(error)
    assert error.what.startswith("4 settings are wrong.")
    places = [text.index(name) for name in ("method.x", "optimizer.lr", "optimizer.betas", "run.device")]
    assert places == sorted(places)
    assert "where: my.yaml" in text


@pytest.mark.parametrize("name", ["x/../y", "/x", "a\0b", "a\tb", " ", "x" * 101, "ü" * 51])
def test_a_name_that_no_folder_can_have_is_refused(name):
    error = refused({**composed(), "name": name})
    assert (error.where, error.fix) == ("name", "name=WORD, or run.dir=PATH")


@pytest.mark.parametrize("name", ["x", "größer als 3", "a.b", "x" * 100, "", None])
def test_any_other_name_will_do(name):
    assert check.build({**composed(), "name": name}).name == name


def test_the_source_is_named():
    assert refused(composed(method={"x": 1}), "old/config.yaml").where == "old/config.yaml: method.x"


POWER = "method.popularity_power"
UNCORRECTED = tuple(loss for loss in LOSSES if loss not in SOFTMAX)


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"dataset": {"name": "a/../b"}}, "dataset.name"),
        ({"run": {"dir": ""}}, "run.dir"),
        ({"run": {"dir": " "}}, "run.dir"),
        ({"run": {"dir": "out\n"}}, "run.dir"),
        ({"evaluation": {"monitor": "ndcg@7"}}, "evaluation.monitor"),
        ({"evaluation": {"monitor": "ndgc@10"}}, "evaluation.monitor"),
        ({"evaluation": {"metrics": ["ndcg", "auc"]}}, "evaluation.metrics"),
        ({"evaluation": {"ks": [10, 5]}}, "evaluation.ks"),
        ({"evaluation": {"ks": [10, 10]}}, "evaluation.ks"),
        ({"evaluation": {"ks": [0, 10]}}, "evaluation.ks"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas"),
        ({"run": {"precision": "fp16", "device": "cpu"}}, "run.precision"),
        ({"run": {"patience": 3, "validate_every": 9, "max_epochs": 8}}, "run.patience"),
        ({"model": {"dim": 33, "num_heads": 2}}, "model.dim"),
        ({"method": {"in_batch": 256, "correction": "logq"}}, "method.in_batch"),
        ({"method": {"sampler": "block", "correction": "logq"}}, "method.sampler"),
        (
            {"method": {"sampler": "block", "num_negatives": 256, "in_batch": 7, "correction": "none"}},
            "method.sampler",
        ),
        ({"method": {"sampler": "popularity"}}, "method.correction"),
        ({"method": {"sampler": "popularity", "correction": "constant"}}, "method.correction"),
        ({"method": {"in_batch": 10}}, "method.correction"),
        ({"method": {"sampler": "block", "num_negatives": 256}}, "method.correction"),
        ({"method": {"loss": "auto", "sampler": "popularity"}}, "method.correction"),
        ({"method": {"sampler": "popularity", "correction": "logq", "in_batch": 255}}, "method.in_batch"),
        ({"method": {"sampler": "popularity", "correction": "logq", "popularity_power": 1000}}, POWER),
        ({"method": {"loss": "cce", "sharing": "tile"}}, "method.sharing"),
        ({"method": {"loss": "gbce", "in_batch": 256}}, "method.in_batch"),
        ({"method": {"loss": "bce", "sampler": "popularity"}}, "method.sampler"),
        ({"method": {"loss": "sce", "sharing": "tile"}}, "method.sharing"),
        ({"method": {"loss": "cce_sampled", "sce_items": 9}}, "method.sce_items"),
        ({"method": {"loss": "auto", "sce_mix": False}}, "method.sce_mix"),
        *(({"method": {"loss": loss, "correction": "logq"}}, "method.correction") for loss in UNCORRECTED),
        ({"method": {"loss": "cce", "gbce_t": 0.1}}, "method.gbce_t"),
        ({"method": {"popularity_power": 0.5}}, "method.popularity_power"),
        ({"method": {"tile_rows": 8}}, "method.tile_rows"),
        ({"method": {"loss": "bce", "tile_rows": 8}}, "method.tile_rows"),
        ({"method": {"sharing": "batch", "tile_rows": 8}}, "method.tile_rows"),
    ],
)
def test_contradictions(sections, where):
    error = refused(composed(**sections))
    assert error.where == where
    assert error.fix


@pytest.mark.parametrize(
    "sections",
    [
        {"run": {"precision": "fp16", "device": "auto"}},
        {"run": {"patience": 3, "validate_every": 8, "max_epochs": 8}},
        {"model": {"dim": 33, "num_heads": 3}},
        {"method": {"sampler": "popularity", "correction": "logq", "sharing": "tile", "in_batch": 254}},
        {"method": {"correction": "logq", "in_batch": 255}},
        {"method": {"loss": "auto", "sampler": "popularity", "correction": "logq", "popularity_power": 10}},
        {"method": {"sampler": "popularity", "correction": "none", "loss": "ce_sampled"}},
        {"method": {"sampler": "block", "num_negatives": 256, "correction": "logq"}},
        {"method": {"loss": "bce_sampled", "sampler": "block", "num_negatives": 256, "in_batch": 192}},
        {"method": {"loss": "bce_sampled", "sampler": "popularity", "sharing": "tile"}},
        {"method": {"loss": "gbce", "in_batch": 3}},
        {"method": {"loss": "sce", "sce_items": 9, "sce_mix": False, "sce_buckets": 4, "sce_targets": 7}},
        {"method": {"loss": "bce", "temperature": 0.5}},
        {"method": {"loss": "gbce", "gbce_t": 0.1, "sharing": "tile", "tile_rows": 8}},
        *({"method": {"loss": loss, "num_negatives": 63}} for loss in (*LOSSES, "auto")),
        {"evaluation": {"monitor": "mrr@5"}},
    ],
)
def test_what_only_looks_like_a_contradiction(sections):
    check.build(composed(**sections))


def test_what_would_do_nothing_says_what_it_is_for():
    error = refused(composed(method={"loss": "ce", "sce_buckets": 4}))
    assert error.what == "sce_buckets=4 would do nothing: it is for loss=sce, not ce."
    assert error.fix == "method.loss=sce, or method.sce_buckets=null"
    error = refused(composed(method={"loss": "bce", "correction": "logq"}))
    assert error.fix == "method.loss=cce_sampled, or method.correction=exact"


@pytest.mark.parametrize(
    ("own", "fix"),
    [
        (("block", 64, 3), "method.num_negatives=128 method.in_batch=64"),
        (("block", 256, 7), "method.in_batch=64"),
        (("block", 255, 0), "method.num_negatives=256"),
        (("block", 64, 64), "method.num_negatives=128"),
        (("block", 64, 100), "method.num_negatives=192 method.in_batch=128"),
        (("popularity", 10, 10), "method.num_negatives=11"),
        (("popularity", 10, 12), "method.num_negatives=13"),
        (("uniform", 10, 12), "method.num_negatives=12"),
    ],
)
def test_the_fix_leaves_slots_to_the_sampler_and_is_accepted(own, fix):
    names = ("sampler", "num_negatives", "in_batch")
    asked = {**dict(zip(names, own, strict=True)), "correction": "logq"}
    assert refused(composed(method=asked)).fix == fix
    for word in fix.split():
        name, number = word.removeprefix("method.").split("=")
        asked[name] = int(number)
    check.build(composed(method=asked))


def test_every_kind_of_limit_is_honoured():
    for limits, good, bad in [
        ({"low": 1}, 1, 0),
        ({"high": 1}, 1, 2),
        ({"above": 1}, 1.5, 1),
        ({"choices": ("a", "b")}, "a", "c"),
        ({"low": 1}, [1, 2], [1, 0]),
        ({"choices": ("a",)}, ["a"], ["a", "b"]),
    ]:
        check_limits(good, limits)
        with pytest.raises(WrongValue):
            check_limits(bad, limits)
    check_limits(None, {"low": 1, "choices": ("a",)})
    check_limits(True, {"low": 5})


def test_setting_keeps_only_limits_that_are_checked():
    @dataclass
    class Any_:
        value: int = setting(1)

    (only,) = Any_.__dataclass_fields__.values()
    assert set(only.metadata) == {"choices", "low", "high", "above"}


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.lists(st.integers()),
    )
)
def test_conversion_keeps_the_value_or_refuses(raw):
    for hint in (int, float, str, bool, int | None, list[int], dict[str, int]):
        value, refusal = converted(raw, hint)
        if refusal is None:
            assert value == (float(raw) if type(value) is float else raw)
            assert type(value) is type(raw) or (hint is float and type(raw) is int)
        else:
            assert describe(hint) in refusal


def converted(raw, hint):
    try:
        return convert(raw, hint), None
    except WrongValue as wrong:
        return None, wrong.what


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(WrongValue, match="401 digits"):
        convert(10**400, float)


def test_other_annotations():
    assert convert({"a": 1}, dict[str, float]) == {"a": 1.0}
    assert convert("x", Literal["x", "y"]) == "x"
    assert convert(object, Any) is object
    assert convert(2, int | str) == 2
    assert convert("2", int | str) == "2"
    with pytest.raises(WrongValue):
        convert("z", Literal["x", "y"])
    with pytest.raises(TypeError):
        convert(1, complex)


def test_third_party_sections_join(monkeypatch):
    @dataclass
    class Inner:
        depth: int = setting(1, low=1)

    @dataclass
    class Mine:
        name: str = "mine"
        inner: Inner = field(default_factory=Inner)
        weights: dict[str, float] = field(default_factory=dict)

    monkeypatch.setattr(
        registry, "schema", lambda kind, name: Mine if name == "mine" else _SCHEMA(kind, name)
    )
    config = check.build(composed(method={"name": "mine", "inner": {"depth": 2}, "weights": {"a": 1}}))
    assert config.method == Mine("mine", Inner(2), {"a": 1.0})
    error = refused(composed(method={"name": "mine", "inner": {"dept": 2}}))
    assert error.nearest == "method.inner.depth"


_SCHEMA = registry.schema


@pytest.mark.parametrize(
    ("given_", "nearest"),
    [
        ("run.epochs", "run.max_epochs"),
        ("lr", "optimizer.lr"),
        ("method.lr", "optimizer.lr"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("optimizer.mp", None),
        ("me", "run.max_epochs"),
        ("nonsense", None),
        ("sed", "seed"),
        ("optimiser.lr", "optimizer.lr"),
        ("method.encodr.name", "method.encoder.name"),
        ("encoder.name", "method.encoder.name"),
        ("epochs", "run.max_epochs"),
        ("sample.forgetting.epochs", "dataset.sample.forgetting.epochs"),
        ("methd.name", "method.name"),
        ("method.weight_decay", "optimizer.weight_decay"),
        ("method.wd", "optimizer.weight_decay"),
    ],
)
def test_nearest_path(given_, nearest):
    known = ["hydra.job.name", "seed", "run.max_epochs", "run.patience", "optimizer.lr", "optimizer.betas"]
    known += ["method.name", "method.encoder.name", "dataset.sample.forgetting.epochs"]
    known += ["method.factors.lr", "method.factors.weight_decay", "optimizer.weight_decay"]
    assert nearest_path(given_, known) == nearest


def test_known_paths_follow_the_named_sections():
    paths = check.known_paths(composed(method={"name": "ease"}))
    assert "method.l2" in paths
    assert "method.num_negatives" not in paths
    assert "dataset.split.kind" in paths


def test_a_run_of_no_epoch_is_refused():
    error = refused(composed(run={"max_epochs": 0}))
    assert error.where == "run.max_epochs"
    assert error.fix == "write 1 or more"
