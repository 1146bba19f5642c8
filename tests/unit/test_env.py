"""What a run says about where it ran."""

import json
import platform
import subprocess

import pytest
import torch

import effrec_cli
from effrec_cli import env
from effrec_cli.errors import EnvironmentFault


def test_it_names_versions_device_and_commit():
    found = env.describe()
    assert found["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert found["versions"]["effrec"] == effrec_cli.__version__
    assert found["versions"]["python"] == platform.python_version()
    assert found["device_kind"] in ("cpu", "cuda")
    assert found["device"]
    assert found["memory_bytes"] > 2**28
    json.dumps(found)


def test_it_names_no_host():
    assert platform.node()
    text = json.dumps({**env.describe(), "commit": ""}).split('"')
    assert platform.node() not in text


def test_a_package_that_is_missing_is_none(monkeypatch):
    monkeypatch.setattr(env, "_PACKAGES", ("no-such-package",))
    assert env.versions()["no-such-package"] is None


def test_the_commit_is_that_of_the_source_tree(tmp_path, monkeypatch):
    def git(*words):
        done = subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@y", *words],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    monkeypatch.setattr(env, "PACKAGE", tmp_path / "effrec_cli")
    assert env.commit() == effrec_cli.__version__, "without a source tree the version tells"
    git("init", "-q")
    assert env.commit() == effrec_cli.__version__
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    assert env.commit() == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert env.commit() == git("rev-parse", "HEAD") + "+"


def test_without_git_the_version_tells(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(env, "PACKAGE", tmp_path / "effrec_cli")
    monkeypatch.setenv("PATH", "")
    assert env.commit() == effrec_cli.__version__


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build", "550.54.14"),
        ("", None),
    ],
)
def test_the_drivers_version_is_read(monkeypatch, text, version):
    monkeypatch.setattr(env, "_text", lambda _: text)
    assert env.driver() == version


def test_devices(monkeypatch):
    assert env.resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert env.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(EnvironmentFault) as caught:
        env.resolve_device("cuda")
    assert caught.value.exit_code == 6
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert env.resolve_device("auto") == torch.device("cuda")
