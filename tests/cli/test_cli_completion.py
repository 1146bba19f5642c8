"""Shell completion: asked as the shells ask, and once through a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effrec_cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def complete(effrec, monkeypatch):
    """Returns a function that gives the words offered at the end of a line."""

    def ask(line, shell="bash"):
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        done = effrec("-sc", f"query={shell}")
        assert done.code == 0
        assert done.err == ""
        return done.out.split("\n" if shell == "fish" else " ") if done.out.strip() else []

    def words(line, shell="bash"):
        return [word.strip() for word in ask(line, shell) if word.strip()]

    return words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("effrec tr", ["train"]),
        ("effrec re", ["recommend", "resume"]),
        ("effrec ls ", ["methods", "datasets", "models", "experiments"]),
        ("effrec ls mo", ["models"]),
        ("effrec data i", ["import"]),
        ("effrec data describe ml-1", ["ml-100k", "ml-10m", "ml-1m"]),
        ("effrec data ls ", []),
        ("effrec data fetch ml-20m ", []),
        ("effrec --v", ["--version"]),
        ("effrec train method=i", ["method=ials", "method=iisan", "method=itemknn"]),
        (
            "effrec train method=",
            [
                *("method=bpr", "method=cadc", "method=cce", "method=dsl", "method=ease"),
                *("method=explicit_als", "method=gram", "method=ials", "method=iisan", "method=itemknn"),
                *("method=pop", "method=rsvd"),
            ],
        ),
        ("effrec validate model=sas", ["model=sasrec"]),
        ("effrec train method=ease method.l", ["method.l2=", "method.last="]),
        ("effrec train -m method=it", ["method=itemknn"]),
        ("effrec train seed=1,2 -m method=it", ["method=itemknn"]),
        ("effrec train run.dev", ["run.device=", "run.devices="]),
        ("effrec resume ", []),
        ("effrec nonsense ", []),
        ("effrec train 'broken ", []),
    ],
)
def test_offers(complete, line, expected):
    assert complete(line) == expected


def test_an_empty_line_offers_every_verb(complete):
    assert set(VERBS) < set(complete("effrec "))


def test_an_empty_setting_offers_groups_and_keys(complete):
    offered = complete("effrec train ")
    assert {"method=", "dataset=", "seed=", "run."} <= set(offered)


def test_a_users_folder_completes(complete, tmp_path):
    (tmp_path / "c" / "method").mkdir(parents=True)
    (tmp_path / "c" / "method" / "tiny.yaml").write_text("name: pop\n")
    assert complete(f"effrec train --config-dir {tmp_path / 'c'} method=t") == ["method=tiny"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_answered(complete, shell):
    assert complete("effrec train method=p", shell) == ["method=pop"]
    assert complete("effrec re", shell) == ["recommend", "resume"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_install_prints_a_script_for_effrec(effrec, monkeypatch, shell):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/effrec"])
    done = effrec("-sc", f"install={shell}")
    assert done.code == 0
    assert "effrec" in done.out
    assert effrec("train", "-sc", f"install={shell}").out == done.out
    assert effrec("-sc", f"uninstall={shell}").code == 0


def test_unknown_shell_is_a_usage_error(effrec):
    done = effrec("-sc", "install=powershell")
    assert done.code == 2
    assert "powershell" in done.err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself(effrec, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["effrec"])
    script = effrec("-sc", "install=bash").out
    command = tmp_path / "bin" / "effrec"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m effrec_cli "$@"\n')
    command.chmod(0o755)
    line = "effrec train method=it"
    state = f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_CWORD=2'
    asked = f'{script}\n{state}\nhydra_bash_completion\necho "${{COMPREPLY[@]}}"'
    environment = {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT}/kernels",
    }
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.strip() == "method=itemknn"
