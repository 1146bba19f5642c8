"""The README's commands run: each composes here; the slow test runs them one after the other."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from effrec_cli.compose import compose
from effrec_cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
SHELL = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)


def commands():
    """Returns the effrec commands of the README's shell blocks, in order, comments taken off."""
    text = "\n".join(SHELL.findall((ROOT / "README.md").read_text()))
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and line[0] == "effrec"]


def test_there_are_commands_to_test():
    assert len(commands()) > 10


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_is_a_verb_and_composes(words):
    verb, rest = words[1], words[2:]
    assert verb in VERBS or verb.startswith("-")
    if verb in ("train", "validate"):
        overrides = [word for word in rest if "=" in word]
        swept = [re.sub(r"=([^,\[{(]+),.*", r"=\1", word) for word in overrides]
        assert compose(swept).run is not None


NEEDS_NETWORK = ("ml-20m", "ml-1m")


@pytest.mark.slow
def test_the_commands_run_in_order(tmp_path):
    environment = {**os.environ, "EFFREC_DATA": str(tmp_path / "data"), "NO_COLOR": "1"}
    for words in commands():
        if any(name in word for word in words for name in NEEDS_NETWORK) or "PATH" in " ".join(words):
            continue
        short = ["run.max_epochs=1"] if words[1] == "train" and "--cfg" not in words else []
        command = [sys.executable, "-m", "effrec_cli", *words[1:], *short]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
