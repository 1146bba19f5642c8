"""`effrec train` for one run: what reaches the run, and Hydra's own options."""

import os

import pytest
import yaml

from effrec_cli.paths import conf_dir


def test_a_run_gets_checked_settings_and_what_was_typed(effrec, stub_run):
    done = effrec("train", "method=pop", "optimizer.lr=1", "run.dir=here", "hydra.verbose=false")
    assert done.code == 0, done.err
    ((config, overrides),) = stub_run.calls
    assert (config.method.name, config.model.name) == ("pop", "none")
    assert config.optimizer.lr == 1.0
    assert isinstance(config.optimizer.lr, float)
    assert config.run.dir == "here"
    assert overrides == ["method=pop", "optimizer.lr=1", "run.dir=here"]


def test_nothing_but_the_run_writes_here(effrec, stub_run, tmp_path):
    assert effrec("train").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]


def test_options_and_settings_may_mix(effrec):
    done = effrec("train", "seed=2", "--cfg", "job", "method=pop")
    assert done.code == 0
    shown = yaml.safe_load(done.out)
    assert (shown["seed"], shown["method"]["name"]) == (2, "pop")
    assert "hydra" not in shown


def test_cfg_of_a_part_and_resolved(effrec):
    done = effrec("train", "--cfg", "job", "-p", "method", "method=ease")
    assert yaml.safe_load(done.out)["name"] == "ease"
    assert "${oc.env:" in effrec("train", "--cfg", "job").out
    assert (
        yaml.safe_load(effrec("train", "--cfg", "job", "--resolve").out)["data_root"]
        == os.environ["EFFREC_DATA"]
    )


@pytest.mark.parametrize("kind", ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"])
def test_info(effrec, kind):
    done = effrec("train", "--info", kind)
    assert done.code == 0
    assert done.out.strip() or kind == "plugins"


def test_hydra_help(effrec):
    done = effrec("train", "--hydra-help")
    assert done.code == 0
    assert "hydra/launcher" in done.out


def test_help_lists_groups_and_options(effrec):
    done = effrec("train", "--help")
    assert done.code == 0
    for group in ("dataset", "method", "model", "optimizer", "run"):
        names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        assert f"  {group}: {', '.join(names)}\n" in done.out
    for option in ("--multirun", "--cfg", "--info", "--config-dir", "--package", "--resolve", "--hydra-help"):
        assert option in done.out


@pytest.fixture
def own_conf(tmp_path):
    """Returns a user's folder of configs with a method variant and an experiment."""
    folder = tmp_path / "my_conf"
    for name, text in {
        "method/tiny.yaml": "# Few negatives.\nname: cce\nloss: cce_sampled\nnum_negatives: 3\n",
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /method: tiny\nseed: 5\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def test_a_users_folder_adds_options(effrec, stub_run, own_conf):
    assert effrec("train", "--config-dir", own_conf, "method=tiny").code == 0
    assert effrec("train", "-cd", own_conf, "experiment=mine", "seed=6").code == 0
    (first, _), (second, _) = stub_run.calls
    assert first.method.num_negatives == second.method.num_negatives == 3
    assert first.method.correction == "exact", "what the file leaves out is the default"
    assert second.seed == 6
    assert "tiny" in effrec("train", "--config-dir", own_conf, "--help").out


def test_a_primary_config_of_ones_own(effrec, stub_run, own_conf, tmp_path):
    (tmp_path / "my_conf" / "main.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 9\n")
    done = effrec("train", "--config-dir", own_conf, "--config-name", "main")
    assert done.code == 0, done.err
    assert stub_run.calls[0][0].seed == 9


def test_resume_calls_the_run(effrec, stub_run, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text("seed: 1\n")
    assert effrec("resume", "old").code == 0
    assert [str(folder) for folder in stub_run.resumed] == ["old"]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_resume_of_what_is_no_run(effrec, stub_run, name):
    done = effrec("resume", name)
    assert done.code == 2
    assert f"where: {name}" in done.err
    assert not stub_run.resumed


def test_a_kernel_that_cannot_run_here_is_an_error_about_its_setting(effrec, monkeypatch):
    monkeypatch.setattr("effrec_kernels.triton_kernels.launch.is_interpreted", lambda: False)
    done = effrec("train", "experiment=smoke_cce", "method.kernel=triton", "run.device=cpu", "run.dir=here")
    assert done.code == 6
    assert "kernel=triton cannot run on cpu" in done.err
    assert "fix: method.kernel=auto" in done.err
    assert "should not have happened" not in done.err
