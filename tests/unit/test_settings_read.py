"""Every setting that the schema has is read by the code it is a setting of: none does nothing."""

import ast
import dataclasses
from pathlib import Path

import pytest

import effrec_cli
from effrec_cli import registry
from effrec_cli.schema import Config, EvaluationConfig, OptimizerConfig, RunConfig
from effrec_cli.schema.dataset_base import FilterConfig, PartsConfig, SplitConfig
from effrec_cli.schema.encoder import EncoderConfig
from effrec_cli.schema.sample import ForgettingConfig, SampleConfig

PACKAGE = Path(effrec_cli.__file__).parent


def names_read(*parts):
    """Returns what code reads as an attribute, as a variable, or by a string that is its name."""
    found = set()
    for path in (path for part in parts for path in sorted((PACKAGE / part).rglob("*.py"))):
        if "schema" in path.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


REGISTERED = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind in ("methods", "models", "datasets")
    for name in registry.rows(kind)
]
# How windows are masked is a model's setting that its batches read; how many neighbours an item has is read
# where training rows are.
CODE = {
    "methods": ["methods"],
    "models": ["models", "methods/next_item", "methods/sparse"],
    "datasets": ["data"],
}


# What code asks a function of the schema for instead.
ASKED = {"methods-dsl": {"start_density": "first_live_of"}}


@pytest.mark.parametrize(("kind", "name"), REGISTERED)
def test_every_setting_of_what_is_registered_is_read(kind, name):
    settings = {field.name for field in dataclasses.fields(registry.schema(kind, name))}
    read, asked = names_read(*CODE[kind]), ASKED.get(f"{kind}-{name}", {})
    assert set(asked.values()) <= read
    assert not settings - read - set(asked) - {"name"}


@pytest.mark.parametrize("section", [Config, RunConfig, OptimizerConfig, EvaluationConfig])
def test_every_setting_of_a_run_is_read(section):
    assert not {field.name for field in dataclasses.fields(section)} - names_read(".")


def test_every_setting_of_an_encoder_is_read():
    properties = {"lr", "weights"}  # by `peak_lr` and `pretrained`, which code asks in their place
    assert {"peak_lr", "pretrained"} <= names_read("methods")
    assert (
        not {field.name for field in dataclasses.fields(EncoderConfig)} - names_read("methods") - properties
    )


@pytest.mark.parametrize("section", [FilterConfig, SplitConfig, PartsConfig, SampleConfig, ForgettingConfig])
def test_every_setting_that_datasets_share_is_read(section):
    assert not {field.name for field in dataclasses.fields(section)} - names_read("data")


def test_a_setting_that_nothing_reads_would_show():
    assert "no_such_setting_anywhere" not in names_read(".")
    assert {"num_layers", "test_path", "clip_norm"} <= names_read(".")
    assert "clip_norm" not in names_read("methods")
