"""A run that is to go on is not overwritten by another one."""

import pytest

from effrec_cli import compose
from effrec_cli.errors import ConfigError
from effrec_cli.kept_settings import refuse_other_settings

TYPED = ["method=cce", "dataset.num_users=200", "model.dim=64", "optimizer.lr=0.001", "evaluation.ks=[10,20]"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text(compose.to_yaml(compose.compose(TYPED)))
    return tmp_path


def test_an_empty_folder_takes_any_run(tmp_path):
    refuse_other_settings(tmp_path, compose.compose(["method=pop"]))


def test_how_long_and_where_a_run_goes_may_change(folder):
    more = ["run.max_epochs=500", "run.devices=2", "data_root=/elsewhere", "name=other"]
    refuse_other_settings(folder, compose.compose([*TYPED, *more]))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("model.dim=48", "model.dim was 64, now 48"),
        ("dataset.num_users=300", "dataset.num_users was 200, now 300"),
        ("optimizer.lr=0.5", "optimizer.lr was 0.001, now 0.5"),
        ("evaluation.ks=[10]", "evaluation.ks was [10, 20], now [10]"),
        ("seed=2", "seed was 1, now 2"),
    ],
)
def test_what_makes_a_run_itself_may_not(folder, typed, words):
    with pytest.raises(ConfigError) as caught:
        refuse_other_settings(folder, compose.compose([*TYPED, typed]))
    assert words in str(caught.value.where)
    assert f"effrec resume {folder}" in str(caught.value.fix)


def test_another_method_is_named_first(folder):
    with pytest.raises(ConfigError, match="other settings") as caught:
        refuse_other_settings(folder, compose.compose(["method=pop"]))
    assert str(caught.value.where).startswith(f"{folder}: method.name was cce, now pop")
