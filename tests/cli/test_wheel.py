"""The wheel works from any directory, in a venv of its own, beside a distribution called `kernels`."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ["dataset.num_users=60", "dataset.num_items=40", "run.device=cpu"]


def build(source, target, *arguments):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, *arguments, "-w", str(target), str(source)], check=True)
    (wheel,) = target.glob("*.whl")
    return wheel


def make_stranger(folder):
    """Writes a distribution that, like Hugging Face's, is imported as `kernels`."""
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "__init__.py").write_text("OWNER = 'stranger'\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "kernels"\nversion = "9.9"\n'
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A venv holding the wheel and the stranger; what they depend on is borrowed from this environment."""
    base = tmp_path_factory.mktemp("wheel")
    make_stranger(base / "stranger")
    wheels = [build(ROOT, base / "ours"), build(base / "stranger", base / "theirs")]
    venv.create(base / "venv", with_pip=True)
    python = base / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *map(str, wheels)], check=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # A path line does not process the .pth files of the folder it names: the editable install stays out.
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return base


def call(home, *arguments, cwd):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EFFREC"))},
        "EFFREC_DATA": str(home / "data"),
    }
    return subprocess.run(
        [str(home / "venv" / "bin" / arguments[0]), *arguments[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_its_own_packages_and_configs(home, tmp_path):
    code = (
        "import kernels, effrec_cli, effrec_kernels, transformers, json;"
        "from effrec_cli.paths import conf_dir;"
        "print(json.dumps([kernels.OWNER, effrec_cli.__file__, effrec_kernels.__file__, str(conf_dir())]))"
    )
    answer = call(home, "python", "-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    owner, *places = json.loads(answer.stdout)
    assert owner == "stranger"
    assert all(place.startswith(str(home / "venv")) for place in places), places


def test_the_installed_command_trains_from_any_directory(home, tmp_path):
    assert call(home, "effrec", "--version", cwd=tmp_path).stdout.startswith("effrec ")
    answer = call(home, "effrec", "train", "method=pop", "run.dir=here", *TINY, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    written = json.loads((tmp_path / "here" / "result.json").read_text())
    assert 0 < written["metrics"]["test"]["hr@10"] <= 1
