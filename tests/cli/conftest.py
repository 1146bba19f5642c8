"""Runs `effrec` in this process, in a folder of its own, with a stub in place of training where asked for."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from effrec_cli import app, jobprocess

ROOT = Path(__file__).resolve().parents[2]


class Finished:
    """What a command line came to."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Moves into an empty folder, with the data beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFFREC_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("EFFREC_DEBUG", raising=False)


@pytest.fixture
def effrec(own_folder, capsys):
    """Returns a function that runs `effrec ARGS` here and captures what it prints."""

    def call(*argv):
        capsys.readouterr()
        code = app.main(list(argv))
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return call


@pytest.fixture
def effrec_process(own_folder):
    """Returns a function that runs `effrec ARGS` in a process of its own."""

    def call(*argv, code=None, env=None, stdin=None):
        command = [sys.executable, "-c", code, *argv] if code else [sys.executable, "-m", "effrec_cli", *argv]
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            input=stdin,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
        )

    return call


@pytest.fixture
def stub_run(own_folder, monkeypatch):
    """Puts a recording stub in the place of `effrec_cli.run`; give it `answer` to decide what a run does."""
    stub = types.ModuleType("effrec_cli.run")
    stub.calls, stub.resumed = [], []
    stub.answer = lambda config: None

    def run(config, overrides, **options):
        stub.calls.append((config, overrides))
        stub.answer(config)
        folder = Path(config.run.dir or "outputs/run")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text("{}")
        return types.SimpleNamespace(
            metrics={"valid": {"ndcg@10": config.seed / 10}, "test": {"ndcg@10": 0.5}}
        )

    stub.run, stub.resume = run, lambda folder: stub.resumed.append(folder)
    monkeypatch.setitem(sys.modules, "effrec_cli.run", stub)
    monkeypatch.setattr(jobprocess, "perform_apart", jobprocess.perform)
    return stub
