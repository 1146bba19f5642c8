"""Composition to dataclasses and YAML back and forth."""

import os
from pathlib import Path

import pytest
import yaml
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st

from effrec_cli import compose
from effrec_cli.errors import ConfigError
from effrec_cli.paths import conf_dir


def groups():
    """Returns every YAML of every group as an override."""
    found = sorted(path.relative_to(conf_dir()) for path in conf_dir().rglob("*.yaml"))
    return [f"{path.parent}={path.stem}" for path in found if path.parent != Path()]


# What a YAML cannot know and the user must say.
NEEDED = {"dataset=table": ["dataset.path=ratings.csv"]}


@pytest.mark.parametrize("override", groups())
def test_every_yaml_of_every_folder_validates(override):
    config = compose.compose([override, *NEEDED.get(override, [])])
    group, name = override.split("=")
    if group in ("method", "model"):
        assert getattr(config, group).name == name or group == "model"


def composed(override):
    """Returns what the YAML alone says, before the schema fills in its defaults."""
    overrides = [override, *NEEDED.get(override, [])]
    with compose.opened(compose.Folders(), overrides) as hydra:
        return compose.plain(hydra.compose_config(compose.CONFIG_NAME, overrides, RunMode.RUN))


@pytest.mark.parametrize("override", [each for each in groups() if not each.startswith("experiment=")])
def test_every_yaml_states_every_key_so_that_it_can_be_overridden(override):
    stated = composed(override)
    assert_states(stated, compose.resolved(compose.check.build(stated)), override)


def assert_states(stated, section, path):
    for key, value in section.items():
        assert key in stated, f"{path}.{key} is missing"
        if isinstance(value, dict) and isinstance(stated[key], dict):
            assert_states(stated[key], value, f"{path}.{key}")


# The YAML that says what a dataclass says; the group's others say what is different about them.
SAME = [
    "run=default",
    "optimizer=adam",
    "dataset=synthetic",
    "dataset=table",
    *(each for each in groups() if each.startswith(("method=", "model="))),
]
NOT_DEFAULTS = {"data_root", "dataset.name", "dataset.family", "dataset.path"}


@pytest.mark.parametrize("override", SAME)
def test_yaml_and_dataclasses_agree_on_every_default(override):
    stated = composed(override)
    named = {section: {key: stated[section][key]} for section, (_, key) in compose.check.REGISTERED.items()}
    group = override.split("=")[0]
    section = {group: stated[group]} | {key: stated[key] for key in stated if key not in GROUPS}
    by_schema = compose.resolved(compose.check.build({**named, "data_root": ""}))
    assert differences(section, {key: by_schema[key] for key in section}) <= NOT_DEFAULTS


GROUPS = {each.split("=")[0] for each in groups()}


def differences(left, right, prefix=""):
    """Returns the full keys whose values differ between two mappings of the same keys."""
    found = set()
    for key, value in left.items():
        if isinstance(value, dict):
            found |= differences(value, right[key], f"{prefix}{key}.")
        elif value != right[key]:
            found.add(f"{prefix}{key}")
    return found


def test_overrides_and_defaults():
    config = compose.compose(["method=pop", "seed=4"])
    assert (config.method.name, config.model.name, config.seed) == ("pop", "none", 4)


def test_a_model_named_by_the_user_wins_over_the_methods_default():
    assert compose.compose(["method=ease", "model=sasrec"]).model.name == "sasrec"


def test_composing_twice_and_after_a_failure_gives_the_same():
    first = compose.compose([])
    with pytest.raises(ConfigError):
        compose.compose(["method=nope"])
    assert compose.compose([]) == first


def test_composing_leaves_the_environment_alone():
    before = dict(os.environ)
    compose.compose([])
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"EFFREC_DATA": "/some/where"}, "/some/where"),
        ({"EFFREC_DATA": "~/data"}, "~/data"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/effrec"),
        ({}, "~/.cache/effrec"),
    ],
)
def test_data_root(monkeypatch, variables, expected):
    for name in ("EFFREC_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert compose.compose([]).data_root == str(Path(expected).expanduser())


def test_data_root_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert compose.compose(["data_root=here"]).data_root == str(tmp_path / "here")


def test_yaml_round_trip(tmp_path):
    config = compose.compose(["name='\\${not} a: [thing]'", "optimizer.lr=1e-7", "run.dir='ü'"])
    path = tmp_path / "config.yaml"
    assert (config.name, config.run.dir) == ("${not} a: [thing]", "ü")
    path.write_text(compose.to_yaml(config), encoding="utf-8")
    assert compose.from_yaml(path) == config
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == compose.resolved(config)


@settings(max_examples=25, deadline=None)
@given(
    lr=st.floats(1e-300, 1e300),
    named=st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=8)),
)
def test_no_value_is_lost_in_yaml(tmp_path_factory, lr, named):
    raw = {**yaml.safe_load(BASE), "dataset": {"family": "table"}}
    config = compose._finished(compose.check.build(raw))
    config.optimizer.lr, config.dataset.time = lr, named
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_bytes(compose.to_yaml(config).encode())
    assert compose.from_yaml(path) == config


BASE = "{dataset: {family: synthetic}, model: {name: sasrec}, method: {name: cce}, data_root: /data}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: [1\n", "not valid YAML"),
        ("- 1\n", "not a mapping"),
        ("", "not a mapping"),
        ("seed: 1\n", "dataset.family"),
        (BASE[:-1] + ", sed: 3}", "sed"),
        (BASE[:-1] + ", seed: x}", "seed"),
    ],
)
def test_bad_files_are_named(tmp_path, text, says):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose.from_yaml(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        compose.from_yaml(tmp_path / "nope.yaml")
    assert caught.value.where == str(tmp_path / "nope.yaml")


def test_a_users_folder(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("name: ease\nl2: 7\n")
    assert compose.compose(["method=mine", "model=none"], str(tmp_path)).method.l2 == 7.0
    with pytest.raises(ConfigError) as caught:
        compose.compose([], str(tmp_path / "nope"))
    assert caught.value.where == str(tmp_path / "nope")
