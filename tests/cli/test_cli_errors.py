"""What each kind of wrong setting is answered with: what, where, the nearest name, the fix; always exit 2."""

from pathlib import Path

import pytest

CASES = {
    "unknown option": (
        ["method=ccee"],
        ["no method called 'ccee'", "where: method=ccee", "did you mean: cce", "pop"],
    ),
    "unknown sibling": (
        ["method.num_negative=3"],
        ["'method.num_negative'", "did you mean: method.num_negatives=3"],
    ),
    "key of another section": (["method.lr=1"], ["did you mean: optimizer.lr=1"]),
    "key of the chosen method, beside another mistake": (
        ["method=gram", "method.perod=5", "method.encoder.poling=cls"],
        ["did you mean: method.period=5"],
    ),
    "section within a section": (
        ["method=gram", "method.encodr.name=x"],
        ["did you mean: method.encoder.name=x"],
    ),
    "key without section": (["epochs=2"], ["did you mean: run.max_epochs=2"]),
    "unknown group": (["models=sasrec"], ["did you mean: model=sasrec"]),
    "hydra group": (["hydra/lancher=basic"], ["did you mean: hydra/launcher=basic"]),
    "hydra key": (["hydra.sweep.dirr=x"], ["did you mean: hydra.sweep.dir=x"]),
    "key inside a value": (["method.loss.x=1"], ["'method.loss.x'", "did you mean: method.loss=1"]),
    "missing plugin": (["hydra/launcher=submitit_slurm"], ["pip install 'effrec[slurm]'"]),
    "launcher that is not": (["hydra/launcher=slurm"], ["basic; more by pip install 'effrec[slurm]'"]),
    "group without value": (["method"], ["'method' needs a value", "method=NAME, one of: bpr, cadc, cce"]),
    "group with empty value": (["method="], ["'method' needs a value"]),
    "option without group": (["pop"], ["written KEY=VALUE", "did you mean: method=pop"]),
    "no key": (["=3"], ["write KEY=VALUE"]),
    "open bracket": (["evaluation.ks=[1,2"], ["where: evaluation.ks=[1,2", "quote"]),
    "blank in key": (["a b=3"], ["where: a b=3\n          ^"]),
    "open quote": (["name='x"], ["where: name='x\n              ^"]),
    "failing function": (["seed=int(abc)"], ["invalid literal"]),
    "sweep without -m": (["seed=1,2"], ["where: seed=1,2", "add -m", "seed=[1,2]"]),
    "range without -m": (["seed=range(1,3)"], ["add -m"]),
    "adding what is there": (["+seed=3"], ["'seed' is there already", "fix: seed=3"]),
    "adding a group that is there": (["+method=pop"], ["fix: method=pop"]),
    "number for a group": (["run=3"], ["'run' takes a name", "one of: default"]),
    "deleting what is not there": (["~method.los"], ["did you mean: ~method.loss"]),
    "interpolation to nowhere": (["seed=${nope}"], ["'nope' not found", "where: seed"]),
    "no such variable": (["data_root=${oc.env:EFFREC_NOPE}"], ["EFFREC_NOPE", "where: data_root"]),
    "mandatory": (["seed=???"], ["'seed' has no value", "seed=VALUE"]),
    "added unknown key": (
        ["+method.num_negativ=1"],
        ["'method.num_negativ'", "did you mean: method.num_negatives"],
    ),
    "wrong type": (["optimizer.lr=fast"], ["must be a number, not the text 'fast'", "where: optimizer.lr"]),
    "float for int": (["run.max_epochs=1e3"], ["must be a whole number, not 1000.0", "fix: write 1000"]),
    "out of range": (["method.num_negatives=0"], ["0 is too small", "write 1 or more"]),
    "no choice": (["run.device=gpuu"], ["'gpuu' is not a choice", "auto, cpu, cuda"]),
    "cross check": (["evaluation.monitor=ndcg@11"], ["not among the metrics"]),
    "two at once": (
        ["seed=-1", "run.precision=fp61"],
        ["2 settings are wrong", "run.precision", "seed", "mean: fp16"],
    ),
    "option that is not": (["--epochs=3"], ["no option called '--epochs'", "without dashes: epochs=3"]),
    "wrong --cfg": (["--cfg", "jobs"], ["--cfg", "effrec train --help"]),
    "two modes": (["-m", "--cfg", "job"], ["use only one"]),
    "resolve alone": (["--resolve"], ["--resolve goes with --cfg"]),
    "no such part": (["--cfg", "job", "--package", "nope"], ["no part called 'nope'"]),
    "no such folder": (["--config-dir", "nope"], ["no such folder", "nope"]),
    "no such primary config": (["--config-name", "nope"], ["nope"]),
    "no such search path": (
        ["hydra.searchpath=[file:///nope]"],
        ["no such folder", "where: hydra.searchpath="],
    ),
    "wrong value of Hydra's": (["hydra.sweep.dir=[1]"], ["hydra.sweep.dir=[1]", "Cannot convert"]),
    "Hydra's folder of a run": (
        ["hydra.run.dir=gone"],
        ["where: hydra.run.dir=gone", "fix: run.dir=gone, or with -m: hydra.sweep.dir=gone"],
    ),
    "Hydra's folder under -m": (["-m", "hydra.run.dir=gone"], ["hydra.sweep.dir=gone"]),
    "experiment without its file": (
        ["experiment=paper_cce_beauty"],
        ["dataset.path is not set", "paper_cce_beauty.yaml says which file"],
    ),
    "unknown experiment": (["experiment=smoke_ccee"], ["did you mean: smoke_cce"]),
    "pickled job": (["--experimental-rerun", "x.pickle"], ["effrec resume"]),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_settings_are_explained(effrec, stub_run, case):
    overrides, expected = CASES[case]
    done = effrec("train", *overrides)
    assert done.code == 2
    for text in expected:
        assert text in done.err
    assert "Traceback" not in done.err
    assert "HYDRA_FULL_ERROR" not in done.err
    assert not stub_run.calls, "nothing may run"
    assert not Path("gone").exists(), "and no folder be made"


@pytest.mark.parametrize(
    "case", ["unknown option", "unknown sibling", "wrong type", "open bracket", "Hydra's folder of a run"]
)
def test_other_verbs_explain_alike(effrec, case):
    overrides, expected = CASES[case]
    done = effrec("validate", *overrides)
    assert done.code == 2
    for text in expected:
        assert text in done.err


def test_broken_yaml_names_file_and_line(effrec, stub_run, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nseed: 3\nmethod: [1\n")
    done = effrec("train", "--config-dir", str(tmp_path / "conf"), "experiment=mine")
    assert done.code == 2
    assert "mine.yaml, line" in done.err


def test_yaml_with_an_unknown_key_is_refused(effrec, stub_run, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nrun:\n  max_epoch: 3\n")
    done = effrec("train", "--config-dir", str(tmp_path / "conf"), "experiment=mine")
    assert done.code == 2
    assert "did you mean: run.max_epochs" in done.err
    assert not stub_run.calls
