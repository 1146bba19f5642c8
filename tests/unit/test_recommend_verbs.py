"""`effrec evaluate` and `effrec recommend` on finished runs."""

import json
import shutil

import numpy as np
import pytest

from effrec_cli.app import main
from effrec_cli.data.lookup import ids_of_text

TINY = ["dataset.num_users=60", "dataset.num_items=40", "dataset.side=[]", "run.device=cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns the folder of a finished run; its data lie beside it."""
    folder = tmp_path_factory.mktemp("verbs")
    words = [*TINY, "method=itemknn", "evaluation.ks=[3,10]", "evaluation.monitor=ndcg@3"]
    assert main(["train", f"data_root={folder / 'data'}", f"run.dir={folder / 'run'}", *words]) == 0
    return folder / "run"


@pytest.fixture
def effrec(capsys):
    def call(*words, code=0):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        return capsys.readouterr()

    return call


@pytest.fixture
def homeless(run, tmp_path):
    """Returns a copy of the run on a machine without its dataset."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    settings = copy / "config.yaml"
    settings.write_text(settings.read_text().replace(str(run.parent / "data"), str(tmp_path / "nothing")))
    return copy


def raw_ids(run, name):
    return np.load(run / "ids" / f"{name}.npy")


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluate_gives_the_numbers_of_the_run(run, effrec, split):
    record = json.loads(effrec("evaluate", run, "--split", split, "--json").out)
    kept = json.loads((run / "result.json").read_text())
    assert record["metrics"] == kept["metrics"][split]
    assert record["protocol"] == kept["protocol"]
    assert record["same_as_result"] is True
    assert kept["by_frequency"]["users"][0]["ndcg@10"] >= 0
    assert record["by_frequency"] == (kept["by_frequency"] if split == "test" else None)


def test_evaluate_by_another_rule_says_so(run, effrec):
    record = json.loads(effrec("evaluate", run, "--ks", "20,1", "--seen", "keep", "--json").out)
    assert record["protocol"]["ks"] == [1, 20]
    assert record["protocol"]["seen"] == "keep"
    assert record["same_as_result"] is None
    assert "ndcg@20" in record["metrics"]
    assert "another way" in effrec("evaluate", run, "--seen", "keep").out


def test_evaluate_prints_a_table_and_the_protocol(run, effrec):
    out = effrec("evaluate", run).out
    assert "ndcg" in out
    assert "protocol  leave_one_out" in out
    assert "item's rows" in out
    assert "NOT" not in out


def test_evaluate_notices_a_result_that_was_tampered_with(run, effrec, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = json.loads((copy / "result.json").read_text())
    record["metrics"]["test"]["ndcg@10"] += 0.01
    (copy / "result.json").write_text(json.dumps(record))
    assert "NOT the same as" in effrec("evaluate", copy).out


def test_evaluate_without_the_dataset_exits_3(homeless, effrec):
    err = effrec("evaluate", homeless, code=3).err
    assert "not prepared here" in err
    assert "effrec data describe synthetic" in err


@pytest.mark.parametrize("ks", ["0,5", "ten", "", "5,,"])
def test_wrong_cut_offs_exit_2(run, effrec, ks):
    if ks:
        assert "whole numbers above 0" in effrec("evaluate", run, "--ks", ks, code=2).err
    else:
        effrec("evaluate", run, "--ks", code=2)


def test_no_run_exits_2(effrec, tmp_path):
    for verb in (["evaluate"], ["recommend", "--history", "1"]):
        assert "no run folder" in effrec(verb[0], tmp_path / "none", *verb[1:], code=2).err


def test_recommend_for_users_leaves_out_what_they_met(run, effrec):
    import torch

    from effrec_cli.artifacts import open_run

    data = open_run(run, torch.device("cpu")).data
    first, last = raw_ids(run, "users")[[0, -1]]
    rows = json.loads(effrec("recommend", run, "--user", first, last, "-k", 4, "--json").out)
    assert [row["user"] for row in rows] == [first] * 4 + [last] * 4
    assert [row["rank"] for row in rows] == [1, 2, 3, 4] * 2
    met = data.items.ids[data.sequences.items[: data.sequences.offsets[1]]]
    assert not {row["item"] for row in rows[:4]} & set(met.tolist())
    kept = json.loads(effrec("recommend", run, "--user", first, "-k", 40, "--keep-seen", "--json").out)
    assert len(kept) == 40
    assert {row["item"] for row in kept} == set(raw_ids(run, "items").tolist())


def test_recommend_to_the_screen_shows_titles_and_the_history(run, effrec):
    user = raw_ids(run, "users")[0]
    out = effrec("recommend", run, "--user", user, "-k", 3).out
    assert f"for user {user} (" in out
    titles = run / "ids" / "titles.npy"
    if titles.is_file():
        assert any(str(title) in out for title in np.load(titles))


def test_a_history_needs_no_dataset(homeless, run, effrec):
    ids = raw_ids(run, "items")[[3, 5]]
    words = ["--history", f"{ids[0]}, {ids[1]}", "-k", 5, "--json"]
    rows = json.loads(effrec("recommend", homeless, *words).out)
    assert rows == json.loads(effrec("recommend", run, *words).out)
    assert len(rows) == 5
    assert {row["user"] for row in rows} == {None}
    assert not {row["item"] for row in rows} & set(ids.tolist())


def test_an_empty_history_is_a_new_user(run, effrec):
    rows = json.loads(effrec("recommend", run, "--history", "[]", "--json").out)
    assert len(rows) == 10


@pytest.mark.parametrize("text", ["", " "])
def test_a_history_of_nothing_is_rather_a_mistake(run, effrec, text):
    err = effrec("recommend", run, "--history", text, code=2).err
    assert "names no item" in err
    assert "--history '[]'" in err


def test_a_history_has_many_forms(run, effrec, tmp_path):
    first, second = raw_ids(run, "items")[[3, 5]].tolist()
    listed = tmp_path / "history.txt"
    listed.write_text(f"{first}\n\n{second}\n")
    forms = [
        ["--history", f"{first},{second}"],
        ["--history", first, "--history", second],
        ["--history", json.dumps([first, str(second)])],
        ["--history-file", listed],
    ]
    answers = [effrec("recommend", run, *form, "--json").out for form in forms]
    assert answers == answers[:1] * 4
    assert answers[0] != effrec("recommend", run, "--history", first, "--json").out


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a,b", ["a", "b"]),
        ('"a,b", c', ["a,b", "c"]),
        ('["a,b", "c", 3]', ["a,b", "c", "3"]),
        ("[1", ["[1"]),
        ("[true]", ["[true]"]),
        ("17", ["17"]),
    ],
)
def test_ids_of_a_text(text, ids):
    assert ids_of_text(text) == ids


def test_a_user_without_the_dataset_points_to_histories(homeless, run, effrec):
    err = effrec("recommend", homeless, "--user", raw_ids(run, "users")[0], code=3).err
    assert f"effrec recommend {homeless} --history" in err


def test_unknown_ids_exit_2_with_those_there_are(run, effrec):
    nobody = int(raw_ids(run, "users").max()) + 7
    err = effrec("recommend", run, "--user", nobody, code=2).err
    assert "did you mean" not in err, "a number near another tells nothing"
    assert f"to {nobody - 7}" in err
    nothing = int(raw_ids(run, "items").max()) + 9
    err = effrec("recommend", run, "--history", f"{nothing}", code=2).err
    assert "no item with the id" in err


def test_many_users_to_files(run, effrec, tmp_path):
    pandas = pytest.importorskip("pandas")
    users = raw_ids(run, "users")
    listed = tmp_path / "users.txt"
    listed.write_text("\n".join(map(str, users)) + "\n\n")
    for name in ("out.jsonl", "out.parquet"):
        told = effrec("recommend", run, "--users-file", listed, "-k", 2, "--out", tmp_path / name).out
        assert f"{2 * len(users)} recommendations for {len(users)} users" in told
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert pandas.read_parquet(tmp_path / "out.parquet")["item"].tolist() == [line["item"] for line in lines]
    assert [line["user"] for line in lines[::2]] == users.tolist()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--history", "1", "-k", "0"], "nothing to list"),
        (["--history", "1", "--out", "x.csv"], ".jsonl or .parquet"),
        (["--users-file", "/no/such/file"], "no file"),
        (["--history-file", "/no/such/file"], "where: --history-file"),
        ([], "required"),
        (["--user", "1", "--history", "1"], "not allowed"),
    ],
)
def test_wrong_words_exit_2(run, effrec, words, said):
    assert said in effrec("recommend", run, *words, code=2).err


def test_an_empty_users_file_exits_2(run, effrec, tmp_path):
    empty = tmp_path / "users.txt"
    empty.write_text("\n")
    assert "an id a line" in effrec("recommend", run, "--users-file", empty, code=2).err
