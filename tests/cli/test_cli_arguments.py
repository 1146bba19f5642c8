"""Wrong words after a verb: exit 2, what is wrong, the nearest name and a fix, in no words but our own."""

import pytest

CASES = {
    "option of a verb": (["validate", "--jsn"], ["no option called '--jsn'", "did you mean: --json"]),
    "option with a value": (["ls", "methods", "--config-dri=x"], ["did you mean: --config-dir"]),
    "option of a verb's verb": (
        ["data", "describe", "synthetic", "--jsn"],
        ["where: effrec data describe", "did you mean: --json", "fix: effrec data describe --help"],
    ),
    "verb's verb": (["data", "fetsh"], ["no verb called 'fetsh'", "mean: fetch", "describe, fetch, import"]),
    "choice": (
        ["recommend", "x", "--user", "1", "--device", "cudaa"],
        ["'cudaa' is not a choice of --device", "did you mean: cuda", "auto, cpu, cuda"],
    ),
    "kind of value": (["bench", "--minutes", "x"], ["invalid float value", "fix: effrec bench --help"]),
    "nothing given": (["compare"], ["required: RUN", "where: effrec compare"]),
    "one word too many": (["resume", "a", "b"], ["Unrecognized arguments: b", "where: effrec resume"]),
    "two that exclude each other": (
        ["recommend", "x", "--user", "1", "--history", "1"],
        ["not allowed with"],
    ),
    "option of --version": (["--version", "--json"], ["--version stands alone", "effrec doctor --json"]),
    "primary config": (["train", "-cn", "confg"], ["mean: config", "one of: config"]),
    "part of the settings": (["train", "--cfg", "job", "-p", "modl"], ["mean: model"]),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_words_are_explained(effrec, case):
    words, expected = CASES[case]
    done = effrec(*words)
    assert done.code == 2
    assert done.err.startswith("effrec: ")
    assert "usage:" not in done.err
    for text in expected:
        assert text in done.err


@pytest.mark.parametrize(
    "words",
    [["help", "nope"], ["train", "-x"], ["ls", "methods", "-x"], ["train", "--cfg", "job", "-p", "nope"]],
)
def test_nothing_is_named_where_nothing_is_near(effrec, words):
    done = effrec(*words)
    assert done.code == 2
    assert "did you mean" not in done.err


def test_an_error_stands_alone(effrec):
    done = effrec("train", "--cfg", "job", "-p", "modl")
    assert "not found in config" not in done.err
    done = effrec("train", "evaluation.ks=[0]")
    assert "evaluation.monitor" not in done.err


def test_options_and_settings_of_validate_may_mix(effrec):
    done = effrec("validate", "seed=1", "--json", "nope=3")
    assert done.code == 2
    assert '"ok": false' in done.out


def test_a_wrong_choice_of_an_experiment_names_its_file(effrec, tmp_path):
    path = tmp_path / "conf" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\ndefaults:\n  - override /method: popp\n")
    done = effrec("train", "--config-dir", str(tmp_path / "conf"), "experiment=mine")
    assert done.code == 2
    assert f"where: {path}" in done.err
    assert "did you mean: pop" in done.err
