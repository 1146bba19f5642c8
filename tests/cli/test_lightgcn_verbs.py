"""`effrec train dataset=lightgcn|gowalla ...` from the command line down."""

import json
from pathlib import Path

import pytest

DRAWN = {
    "files_random": [],
    "random": ["dataset.split.test_share=0.2"],
    "strong": ["dataset.split.valid_user_share=0.2", "dataset.split.test_user_share=0.2"],
}


@pytest.fixture
def folder(own_folder):
    """Twelve users of two tastes, in the lists of LightGCN."""
    Path("lists").mkdir()
    for name, first, last in (("train", 0, 8), ("test", 8, 10)):
        rows = [
            (user, *((user * 3 + at) % 10 + 10 * (user % 2) for at in range(first, last)))
            for user in range(12)
        ]
        Path(f"lists/{name}.txt").write_text("".join(f"{' '.join(map(str, row))}\n" for row in rows))
    return "lists"


@pytest.mark.parametrize("kind", DRAWN)
def test_train_on_every_split(effrec, folder, kind):
    words = [f"dataset.path={folder}", f"dataset.split.kind={kind}", *DRAWN[kind], "method.last=null"]
    done = effrec(
        "train",
        "method=ease",
        "dataset=lightgcn",
        *words,
        "run.device=cpu",
        "run.dir=run",
        "evaluation.ks=[2,5]",
    )
    assert done.code == 0, done.err
    found = json.loads(Path("run/result.json").read_text())
    assert found["protocol"]["split"]["kind"] == kind
    # Users of one taste have met all ten of its items, so a ranking that knows tastes tells every one.
    assert found["metrics"]["test"]["recall@5"] == pytest.approx(1.0)
    assert found["metrics"]["valid"]["ndcg@5"] > 0.3


def test_what_train_and_import_say_without_files(effrec, folder):
    done = effrec("train", "method=pop", "dataset=gowalla", "run.device=cpu")
    assert done.code == 3
    assert "`effrec data import gowalla FILE`" in done.err
    assert effrec("data", "import", "gowalla", folder).code == 0
    done = effrec("data", "describe", "gowalla", "--json")
    assert done.code == 0
    assert "12 users in place of 29,858" in done.err
    found = json.loads(done.out)
    assert (found["users"], found["items"], found["split"]["test"]["targets"]) == (12, 20, 24)


def test_a_setting_that_the_split_does_not_read_is_refused(effrec, folder):
    done = effrec(
        "train", "method=pop", "dataset=lightgcn", f"dataset.path={folder}", "dataset.split.fold_in=0.5"
    )
    assert done.code == 2
    assert "dataset.split.fold_in" in done.err
    assert "kind=strong, not files_random" in done.err


def test_a_history_is_for_models_that_make_users_of_it(effrec, folder):
    words = [
        f"dataset.path={folder}",
        "dataset.split.kind=files_random",
        "run.device=cpu",
        "run.max_epochs=1",
    ]
    done = effrec("train", "method=dsl", "dataset=lightgcn", *words, "evaluation.ks=[2,5]", "run.dir=run")
    assert done.code == 0, done.err
    assert effrec("recommend", "run", "--user", "3", "-k", "2").code == 0
    asked = effrec("recommend", "run", "--history", "1,4", "-k", "2")
    assert asked.code == 2
    assert "makes nobody of a history" in asked.err
    assert "recommend run --user ID" in asked.err
