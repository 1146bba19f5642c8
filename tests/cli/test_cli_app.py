"""Verbs, help, exit codes and speed of the command line as a whole."""

import importlib.util
import subprocess
import sys

import pytest

from effrec_cli import __version__, app
from effrec_cli.errors import ConfigError, DataError, EnvironmentFault, NonFiniteError
from effrec_cli.verbs import VERBS

HEAVY = {"torch", "numpy", "rich", "pandas", "scipy", "triton", "transformers"}
IMPORTED = """
import sys
from effrec_cli.app import main
code = main()
print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["train", "--cfg", "job"], ["train", "--help"], ["ls", "datasets"]]
)
def test_quick_answers_import_nothing_heavy(effrec_process, argv):
    done = effrec_process(*argv, code=IMPORTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["evaluate", "--help"], 0),
        (["recommend", "--help"], 0),
        (["bench", "--help"], 0),
        (["ls", "methods"], 0),
        (["ls", "models"], 0),
        (["evaluate", "nowhere"], 2),
        (["recommend", "nowhere", "--user", "1"], 2),
        (["bench", "nope"], 2),
        (["train", "dataset=table"], 2),
        (["train", "dataset=table", "dataset.path=nowhere.csv"], 2),
        (["train", "run.dir=taken"], 2),
    ],
)
def test_what_needs_no_torch_imports_none(effrec_process, tmp_path, argv, code):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.yaml").write_text("seed: 1\n")
    done = effrec_process(*argv, code=IMPORTED)
    assert done.returncode == code, done.stderr
    assert not {"torch", "triton", "pandas"} & set(done.stderr.splitlines()[-1].split())


def test_help_does_not_even_import_hydra(effrec_process):
    done = effrec_process("--help", code=IMPORTED)
    assert not {"hydra", "omegaconf", "yaml"} & set(done.stderr.split())


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(effrec, argv):
    done = effrec(*argv)
    assert done.code == 0
    for verb, row in VERBS.items():
        assert f"  {verb} " in done.out
        assert row.summary in done.out


def test_version(effrec):
    assert effrec("--version").out == f"effrec {__version__}\n"


def test_every_verb_has_a_module():
    for verb in VERBS:
        assert importlib.util.find_spec(f"effrec_cli.commands.{verb}"), verb


@pytest.mark.parametrize("verb", ["train", "resume", "ls", "validate", "doctor"])
def test_every_verb_explains_itself(effrec, verb):
    by_option, by_help = effrec(verb, "--help"), effrec("help", verb)
    assert by_option.code == by_help.code == 0
    assert f"usage: effrec {verb}" in by_option.out
    assert by_option.out == by_help.out


def test_unknown_verb_names_the_nearest(effrec):
    done = effrec("trian")
    assert done.code == 2
    assert "no verb called 'trian'" in done.err
    assert "did you mean: train" in done.err


def test_help_of_an_unknown_verb(effrec):
    done = effrec("help", "trian")
    assert done.code == 2
    assert "did you mean: train" in done.err


def test_settings_without_a_verb_are_told_where_they_belong(effrec):
    done = effrec("method=pop", "seed=2")
    assert done.code == 2
    assert "fix: effrec train method=pop seed=2" in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no"), 2),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 2),
        (DataError("no"), 3),
        (MemoryError(), 4),
        (NonFiniteError("no"), 5),
        (EnvironmentFault("no"), 6),
        (OSError(28, "No space left on device", "x"), 6),
        (PermissionError(13, "Permission denied", "x"), 6),
        (ModuleNotFoundError("No module named 'pandas'", name="pandas"), 6),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_exit_codes_of_a_run(effrec, stub_run, error, code):
    def fail(config):
        raise error

    stub_run.answer = fail
    done = effrec("train", "method=pop")
    assert done.code == code
    assert done.err.startswith(("effrec: ", "\neffrec: "))
    assert "Traceback" not in done.err


def test_a_missing_package_names_its_extra(effrec, stub_run):
    def fail(config):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn.neighbors")

    stub_run.answer = fail
    assert "pip install 'effrec[data]'" in effrec("train").err


@pytest.mark.parametrize("argv", [["--debug", "train", "method=pop"], ["train", "method=pop", "--debug"]])
def test_debug_shows_the_traceback(effrec, stub_run, monkeypatch, argv):
    monkeypatch.setenv("EFFREC_DEBUG", "")

    def fail(config):
        raise DataError("the file is empty", where="x.csv")

    stub_run.answer = fail
    done = effrec(*argv)
    assert done.code == 3
    assert "Traceback" in done.err
    assert "in fail" in done.err
    assert "where: x.csv" in done.err


def test_wrong_usage_of_a_verb_is_exit_2(effrec):
    assert effrec("resume").code == 2
    assert effrec("ls", "methods", "--nope").code == 2


def test_a_reader_that_leaves_is_no_error(effrec_process):
    code = "import sys; from effrec_cli.app import main; sys.exit(main(['train', '--cfg', 'all']))"
    producer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    producer.stdout.close()
    errors = producer.stderr.read()
    assert producer.wait(timeout=60) == app.BROKEN_PIPE
    assert errors == ""


def test_module_and_command_are_the_same(effrec_process):
    assert effrec_process("--version").stdout == f"effrec {__version__}\n"
